/* The software functions against libm in double: error bounds, special values, correct rounding,
 * and the same bits on a Vulkan device. VKM_LONG=1 in the environment sweeps 27 times as densely
 * and divides 10^8 times. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/gauss.h"
#include "ops/kernels.h"
#include "ops/softmath.h"

static int long_mode(void) {
    const char *s = getenv("VKM_LONG");
    return s && *s == '1';
}

/* ---- error bounds ------------------------------------------------------------------------------
 */

static double ref_rsqrt(double x) {
    return 1 / sqrt(x);
}
static double ref_sigmoid(double x) {
    return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
}
static double ref_silu(double x) {
    return x * ref_sigmoid(x);
}
static double ref_softplus(double x) {
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

/* Loops over blocks, so that the functions are inlined and vectorised. */
#define BLOCK 1024
#define EACH(f)                                                                                    \
    static void each_##f(const float *x, float *y) {                                               \
        for (int i = 0; i < BLOCK; i++) y[i] = f(x[i]);                                            \
    }
EACH(vkm_exp)
EACH(vkm_exp_weight)
EACH(vkm_log)
EACH(vkm_sqrt)
EACH(vkm_rsqrt)
EACH(vkm_sin)
EACH(vkm_cos)
EACH(vkm_sigmoid)
EACH(vkm_silu)
EACH(vkm_softplus)

typedef struct function {
    const char *name;
    void (*each)(const float *x, float *y);
    double (*ref)(double x);
    double ulp;  /* bound */
    double zero; /* results below this may be +0 */
} function;

/* Measured over every 37th float (VKM_LONG=1): exp 0.982, log 0.787, rsqrt 1.237, sin 2.230,
 * cos 2.266, sigmoid 2.310, silu 3.049, softplus 1.956. */
static const function functions[] = {
    {"exp", each_vkm_exp, exp, 1.0, 0x1p-126},
    {"log", each_vkm_log, log, 0.84, 0x1p-126},
    {"sqrt", each_vkm_sqrt, sqrt, 0.5, 0x1p-126},
    {"rsqrt", each_vkm_rsqrt, ref_rsqrt, 1.25, 0x1p-126},
    {"sin", each_vkm_sin, sin, 2.3, 0x1p-126},
    {"cos", each_vkm_cos, cos, 2.3, 0x1p-126},
    {"sigmoid", each_vkm_sigmoid, ref_sigmoid, 2.4, 0x1p-126},
    {"silu", each_vkm_silu, ref_silu, 3.2, 0x1p-100},
    {"softplus", each_vkm_softplus, ref_softplus, 2.1, 0x1p-126},
};

/* |y - r| in units of the last place of a normal float near r. */
static double ulps(float y, double r) {
    int e;
    (void)frexp(r, &e);
    return fabs((double)y - r) * ldexp(1, 24 - (e < -125 ? -125 : e));
}

/* Error of y = f(x); special values are judged here and cost nothing. */
static double judge(const function *f, float x, float y) {
    double r = f->ref((vkm_bits(x) & 0x7f800000u) == 0 ? 0.0 : (double)x);
    if (isinf(x) && f->ref == ref_silu && x < 0) r = 0; /* the limit */
    if (isnan(r)) {
        if (!isnan(y)) fail_msg("%s(%a) = %a, NaN is right", f->name, (double)x, (double)y);
        return 0;
    }
    if (vkm_bits(vkm_canon(y)) != vkm_bits(y))
        fail_msg("%s(%a) = %a is -0 or denormal", f->name, (double)x, (double)y);
    if (fabs(r) > 0x1.ffffffp127) {
        if (!isinf(y) || (y > 0) != (r > 0))
            fail_msg("%s(%a) = %a, not %g", f->name, (double)x, (double)y, r);
        return 0;
    }
    if (y == 0 && fabs(r) <= f->zero * (1 + 0x1p-20)) return 0;
    return ulps(y, r);
}

static void test_error_bounds(void **state) {
    (void)state;
    uint64_t stride = long_mode() ? 37 : 1009; /* primes */
    static float x[BLOCK], y[BLOCK];
    for (size_t k = 0; k < VKM_COUNTOF(functions); k++) {
        const function *f = &functions[k];
        double worst = 0;
        float at = 0;
        for (uint64_t u = 0; u < 1ull << 32; u += stride * BLOCK) {
            for (uint32_t i = 0; i < BLOCK; i++) x[i] = vkm_from_bits((uint)(u + i * stride));
            f->each(x, y);
            for (uint32_t i = 0; i < BLOCK; i++) {
                double e = judge(f, x[i], y[i]);
                if (e > worst) {
                    worst = e;
                    at = x[i];
                }
            }
        }
        print_message("%-8s %.4f ulp at %a\n", f->name, worst, (double)at);
        if (!(worst <= f->ulp)) fail_msg("%s: %.4f ulp, the bound is %g", f->name, worst, f->ulp);
    }
}

static void test_special_values(void **state) {
    (void)state;
    static const uint bits[] = {0,          0x80000000, 1,          0x80000001, 0x007fffff,
                                0x807fffff, 0x00800000, 0x80800000, 0x7f7fffff, 0xff7fffff,
                                0x7f800000, 0xff800000, 0x7f800001, 0xffffffff, 0x3f800000,
                                0xbf800000, 0x42b17218, 0x42b17217, 0xc2aeac50, 0xc2aeac4f,
                                0x33000000, 0xb3000000, 0x39800000, 0x397fffff};
    static float x[BLOCK], y[BLOCK];
    for (uint32_t i = 0; i < BLOCK; i++) x[i] = vkm_from_bits(bits[i % VKM_COUNTOF(bits)]);
    for (size_t k = 0; k < VKM_COUNTOF(functions); k++) {
        functions[k].each(x, y);
        for (uint32_t i = 0; i < VKM_COUNTOF(bits); i++)
            assert_true(judge(&functions[k], x[i], y[i]) <= functions[k].ulp);
    }
    assert_int_equal(vkm_bits(vkm_exp(0)), 0x3f800000u);
    assert_int_equal(vkm_bits(vkm_log(1)), 0);
    assert_int_equal(vkm_bits(vkm_sigmoid(0)), 0x3f000000u);
}

/* ---- correct rounding --------------------------------------------------------------------------
 */

/* What vkm_div must give: denormal arguments and results are zero. */
static uint want_div(uint a, uint b) {
    float x = vkm_from_bits((a & 0x7f800000u) ? a : a & 0x80000000u);
    float y = vkm_from_bits((b & 0x7f800000u) ? b : b & 0x80000000u);
    float q = x / y;
    return isnan(q) ? 0x7fc00000u : vkm_bits(vkm_canon(q));
}

static uint64_t rng = 88172645463325252ull;
static uint random_bits(void) { /* xorshift64* */
    rng ^= rng >> 12;
    rng ^= rng << 25;
    rng ^= rng >> 27;
    return (uint)((rng * 2685821657736338717ull) >> 32);
}

/* x with x / y just beside the middle of two floats, for a divisor significand m. */
static uint hard_dividend(uint m) {
    uint64_t q = 0x1000001u | ((uint64_t)random_bits() & 0xfffffeu); /* 25 bits, odd: a tie */
    uint64_t p = q * m, x = p >> 24;
    while (x >= 0x1000000u) x >>= 1;
    x += random_bits() % 3;
    return (uint)(x - 1) & 0x7fffffu;
}

static int is_normal(float x) {
    return vkm_magnitude(x) && vkm_magnitude(x) < VKM_INF_BITS;
}

static uint by_parts(float x, float y) {
    return vkm_div_by_parts(vkm_magnitude(x), vkm_magnitude(y),
                            (vkm_bits(x) ^ vkm_bits(y)) & 0x80000000u);
}

static void test_division_rounds_correctly(void **state) {
    (void)state;
    static float a[BLOCK], b[BLOCK], q[BLOCK];
    uint64_t n = long_mode() ? 100000000 : 1000000;
    static const uint edges[] = {0, 1, 0x7fffff, 0x7ffffe, 0x400000, 0x3fffff};
    for (uint64_t done = 0; done < n; done += BLOCK) {
        for (uint32_t i = 0; i < BLOCK; i++) {
            uint x = random_bits(), y = random_bits();
            if (i % 4 == 1) x = (x & 0xff800000u) | edges[x % 6];
            if (i % 4 == 2) y = (y & 0xff800000u) | edges[y % 6];
            if (i % 4 == 3)
                x = 0x3f800000u | hard_dividend((y = 0x3f800000u | (y >> 9)) & 0xffffffu);
            if (i % 8 == 5) { /* quotients about 2^-126 */
                x = (x & 0x807fffffu) | (x % 100 + 1) << 23;
                y = (y & 0x807fffffu) | ((x >> 23 & 0xffu) + 126) << 23;
            }
            a[i] = vkm_from_bits(x);
            b[i] = vkm_from_bits(y);
        }
        for (uint32_t i = 0; i < BLOCK; i++) q[i] = vkm_div(a[i], b[i]);
        for (uint32_t i = 0; i < BLOCK; i++)
            if (vkm_bits(q[i]) != want_div(vkm_bits(a[i]), vkm_bits(b[i])))
                fail_msg("%a / %a = %a", (double)a[i], (double)b[i], (double)q[i]);
        for (uint32_t i = 0; i < BLOCK; i++) /* what shaders do */
            if (is_normal(a[i]) && is_normal(b[i]) && by_parts(a[i], b[i]) != vkm_bits(q[i]))
                fail_msg("by parts %a / %a", (double)a[i], (double)b[i]);
    }
}

/* All divisors: the seed is within 1.5 * 2^-24, its product with the dividend rounds once more, so
 * the quotient's significand starts at most three units from the right one: the corrections reach.
 */
static void test_division_seed(void **state) {
    (void)state;
    double worst = 0;
    for (uint f = 0; f < 0x800000u; f++) {
        float b = vkm_from_bits(0x3f800000u | f);
        double e = fabs((double)vkm_reciprocal_seed(b) * (double)b - 1);
        worst = e > worst ? e : worst;
    }
    print_message("reciprocal seed: %.4f * 2^-24\n", worst * 0x1p24);
    assert_true(worst <= 1.5 * 0x1p-24);
}

/* Every significand with even and odd exponents: with the exponent's integer arithmetic, all
 * floats. */
static void test_square_root_rounds_correctly(void **state) {
    (void)state;
    static float x[BLOCK], y[BLOCK];
    static const uint base[] = {0x3f800000u, 0x00800000u, 0x7e800000u};
    for (size_t k = 0; k < VKM_COUNTOF(base); k++) {
        for (uint f = 0; f < 0x1000000u; f += BLOCK * (k ? 17 : 1)) {
            for (uint i = 0; i < BLOCK; i++) x[i] = vkm_from_bits(base[k] + f + i);
            each_vkm_sqrt(x, y);
            for (uint i = 0; i < BLOCK; i++)
                if (vkm_bits(y[i]) != vkm_bits(sqrtf(x[i])))
                    fail_msg("sqrt(%a) = %a", (double)x[i], (double)y[i]);
        }
    }
}

/* Every float from -0 down to the NaNs with a sign, tiny ones of both signs, and NaNs without. */
static void test_weights_are_exponentials_rounded_to_bf16(void **state) {
    (void)state;
    static float x[BLOCK], e[BLOCK], y[BLOCK];
    static const uint ranges[][2] = {
        {0x80000000u, 0xffffffffu}, {0u, 0x33000000u}, {0x7f800001u, 0x7fffffffu}};
    const uint step = long_mode() ? 1 : 37;
    for (size_t k = 0; k < VKM_COUNTOF(ranges); k++)
        for (uint64_t at = ranges[k][0]; at + BLOCK * step - 1 <= ranges[k][1];
             at += BLOCK * step) {
            for (uint i = 0; i < BLOCK; i++) x[i] = vkm_from_bits((uint)at + i * step);
            each_vkm_exp(x, e);
            each_vkm_exp_weight(x, y);
            for (uint i = 0; i < BLOCK; i++)
                if (vkm_bits(y[i]) != vkm_bf16z(e[i]) << 16)
                    fail_msg("the weight of %a is %a", (double)x[i], (double)y[i]);
        }
}

/* ---- Philox ------------------------------------------------------------------------------------
 */

/* Known answers of the Random123 distribution. */
static void test_philox_known_answers(void **state) {
    (void)state;
    static const struct {
        vkm_u4 counter;
        uint key0, key1;
        vkm_u4 want;
    } rows[] = {
        {{0, 0, 0, 0}, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, ~0u, ~0u, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         0xa4093822,
         0x299f31d0,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_u4 r = vkm_philox(rows[i].counter, rows[i].key0, rows[i].key1);
        assert_memory_equal(&r, &rows[i].want, sizeof r);
    }
}

static void test_unit_interval(void **state) {
    (void)state;
    assert_true(vkm_unit(0) == 0);
    assert_true(vkm_unit(0xffffffffu) == 1.0f - 0x1p-24f);
    assert_true(vkm_unit(0x00000100u) == 0x1p-24f);
}

static void test_gauss(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    float *x = malloc(N * sizeof *x), part[7];
    assert_non_null(x);
    vkm_gauss(x, N, 0, 42, VKM_RNG_TEST, 3, 2.0f);
    double m1 = 0, m2 = 0, m4 = 0, lag = 0;
    for (int i = 0; i < N; i++) {
        double v = (double)x[i] / 2;
        m1 += v, m2 += v * v, m4 += v * v * v * v;
        lag += i ? v * (double)x[i - 1] / 2 : 0;
    }
    /* five standard errors of 2^20 draws: 1 / 1024, sqrt 2 / 1024, sqrt 96 / 1024 */
    assert_true(fabs(m1 / N) < 5.0 / 1024);
    assert_true(fabs(m2 / N - 1) < 5 * 1.4143 / 1024);
    assert_true(fabs(m4 / N - 3) < 5 * 9.8 / 1024);
    assert_true(fabs(lag / N) < 5.0 / 1024);
    vkm_gauss(part, 7, 1001, 42, VKM_RNG_TEST, 3, 2.0f);
    assert_memory_equal(part, x + 1001, sizeof part);
    vkm_gauss(part, 7, 1001, 43, VKM_RNG_TEST, 3, 2.0f);
    assert_memory_not_equal(part, x + 1001, sizeof part);
    free(x);
}

/* ---- device ------------------------------------------------------------------------------------
 */

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

/* out[function] of n pairs on a device. */
static void probe(vkm_dev *dev, const float *x, const float *y, float *out, uint32_t n,
                  uint32_t n_functions) {
    vkm_err err = {0};
    vkm_tensor tx, ty, tz;
    vkm_mem *mem = NULL;
    vkm_stream *s = NULL;
    vkm_plan *p = vkm_plan_new(dev);
    vkm_plan_add(p, &tx, VKM_F32, n, "x");
    vkm_plan_add(p, &ty, VKM_F32, n, "y");
    vkm_plan_add(p, &tz, VKM_F32, (uint64_t)n * n_functions, "z");
    check(vkm_plan_commit(p, &mem, &err), &err);
    check(vkm_stream_new(dev, &s, &err), &err);
    check(vkm_write(dev, tx, x, &err), &err);
    check(vkm_write(dev, ty, y, &err), &err);
    for (uint32_t f = 0; f < n_functions; f++)
        VKM_OP(s, softmath_probe, .x = tx, .y = ty, .z = vkm_view(tz, (uint64_t)f * n, n), .n = n,
               .function = f);
    check(vkm_stream_flush(s, &err), &err);
    check(vkm_read(dev, tz, out, &err), &err);
    vkm_stream_free(s);
    vkm_mem_free(mem);
}

static void test_device_gives_the_same_bits(void **state) {
    (void)state;
    enum { N = 1 << 16, FUNCTIONS = 11 };
    vkm_err err = {0};
    vkm_dev *gpu = NULL, *cpu = NULL;
    vkm_dev_options o = {.backend = VKM_VULKAN, .skip_probes = 1};
    if (vkm_dev_open(&o, &gpu, &err)) {
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    o.backend = VKM_CPU;
    check(vkm_dev_open(&o, &cpu, &err), &err);
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    float *a = malloc(sizeof(float) * N * FUNCTIONS), *b = malloc(sizeof(float) * N * FUNCTIONS);
    assert_true(x && y && a && b);
    for (uint32_t i = 0; i < N; i++) {
        x[i] = vkm_from_bits(i % 2 ? i * 65537u : random_bits()); /* half of them over all floats */
        y[i] = vkm_from_bits(random_bits());
    }
    probe(gpu, x, y, a, N, FUNCTIONS);
    probe(cpu, x, y, b, N, FUNCTIONS);
    for (uint32_t i = 0; i < N * FUNCTIONS; i++)
        if (vkm_bits(a[i]) != vkm_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
            fail_msg("function %u of %a, %a: %a on %s, %a on the cpu", i / N, (double)x[i % N],
                     (double)y[i % N], (double)a[i], vkm_dev_name(gpu), (double)b[i]);
    free(x);
    free(y);
    free(a);
    free(b);
    vkm_dev_close(gpu);
    vkm_dev_close(cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_bounds),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_division_rounds_correctly),
        cmocka_unit_test(test_division_seed),
        cmocka_unit_test(test_square_root_rounds_correctly),
        cmocka_unit_test(test_weights_are_exponentials_rounded_to_bf16),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_unit_interval),
        cmocka_unit_test(test_gauss),
        cmocka_unit_test(test_device_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
