/* Rows of `vkmoe bench`: what each measures and how. A row runs something at a preset's shapes,
 * says how long one run took and what it cost; the command prints the table. New rows go into a
 * table of vkm_bench_groups. */
#ifndef VKM_CLI_BENCH_H
#define VKM_CLI_BENCH_H

#include "model/init_model.h"
#include "vk/stream.h"

typedef struct vkm_bench {
    vkm_dev *dev;
    vkm_stream *s;
    uint32_t repeat; /* measurements, of which the best counts */
    double min_s;    /* one measurement lasts at least this long */
} vkm_bench;

/* One run: 0 where a quantity means nothing for the row. */
typedef struct vkm_bench_result {
    double seconds, flops, bytes, tokens;
    char shape[96]; /* what was run, in numbers */
} vkm_bench_result;

typedef struct vkm_bench_row vkm_bench_row;
/* preset: NULL for the row of a device's own limits. */
typedef vkm_status vkm_bench_fn(vkm_bench *b, const vkm_bench_row *row,
                                const vkm_model_preset *preset, vkm_bench_result *out,
                                vkm_err *err);
struct vkm_bench_row {
    const char *name;
    vkm_bench_fn *run;
    const char *preset; /* NULL: every preset of the run; "": none, the name says its size */
    uint32_t size[3];   /* the row's own: see its run function */
};

typedef struct vkm_bench_group {
    const vkm_bench_row *rows;
    uint32_t n;
} vkm_bench_group;

/* The device's limits; products and attention; all other kernels; the whole policy. */
extern const vkm_bench_group vkm_bench_limits, vkm_bench_products, vkm_bench_kernels,
    vkm_bench_policy;

/* What the device does at best: flops and bytes a second, and the least seconds of one kernel
 * behind another. Measured by the rows `fma_chains` (chains of multiply-adds without memory),
 * `copy` (64 MiB read and written) and `launch` (64 numbers set to zero). */
typedef struct vkm_bench_peaks {
    double flops, bytes, launch;
} vkm_bench_peaks;
vkm_status vkm_bench_peaks_of(vkm_bench *b, vkm_bench_peaks *out, vkm_err *err) VKM_MUST_CHECK;

/* Best seconds of one call of `record`, which records work on b->s: once to warm up (pipelines),
 * then as often a measurement as min_s asks for. */
vkm_status vkm_bench_time(vkm_bench *b, void (*record)(vkm_stream *s, const void *arg),
                          const void *arg, double *seconds, vkm_err *err) VKM_MUST_CHECK;

/* The row "grade", which needs no device: grading boxes beside python3 and bwrap for each job, a
 * second for each way and round; prints its own table. */
vkm_status vkm_bench_grade(int rounds, int json, vkm_err *err) VKM_MUST_CHECK;

/* `vkmoe bench step CONFIG`, with options of its own. */
vkm_status vkm_bench_step(int argc, char **argv, vkm_err *err) VKM_MUST_CHECK;

#endif
