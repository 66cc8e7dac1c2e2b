/* Bench rows of kernels. A function by kernel, VKM_BENCH(name), has a vkm_kit *k and fills the
 * kernel's args *a at the shapes of a preset, tensors by the vkm_kit_ functions below; the bytes it
 * must move and the row's text follow from them. VKM_BENCH_ROW(name, suffix, sizes...) makes it a
 * row of a table. tests/test_bench.c holds that every kernel has a row. */
#ifndef VKM_CLI_BENCH_KIT_H
#define VKM_CLI_BENCH_KIT_H

#include "cli/bench.h"
#include "ops/kernels.h"

enum { VKM_KIT_TABLES = 4 };

/* A row being made: shapes to take, and what its function adds. */
typedef struct vkm_kit {
    const vkm_bench_row *row;
    const vkm_dev *dev;
    vkm_model_config c;           /* V is never 0 */
    uint32_t n_seq, len, rows;    /* a training batch: sequences, tokens each, both */
    uint32_t decoding, keys;      /* rows that decode, keys of each */
    uint32_t experts, rank, kper; /* kper: columns of an expert's pair of stacks */
    double flops; /* multiplications and additions that the formula asks for; 18 for an exp */
    double bytes; /* set where tensors are moved in part; else all are, INOUT twice */

    vkm_plan *plan;
    vkm_mem *mem;
    struct {
        const vkm_tensor *t;
        uint32_t *x;
    } tables[VKM_KIT_TABLES];
    uint32_t n_tables;
    const vkm_kernel *kernel;
    void (*op)(vkm_stream *s, const void *args);
    void *args;
    vkm_err *err;
} vkm_kit;

enum { VKM_EXP_OPS = 18 }; /* of ops/softmath.h's vkm_exp */

/* Tensors of the row, by where their args lie: numbers in [-1, 1), or what is written. */
void vkm_kit_f32(vkm_kit *k, vkm_tensor *t, uint64_t n);
void vkm_kit_bf16(vkm_kit *k, vkm_tensor *t, uint64_t n);
void vkm_kit_op16(vkm_kit *k, vkm_tensor *t, uint64_t rows, uint32_t cols);
/* A table of n words, 0 at first, to be filled at once; NULL: no memory, which the row reports. */
uint32_t *vkm_kit_u32(vkm_kit *k, vkm_tensor *t, uint64_t n);
/* The same with word i = i / per % below. */
void vkm_kit_count(vkm_kit *k, vkm_tensor *t, uint64_t n, uint32_t per, uint32_t below);
/* first row, rows, first completion row, completion rows: the training batch's sequences */
void vkm_kit_seqs(vkm_kit *k, vkm_tensor *t);

vkm_kit vkm_kit_begin(vkm_bench *b, const vkm_bench_row *row, const vkm_model_preset *preset,
                      vkm_err *err);
/* Takes the memory, fills it, measures, and frees the kit. */
vkm_status vkm_kit_run(vkm_kit *k, vkm_bench *b, vkm_bench_result *out);

#define VKM_BENCH(name)                                                                            \
    static void fill_##name(vkm_kit *k, vkm_args_##name *a);                                       \
    static vkm_status run_##name(vkm_bench *b, const vkm_bench_row *row,                           \
                                 const vkm_model_preset *preset, vkm_bench_result *out,            \
                                 vkm_err *err) {                                                   \
        vkm_args_##name args = {0};                                                                \
        vkm_kit k = vkm_kit_begin(b, row, preset, err);                                            \
        k.kernel = &vkm_kernels[VKM_K_##name];                                                     \
        k.op = (void (*)(vkm_stream *, const void *))(void (*)(void))vkm_op_##name;                \
        k.args = &args;                                                                            \
        fill_##name(&k, &args);                                                                    \
        return vkm_kit_run(&k, b, out);                                                            \
    }                                                                                              \
    static void fill_##name(vkm_kit *k, vkm_args_##name *a)

/* A row of every preset: its name is the kernel's and a suffix. */
#define VKM_BENCH_ROW(kernel, suffix, ...)                                                         \
    {                                                                                              \
#kernel suffix, run_##kernel, NULL, {                                                      \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

#endif
