/* Bench rows of what a device does at best, and of the kernels that ask about it. */
#include "cli/bench_kit.h"
#include "ops/peak.h"

enum { COPY_ROWS = 4096, CHAIN_ROWS = 1 << 18, CHAIN_STEPS = 256, LAUNCHED = 64 };

VKM_BENCH(fma_chains) {
    *a = (vkm_args_fma_chains){.n = CHAIN_ROWS, .steps = CHAIN_STEPS, .factor = 0.5f, .term = 1.0f};
    vkm_kit_f32(k, &a->x, a->n);
    vkm_kit_f32(k, &a->y, a->n);
    k->flops = 2.0 * VKM_CHAINS * CHAIN_STEPS * CHAIN_ROWS;
}

/* 64 MiB in rows of 4096 and, at a preset, the rows of completion tokens. */
VKM_BENCH(gather_rows) {
    uint32_t n = k->c.C ? k->rows / 2 : COPY_ROWS, cols = k->c.C ? k->c.C : COPY_ROWS;
    *a = (vkm_args_gather_rows){.n_rows = n, .n_cols = cols};
    vkm_kit_f32(k, &a->x, (uint64_t)n * cols);
    vkm_kit_count(k, &a->rows, n, 1, n);
    vkm_kit_f32(k, &a->y, (uint64_t)n * cols);
}

VKM_BENCH(zero) {
    a->n = k->c.C ? k->rows * k->c.C : LAUNCHED;
    vkm_kit_f32(k, &a->y, a->n);
}

VKM_BENCH(softmath_probe) {
    a->n = CHAIN_ROWS;
    vkm_kit_f32(k, &a->x, a->n);
    vkm_kit_f32(k, &a->y, a->n);
    vkm_kit_f32(k, &a->z, a->n);
    k->flops = (double)VKM_EXP_OPS * a->n;
}

VKM_BENCH(arith_probe) {
    a->n = CHAIN_ROWS;
    vkm_kit_f32(k, &a->x, a->n);
    vkm_kit_f32(k, &a->y, a->n);
    vkm_kit_f32(k, &a->w, a->n);
    vkm_kit_f32(k, &a->z, a->n);
}

enum { FMA, COPY, LAUNCH };
static const vkm_bench_row rows[] = {
    [FMA] = {"fma_chains", run_fma_chains, "", {0}},
    [COPY] = {"copy", run_gather_rows, "", {0}},
    [LAUNCH] = {"launch", run_zero, "", {0}},
    {"softmath_probe", run_softmath_probe, "", {0}},
    {"arith_probe", run_arith_probe, "", {0}},
    VKM_BENCH_ROW(gather_rows, ""),
    VKM_BENCH_ROW(zero, ""),
};
const vkm_bench_group vkm_bench_limits = {rows, VKM_COUNTOF(rows)};

vkm_status vkm_bench_peaks_of(vkm_bench *b, vkm_bench_peaks *out, vkm_err *err) {
    enum { TRIES = 10 }; /* a limit is the best of many, where they take no time */
    vkm_bench_result r[LAUNCH + 1] = {0};
    vkm_bench quick = *b;
    quick.repeat = 1;
    quick.min_s = 0.02;
    for (int i = FMA; i <= LAUNCH; i++) {
        if (rows[i].run(&quick, &rows[i], NULL, &r[i], err)) return err->status;
        if (i == FMA && r[i].seconds < 0.1) {
            quick.repeat = TRIES;
            if (rows[i].run(&quick, &rows[i], NULL, &r[i], err)) return err->status;
        }
    }
    *out = (vkm_bench_peaks){r[FMA].flops / r[FMA].seconds, r[COPY].bytes / r[COPY].seconds,
                             r[LAUNCH].seconds};
    return VKM_OK;
}
