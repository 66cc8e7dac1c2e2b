/* Compares the product kernels with OpenBLAS sgemm in one run, in turns, so that other load on the
 * machine meets all of them alike. Ours start from row-major fp32 as sgemm does: packing both
 * operands is counted. Prints best times of each and ratios (above 1: faster than OpenBLAS), by the
 * clock and by processor time, which tells the same on a machine that has other work.
 *
 *     compare_openblas [N [ROUNDS [DEVICE]]]     N x N x N, default 1024; DEVICE "none": cpu only
 */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/kernels.h"

typedef struct side {
    const char *name;
    vkm_dev *dev;
    vkm_stream *s;
    vkm_mem *mem;
    vkm_tensor x, w, xo, wo, c;
    double best_s, best_cpu_s;
} side;

/* Both clocks; what lies between two readings is one side's turn. */
typedef struct moment {
    double wall_s, cpu_s;
} moment;

static moment now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (moment){vkm_now_s(), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

static void take_turn(side *d, moment from) {
    moment to = now();
    double wall_s = to.wall_s - from.wall_s, cpu_s = to.cpu_s - from.cpu_s;
    if (wall_s < d->best_s) d->best_s = wall_s;
    if (cpu_s < d->best_cpu_s) d->best_cpu_s = cpu_s;
}

/* OpenBLAS knows processors by model number and takes its slowest kernels for one it does not know;
 * the choice is made when the library is loaded, so start again with a better one. */
static void choose_core(char **argv) {
    if (getenv("OPENBLAS_CORETYPE") || getenv("COMPARE_OPENBLAS_STARTED")) return;
#if defined(__x86_64__)
    const char *core = openblas_get_corename();
    int old = !strcmp(core, "Prescott") || !strcmp(core, "Nehalem") || !strcmp(core, "Core2");
    if (old && __builtin_cpu_supports("avx512f"))
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 1);
    else if (old && __builtin_cpu_supports("avx2"))
        setenv("OPENBLAS_CORETYPE", "Haswell", 1);
#endif
    setenv("COMPARE_OPENBLAS_STARTED", "1", 1);
    execv("/proc/self/exe", argv);
    fprintf(stderr,
            "compare_openblas: cannot start again (no /proc?): OpenBLAS keeps its %s kernels; "
            "set OPENBLAS_CORETYPE\n",
            openblas_get_corename());
}

static vkm_status open_side(side *d, vkm_dev_options o, uint32_t n, const float *x, const float *w,
                            vkm_err *err) {
    uint64_t size = (uint64_t)n * n;
    if (vkm_dev_open(&o, &d->dev, err) || vkm_stream_new(d->dev, &d->s, err)) return err->status;
    vkm_plan *p = vkm_plan_new(d->dev);
    vkm_plan_add(p, &d->x, VKM_F32, size, "operands");
    vkm_plan_add(p, &d->w, VKM_F32, size, "operands");
    vkm_plan_add(p, &d->xo, VKM_BF16, vkm_op_size(n, n), "operands");
    vkm_plan_add(p, &d->wo, VKM_BF16, vkm_op_size(n, n), "operands");
    vkm_plan_add(p, &d->c, VKM_F32, size, "operands");
    if (vkm_plan_commit(p, &d->mem, err)) return err->status;
    if (vkm_write(d->dev, d->x, x, err)) return err->status;
    return vkm_write(d->dev, d->w, w, err);
}

static void close_side(side *d) {
    vkm_mem_free(d->mem);
    vkm_stream_free(d->s);
    vkm_dev_close(d->dev);
}

static vkm_status run_side(side *d, uint32_t n, vkm_err *err) {
    moment start = now();
    VKM_OP(d->s, pack_f32, .x = d->x, .y = d->xo, .n_rows = n, .n_cols = n, .ldx = n);
    VKM_OP(d->s, pack_f32, .x = d->w, .y = d->wo, .n_rows = n, .n_cols = n, .ldx = n);
    VKM_OP(d->s, gemm, .a = d->xo, .b = d->wo, .c = d->c, .m = n, .n = n, .k = n, .kpa = n,
           .kpb = n, .ldc = n);
    vkm_status st = vkm_stream_flush(d->s, err);
    take_turn(d, start);
    return st;
}

int main(int argc, char **argv) {
    choose_core(argv);
    uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1024;
    uint32_t rounds = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 10;
    const char *device = argc > 3 ? argv[3] : NULL;
    if (!n || n % 8 || n > 16384 || !rounds) {
        fprintf(stderr, "usage: compare_openblas [N, a multiple of 8 [ROUNDS [DEVICE|none]]]\n");
        return 2;
    }
    uint64_t size = (uint64_t)n * n;
    vkm_err err = {0};
    side blas = {.name = "openblas", .best_s = 1e9, .best_cpu_s = 1e9};
    side sides[2] = {{.name = "cpu", .best_s = 1e9, .best_cpu_s = 1e9},
                     {.name = "vulkan", .best_s = 1e9, .best_cpu_s = 1e9}};
    uint32_t n_sides = device && !strcmp(device, "none") ? 1 : 2;
    float *x = vkm_calloc(size, 4, "x", &err), *w = vkm_calloc(size, 4, "w", &err);
    float *c = vkm_calloc(size, 4, "c", &err);
    double flops = 2.0 * n * n * n;
    if (err.status) goto fail;
    for (uint64_t i = 0; i < size; i++) {
        x[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
        w[i] = (float)(i * 2246822519u % 2001) / 1000 - 1;
    }
    vkm_dev_options options[2] = {{.backend = VKM_CPU}, {.backend = VKM_VULKAN, .device = device}};
    for (uint32_t i = 0; i < n_sides; i++)
        if (open_side(&sides[i], options[i], n, x, w, &err)) goto fail;
    for (uint32_t r = 0; r < rounds; r++) {
        moment start = now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)n, (int)n, 1, x, (int)n,
                    w, (int)n, 0, c, (int)n);
        take_turn(&blas, start);
        for (uint32_t i = 0; i < n_sides; i++)
            if (run_side(&sides[i], n, &err)) goto fail;
    }
    printf("%-9s %9.2f ms %8.1f GFLOP/s  %s, %d threads\n", blas.name, 1e3 * blas.best_s,
           flops / blas.best_s / 1e9, openblas_get_corename(), openblas_get_num_threads());
    for (uint32_t i = 0; i < n_sides; i++)
        printf("%-9s %9.2f ms %8.1f GFLOP/s  ratio %.3f, by processor time %.3f  %s\n",
               sides[i].name, 1e3 * sides[i].best_s, flops / sides[i].best_s / 1e9,
               blas.best_s / sides[i].best_s, blas.best_cpu_s / sides[i].best_cpu_s,
               vkm_dev_name(sides[i].dev));
    for (uint32_t i = 0; i < n_sides; i++) close_side(&sides[i]);
    free(x), free(w), free(c);
    return 0;
fail:
    fprintf(stderr, "compare_openblas: %s\n", err.msg);
    return (int)err.status;
}
