/* Norms, clipping and AdamW against plain double code; long sums against the lane-64 rule. */
#include <math.h>

#include "bench.h"

#include "ops/numerics.h"
#include "ops/optim.h"
#include "rl/optimizer.h"

static vkm_backend_id backend_of(void **state) {
    return *(const vkm_backend_id *)*state;
}

/* The rule as it is written: 64 lanes, then a halving tree. */
static float lanes64(const float *x, uint32_t n, int squared) {
    volatile float lane[64] = {0}; /* volatile: nothing is fused or reordered */
    for (uint32_t i = 0; i < n; i++) {
        volatile float v = squared ? x[i] * x[i] : x[i];
        lane[i % 64] = lane[i % 64] + v;
    }
    for (int half = 32; half > 0; half /= 2)
        for (int l = 0; l < half; l++) lane[l] = lane[l] + lane[l + half];
    return lane[0];
}

static void long_sums(void **state) {
    enum { N = 3 * VKM_SUM_BLOCK + 777, BLOCKS = 4 };
    bench b = bench_open(backend_of(state));
    float *x = malloc(sizeof *x * N), blocks[BLOCKS], want[BLOCKS], total;
    uint64_t rng = 11;
    double exact = 0;
    for (uint32_t i = 0; i < N; i++) {
        x[i] = (float)bench_normal(&rng);
        exact += (double)x[i] * x[i];
    }
    assert_int_equal(vkm_n_sum_blocks(N), BLOCKS);
    vkm_tensor tx = bench_f32(&b, N, x), ty = bench_new(&b, VKM_F32, BLOCKS);
    vkm_tensor tz = bench_new(&b, VKM_F32, 1);
    VKM_OP(b.s, sumsq, .x = tx, .y = ty, .n = N);
    VKM_OP(b.s, sum5, .x = ty, .y = tz, .n = BLOCKS);
    bench_run(&b);
    bench_read(&b, ty, blocks);
    bench_read(&b, tz, &total);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t first = i * VKM_SUM_BLOCK,
                 n = N - first < VKM_SUM_BLOCK ? N - first : VKM_SUM_BLOCK;
        want[i] = lanes64(x + first, n, 1);
    }
    assert_memory_equal(blocks, want, sizeof want);
    float want_total = lanes64(want, BLOCKS, 0);
    assert_memory_equal(&total, &want_total, sizeof total);
    assert_true(fabs(total - exact) < 1e-6 * exact);
    bench_close(&b);
    free(x);
}

/* The parts of a group's gradients (experts), and the norm of all, from the same gradients. */
static void sums_of_parts(void **state) {
    enum { LONG = 2 * (VKM_SUM_BLOCK + 77), SHORT = 2 * 5 };
    bench b = bench_open(backend_of(state));
    vkm_trainable t[2] = {{.grad = bench_new(&b, VKM_F32, LONG)},
                          {.grad = bench_new(&b, VKM_F32, SHORT)}};
    float *x = malloc(sizeof *x * LONG), norm;
    double want[2] = {0, 0}, got[2];
    uint64_t rng = 5;
    vkm_err err = {0};
    vkm_optimizer *o = NULL;
    int finite;
    for (int i = 0; i < 2; i++) {
        uint32_t n = (uint32_t)t[i].grad.n;
        for (uint32_t j = 0; j < n; j++) {
            x[j] = (float)bench_normal(&rng) * (j < n / 2 ? 1 : 4);
            want[j < n / 2 ? 0 : 1] += (double)x[j] * (double)x[j];
        }
        bench_write(&b, t[i].grad, x);
    }
    bench_check(vkm_optimizer_new(b.dev, t, 2, NULL, &o, &err), &err);
    bench_check(vkm_optimizer_part_sums(o, b.s, 2, got, &err), &err);
    for (int i = 0; i < 2; i++) assert_true(fabs(got[i] - want[i]) < 1e-5 * want[i]);
    bench_check(vkm_optimizer_norm(o, b.s, 0, &norm, &finite, &err), &err);
    double all = sqrt(want[0] + want[1]) / (double)VKM_LOSS_SCALE;
    assert_true(finite && fabs((double)norm - all) < 1e-5 * all);
    vkm_optimizer_free(o);
    free(x);
    bench_close(&b);
}

static void clip_factor(void **state) {
    bench b = bench_open(backend_of(state));
    static const struct {
        float sums[3], max_norm, want[VKM_CLIP_WORDS];
    } rows[] = {
        {{4, 9, 3}, 1, {2, 0.5f, 1}},            /* norm 4 / 2, halved to 1 */
        {{4, 9, 3}, 2.5f, {2, 1, 1}},            /* under the limit */
        {{4, 9, 3}, 0, {2, 1, 1}},               /* off */
        {{0, 0, 0}, 1, {0, 1, 1}},               /* no gradient */
        {{1, INFINITY, 1}, 1, {INFINITY, 1, 0}}, /* to be skipped */
    };
    vkm_tensor sums = bench_new(&b, VKM_F32, 3), clip = bench_new(&b, VKM_F32, VKM_CLIP_WORDS);
    float got[VKM_CLIP_WORDS];
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        bench_write(&b, sums, rows[i].sums);
        VKM_OP(b.s, clip_coef, .sums = sums, .clip = clip, .n = 3, .max_norm = rows[i].max_norm,
               .inv_scale = 0.5f);
        bench_run(&b);
        bench_read(&b, clip, got);
        assert_memory_equal(got, rows[i].want, sizeof got);
    }
    float nan[3] = {1, NAN, 1};
    bench_write(&b, sums, nan);
    VKM_OP(b.s, clip_coef, .sums = sums, .clip = clip, .n = 3, .max_norm = 1, .inv_scale = 0.5f);
    bench_run(&b);
    bench_read(&b, clip, got);
    assert_true(got[VKM_CLIP_FINITE] == 0);
    bench_close(&b);
}

/* Some steps of AdamW with clipping, per coordinate or per tensor, against double. */
static void adamw_steps(vkm_backend_id backend, int per_tensor) {
    enum { N = 1000, STEPS = 25 };
    const double lr = 7e-3, b1 = 0.9, b2 = 0.99, eps = 1e-8, wd = 0.1, scale = 0x1p24, max_norm = 1;
    bench b = bench_open(backend);
    double p[N], m[N] = {0}, v[N] = {0}, got[N], worst = 0, moved = 0, p0[N];
    uint64_t rng = 5;
    for (uint32_t i = 0; i < N; i++) p0[i] = p[i] = (double)(float)bench_normal(&rng);
    vkm_tensor tp = bench_f64(&b, N, p), tg = bench_new(&b, VKM_F32, N);
    vkm_tensor tm = bench_new(&b, VKM_F32, N), tv = bench_new(&b, VKM_F32, per_tensor ? 1 : N);
    vkm_tensor sums = bench_new(&b, VKM_F32, 1), clip = bench_new(&b, VKM_F32, VKM_CLIP_WORDS);
    for (int t = 1; t <= STEPS; t++) {
        float g[N];
        double norm = 0, unscaled[N];
        for (uint32_t i = 0; i < N; i++) {
            g[i] = (float)(bench_normal(&rng) * scale * (t % 3 ? 0.1 : 0.001));
            unscaled[i] = g[i] / scale;
            norm += unscaled[i] * unscaled[i];
        }
        norm = sqrt(norm);
        double factor = norm > max_norm ? max_norm / norm : 1, mean = 0;
        assert_true(t % 3 ? factor < 1 : factor == 1);
        for (uint32_t i = 0; i < N; i++) mean += pow(unscaled[i] * factor, 2) / N;
        for (uint32_t i = 0; i < N; i++) {
            double gi = unscaled[i] * factor;
            m[i] = b1 * m[i] + (1 - b1) * gi;
            v[i] = b2 * v[i] + (1 - b2) * (per_tensor ? mean : gi * gi);
            double step = m[i] / (1 - pow(b1, t)) / (sqrt(v[i] / (1 - pow(b2, t))) + eps);
            p[i] = p[i] - lr * wd * p[i] - lr * step;
        }
        bench_write(&b, tg, g);
        VKM_OP(b.s, sumsq, .x = tg, .y = sums, .n = N);
        VKM_OP(b.s, clip_coef, .sums = sums, .clip = clip, .n = 1, .max_norm = (float)max_norm,
               .inv_scale = (float)(1 / scale));
        if (per_tensor)
            VKM_OP(b.s, adam_tensor_v, .sum = sums, .clip = clip, .v = tv, .n = N, .b2 = (float)b2,
                   .inv_scale = (float)(1 / scale));
        VKM_OP(b.s, adamw, .p = tp, .g = tg, .m = tm, .v = tv, .clip = clip, .n = N,
               .v_stride = !per_tensor, .lr = (float)lr, .b1 = (float)b1, .b2 = (float)b2,
               .eps = (float)eps, .wd = (float)wd, .bias1 = (float)(1 / (1 - pow(b1, t))),
               .bias2 = (float)(1 / (1 - pow(b2, t))), .inv_scale = (float)(1 / scale));
        bench_run(&b);
    }
    bench_read_f64(&b, tp, got);
    for (uint32_t i = 0; i < N; i++) {
        worst = fmax(worst, fabs(got[i] - p[i]));
        moved = fmax(moved, fabs(p[i] - p0[i]));
    }
    bench_close(&b);
    print_message("%s: largest error %.2e of a move of %.2e\n",
                  per_tensor ? "tensor" : "coordinate", worst, moved);
    assert_true(worst < 2e-5 * moved && moved > 0.05);
}

static void adamw_by_coordinate(void **state) {
    adamw_steps(backend_of(state), 0);
}
static void adamw_by_tensor(void **state) {
    adamw_steps(backend_of(state), 1);
}

/* Decay alone: no gradient, no moments. */
static void decay_alone(void **state) {
    bench b = bench_open(backend_of(state));
    static const float p[2] = {2, -4}, clip[VKM_CLIP_WORDS] = {0, 1, 1};
    static const float want[2] = {2 - 0.125f * 2, -4 + 0.125f * 4};
    float got[2];
    vkm_tensor tp = bench_f32(&b, 2, p), zero = bench_new(&b, VKM_F32, 2);
    vkm_tensor m = bench_new(&b, VKM_F32, 2), v = bench_new(&b, VKM_F32, 2);
    vkm_tensor tc = bench_f32(&b, VKM_CLIP_WORDS, clip);
    VKM_OP(b.s, adamw, .p = tp, .g = zero, .m = m, .v = v, .clip = tc, .n = 2, .v_stride = 1,
           .lr = 0.25f, .b1 = 0.9f, .b2 = 0.99f, .eps = 1e-8f, .wd = 0.5f, .bias1 = 10,
           .bias2 = 100, .inv_scale = 1);
    bench_run(&b);
    bench_read(&b, tp, got);
    bench_close(&b);
    assert_memory_equal(got, want, sizeof got);
}

static void group_sums(void **state) {
    bench b = bench_open(backend_of(state));
    static const float x[3] = {1, 2, 3}, y[3] = {10, 20, -3}, want[3] = {11, 22, 0};
    static const float zero[3] = {0, 0, 0};
    float got[3], left[3];
    vkm_tensor group = bench_f32(&b, 3, x), total = bench_f32(&b, 3, y);
    VKM_OP(b.s, accumulate, .group = group, .total = total, .n = 3);
    bench_run(&b);
    bench_read(&b, total, got);
    bench_read(&b, group, left);
    bench_close(&b);
    assert_memory_equal(got, want, sizeof got);
    assert_memory_equal(left, zero, sizeof left);
}

#define ON(f, backend)                                                                             \
    { #f ", " #backend, f, NULL, NULL, (void *)(uintptr_t)&backend }
int main(void) {
    static const vkm_backend_id cpu = VKM_CPU, vulkan = VKM_VULKAN, oracle = VKM_ORACLE;
    const struct CMUnitTest tests[] = {
        ON(long_sums, cpu),        ON(long_sums, vulkan),        ON(sums_of_parts, cpu),
        ON(sums_of_parts, vulkan), ON(clip_factor, cpu),         ON(clip_factor, vulkan),
        ON(clip_factor, oracle),   ON(adamw_by_coordinate, cpu), ON(adamw_by_coordinate, oracle),
        ON(adamw_by_tensor, cpu),  ON(adamw_by_tensor, oracle),  ON(decay_alone, cpu),
        ON(decay_alone, vulkan),   ON(group_sums, cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
