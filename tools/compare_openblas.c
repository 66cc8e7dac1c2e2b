/* Compares the product kernels with OpenBLAS sgemm in one run, in turns, so that other load on the
 * machine meets all of them alike. sgemm starts from row-major fp32; ours reads packed bf16, so the
 * time with both operands packed anew is shown first and the product alone behind it: in a model
 * the weights are packed once, and the kernel before a product writes its operand packed. Printed
 * are the best times of each and ratios (above 1: faster than OpenBLAS), by the clock and by
 * processor time, which tells the same on a machine that has other work. A turn begins with the
 * product over and over for --warm-ms, since a virtual processor that has just been woken may run
 * at half its speed, and not equally so for every kind of code: what counts is work that goes on.
 *
 *     compare_openblas [--rounds N] [--warm-ms N] [--device NAME|none] [MxNxK ...]
 *
 * Without shapes: 1024 cubed and the products of a training step (see `shapes` below). */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/kernels.h"

typedef struct shape {
    uint32_t m, n, k;
    const char *what;
} shape;

static const shape shapes[] = {
    {1024, 1024, 1024, "the usual one"},
    {1024, 2048, 1024, "q_proj of Qwen3-0.6B, 1024 tokens"},
    {1024, 3072, 1024, "gate_proj"},
    {1024, 1024, 3072, "down_proj"},
    {1024, 32, 1024, "two experts of rank 16"},
    {128, 151936, 1024, "LM head, 128 tokens"},
    {6400, 128, 128, "q_proj of the tiny testbed, a step's tokens"},
    {6400, 384, 128, "its gate_proj"},
};

/* Both clocks. */
typedef struct moment {
    double wall_s, cpu_s;
} moment;

typedef struct side {
    const char *name;
    vkm_dev *dev;
    vkm_stream *s;
    vkm_mem *mem;
    vkm_tensor x, w, xo, wo, c;
    moment whole, product; /* the shortest of all rounds */
} side;

static moment now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (moment){vkm_now_s(), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

static void keep_shorter(moment *best, moment from) {
    moment to = now();
    if (to.wall_s - from.wall_s < best->wall_s) best->wall_s = to.wall_s - from.wall_s;
    if (to.cpu_s - from.cpu_s < best->cpu_s) best->cpu_s = to.cpu_s - from.cpu_s;
}

/* Threads of the last turn may go on spinning for their next work (OpenBLAS's for some 30 ms) and
 * would take the next side's processors: waits until this process rests. */
static void rest(void) {
    for (int i = 0; i < 500; i++) {
        moment from = now();
        usleep(2000);
        if (now().cpu_s - from.cpu_s < 2e-4) return;
    }
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

static vkm_status take_memory(side *d, shape t, const float *x, const float *w, vkm_err *err) {
    vkm_plan *p = vkm_plan_new(d->dev);
    vkm_plan_add(p, &d->x, VKM_F32, (uint64_t)t.m * t.k, "operands");
    vkm_plan_add(p, &d->w, VKM_F32, (uint64_t)t.n * t.k, "operands");
    vkm_plan_add(p, &d->xo, VKM_BF16, vkm_op_size(t.m, t.k), "operands");
    vkm_plan_add(p, &d->wo, VKM_BF16, vkm_op_size(t.n, t.k), "operands");
    vkm_plan_add(p, &d->c, VKM_F32, (uint64_t)t.m * t.n, "operands");
    if (vkm_plan_commit(p, &d->mem, err) || vkm_write(d->dev, d->x, x, err)) return err->status;
    return vkm_write(d->dev, d->w, w, err);
}

static vkm_status multiply(side *d, shape t, vkm_err *err) {
    VKM_OP(d->s, gemm, .a = d->xo, .b = d->wo, .c = d->c, .m = t.m, .n = t.n, .k = t.k, .kpa = t.k,
           .kpb = t.k, .ldc = t.n);
    return vkm_stream_flush(d->s, err);
}

static void multiply_blas(shape t, const float *x, const float *w, float *c) {
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)t.m, (int)t.n, (int)t.k, 1, x,
                (int)t.k, w, (int)t.k, 0, c, (int)t.n);
}

static vkm_status take_turn(side *d, shape t, double warm_s, vkm_err *err) {
    rest();
    for (double end = now().wall_s + warm_s; now().wall_s < end;)
        if (multiply(d, t, err)) return err->status;
    moment start = now();
    VKM_OP(d->s, pack_f32, .x = d->x, .y = d->xo, .n_rows = t.m, .n_cols = t.k, .ldx = t.k);
    VKM_OP(d->s, pack_f32, .x = d->w, .y = d->wo, .n_rows = t.n, .n_cols = t.k, .ldx = t.k);
    if (vkm_stream_flush(d->s, err)) return err->status;
    moment packed = now();
    if (multiply(d, t, err)) return err->status;
    keep_shorter(&d->whole, start);
    keep_shorter(&d->product, packed);
    return VKM_OK;
}

static void show(const side *d, shape t, const side *blas) {
    double rate = 2e-9 * t.m * t.n * t.k;
    printf("  %-9s %9.2f ms %7.1f GFLOP/s", d->name, 1e3 * d->whole.wall_s, rate / d->whole.wall_s);
    if (d != blas)
        printf("  ratio %.3f, by processor time %.3f; product alone %.3f, %.3f",
               blas->whole.wall_s / d->whole.wall_s, blas->whole.cpu_s / d->whole.cpu_s,
               blas->whole.wall_s / d->product.wall_s, blas->whole.cpu_s / d->product.cpu_s);
    printf("\n");
}

static vkm_status compare(side *sides, uint32_t n_sides, shape t, uint32_t rounds, double warm_s,
                          vkm_err *err) {
    float *x = vkm_calloc((uint64_t)t.m * t.k, 4, "x", err);
    float *w = vkm_calloc((uint64_t)t.n * t.k, 4, "w", err);
    float *c = vkm_calloc((uint64_t)t.m * t.n, 4, "c", err);
    if (err->status) goto done;
    for (uint64_t i = 0; i < (uint64_t)t.m * t.k; i++)
        x[i] = (float)(i * 2654435761u % 2001) / 1000 - 1;
    for (uint64_t i = 0; i < (uint64_t)t.n * t.k; i++)
        w[i] = (float)(i * 2246822519u % 2001) / 1000 - 1;
    for (uint32_t i = 0; i < n_sides; i++) {
        sides[i].whole = sides[i].product = (moment){1e9, 1e9};
        if (i && take_memory(&sides[i], t, x, w, err)) goto done;
    }
    for (uint32_t r = 0; r < rounds; r++) {
        rest();
        for (double end = now().wall_s + warm_s; now().wall_s < end;) multiply_blas(t, x, w, c);
        moment start = now();
        multiply_blas(t, x, w, c);
        keep_shorter(&sides[0].whole, start);
        for (uint32_t i = 1; i < n_sides; i++)
            if (take_turn(&sides[i], t, warm_s, err)) goto done;
    }
    printf("%u x %u x %u%s%s\n", t.m, t.n, t.k, t.what ? ": " : "", t.what ? t.what : "");
    for (uint32_t i = 0; i < n_sides; i++) show(&sides[i], t, &sides[0]);
done:
    for (uint32_t i = 1; i < n_sides; i++) {
        vkm_mem_free(sides[i].mem);
        sides[i].mem = NULL;
    }
    free(x), free(w), free(c);
    return err->status;
}

static int usage(void) {
    fprintf(stderr, "usage: compare_openblas [--rounds N] [--warm-ms N] [--device NAME|none] "
                    "[MxNxK ...]\n"
                    "       K a multiple of 8, all up to 1048576\n");
    return 2;
}

static int read_shape(const char *text, shape *t) {
    int end = 0;
    *t = (shape){0};
    return sscanf(text, "%ux%ux%u%n", &t->m, &t->n, &t->k, &end) == 3 && !text[end] && t->m &&
           t->n && t->k && t->k % 8 == 0 && t->m <= 1 << 20 && t->n <= 1 << 20 && t->k <= 1 << 20;
}

int main(int argc, char **argv) {
    choose_core(argv);
    uint32_t rounds = 20, n_sides = 3;
    const char *device = NULL;
    double warm_s = 0.05;
    int at = 1;
    for (; at + 1 < argc && !strncmp(argv[at], "--", 2); at += 2) {
        if (!strcmp(argv[at], "--rounds"))
            rounds = (uint32_t)strtoul(argv[at + 1], NULL, 10);
        else if (!strcmp(argv[at], "--warm-ms"))
            warm_s = 1e-3 * strtod(argv[at + 1], NULL);
        else if (!strcmp(argv[at], "--device"))
            device = argv[at + 1];
        else
            return usage();
    }
    vkm_err err = {0};
    shape t;
    if (!rounds) return usage();
    for (int i = at; i < argc; i++)
        if (!read_shape(argv[i], &t)) return usage();
    side sides[3] = {{.name = "openblas"}, {.name = "cpu"}, {.name = "vulkan"}};
    vkm_dev_options options[3] = {
        {0}, {.backend = VKM_CPU}, {.backend = VKM_VULKAN, .device = device}};
    if (device && !strcmp(device, "none")) n_sides = 2;
    for (uint32_t i = 1; i < n_sides; i++)
        if (vkm_dev_open(&options[i], &sides[i].dev, &err) ||
            vkm_stream_new(sides[i].dev, &sides[i].s, &err))
            goto done;
    printf("OpenBLAS: %s, %d threads", openblas_get_corename(), openblas_get_num_threads());
    for (uint32_t i = 1; i < n_sides; i++)
        printf("; %s: %s", sides[i].name, vkm_dev_name(sides[i].dev));
    printf("; best of %u\n", rounds);
    for (int i = at; i < argc; i++)
        if (!read_shape(argv[i], &t) || compare(sides, n_sides, t, rounds, warm_s, &err)) goto done;
    for (uint32_t i = 0; at == argc && i < VKM_COUNTOF(shapes); i++)
        if (compare(sides, n_sides, shapes[i], rounds, warm_s, &err)) goto done;
done:
    for (uint32_t i = 1; i < n_sides; i++) {
        vkm_stream_free(sides[i].s);
        vkm_dev_close(sides[i].dev);
    }
    if (err.status) fprintf(stderr, "compare_openblas: %s\n", err.msg);
    return (int)err.status;
}
