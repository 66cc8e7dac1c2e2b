/* Statistics against values worked out elsewhere, brute force, and known limits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rl/stats.h"

static void assert_near(double got, double want, double within) {
    if (!(fabs(got - want) <= within)) fail_msg("%.9g, not %.9g", got, want);
}

static double uniform(uint64_t *s) {
    *s = *s * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(*s >> 11) * 0x1p-53;
}

static void wilson(void **state) {
    (void)state;
    double low, high;
    vkm_wilson(8, 10, &low, &high);
    assert_near(low, 0.490162, 1e-6);
    assert_near(high, 0.943318, 1e-6);
    vkm_wilson(0, 10, &low, &high);
    assert_true(low == 0);
    assert_near(high, 0.277533, 1e-6);
    vkm_wilson(10, 10, &low, &high);
    assert_near(low, 1 - 0.277533, 1e-6);
    assert_true(high == 1);
    vkm_wilson(0, 0, &low, &high);
    assert_true(isnan(low) && isnan(high));
}

static void auroc(void **state) {
    (void)state;
    static const double scores[] = {0.1, 0.4, 0.35, 0.8};
    static const unsigned char labels[] = {0, 0, 1, 1}, all[] = {1, 1, 1, 1}, none[4] = {0};
    assert_near(vkm_auroc(scores, labels, 4), 0.75, 0);
    assert_true(isnan(vkm_auroc(scores, all, 4)) && isnan(vkm_auroc(scores, none, 4)));
    assert_true(isnan(vkm_auroc(scores, labels, 0)));
    static const double with_nan[] = {0.1, NAN, 0.3, 0.4};
    assert_true(isnan(vkm_auroc(with_nan, labels, 4)));
    enum { N = 201 }; /* many ties, by brute force */
    double x[N], wins = 0, pairs = 0;
    unsigned char y[N];
    uint64_t rng = 1;
    for (int i = 0; i < N; i++) {
        x[i] = floor(8 * uniform(&rng));
        y[i] = uniform(&rng) < 0.3;
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (y[i] && !y[j]) {
                pairs++;
                wins += x[i] > x[j] ? 1 : x[i] == x[j] ? 0.5 : 0;
            }
    assert_near(vkm_auroc(x, y, N), wins / pairs, 1e-12);
}

static void fbeta(void **state) {
    (void)state;
    static const double scores[] = {0.9, 0.8, 0.7, 0.2, 0.1, 0.5};
    static const unsigned char labels[] = {1, 0, 1, 1, 0, 0}, all[] = {1, 1, 1, 1, 1, 1};
    /* three detected, two of them right, of three: P = R = 2/3 */
    assert_near(vkm_fbeta(scores, labels, 6, 0.5, 0.5), 2.0 / 3, 1e-15);
    /* one detected, right: P = 1, R = 1/3 */
    assert_near(vkm_fbeta(scores, labels, 6, 0.85, 0.5), 1.25 / 3 / (0.25 + 1.0 / 3), 1e-15);
    assert_near(vkm_fbeta(scores, labels, 6, 0.85, 1), 0.5, 1e-15);
    assert_true(vkm_fbeta(scores, labels, 6, 0.95, 0.5) == 0);
    assert_true(isnan(vkm_fbeta(scores, all, 6, 0.5, 0.5)));
}

static void quantiles(void **state) {
    (void)state;
    static const double x[] = {4, 1, 3, 2}, one[] = {7}, with_nan[] = {1, NAN};
    assert_near(vkm_quantile(x, 4, 0.1), 1.3, 1e-15); /* numpy.percentile */
    assert_near(vkm_quantile(x, 4, 0.5), 2.5, 1e-15);
    assert_near(vkm_quantile(x, 4, 0.9), 3.7, 1e-15);
    assert_true(vkm_quantile(x, 4, 0) == 1 && vkm_quantile(x, 4, 1) == 4);
    assert_true(vkm_quantile(one, 1, 0.9) == 7);
    assert_true(isnan(vkm_quantile(x, 0, 0.5)) && isnan(vkm_quantile(with_nan, 2, 0.5)));
    assert_true(isnan(vkm_quantile(x, 4, 1.5)));
}

static void paired_bootstrap(void **state) {
    (void)state;
    enum { N = 400 };
    double a[N], b[N], mean = 0, square = 0;
    uint64_t rng = 5;
    for (int i = 0; i < N; i++) { /* what a pair shares must not widen the interval */
        double common = 100 * uniform(&rng);
        a[i] = common + uniform(&rng) + 0.25;
        b[i] = common + uniform(&rng);
        mean += (a[i] - b[i]) / N;
        square += (a[i] - b[i]) * (a[i] - b[i]) / N;
    }
    double half = 1.96 * sqrt((square - mean * mean) / N);
    vkm_paired r = vkm_paired_bootstrap(a, b, N, 4000, 9), again;
    assert_near(r.mean, mean, 1e-12);
    assert_near(r.low, mean - half, 0.1 * half);
    assert_near(r.high, mean + half, 0.1 * half);
    again = vkm_paired_bootstrap(a, b, N, 4000, 9);
    assert_memory_equal(&r, &again, sizeof r);
    again = vkm_paired_bootstrap(a, b, N, 4000, 10);
    assert_true(again.low != r.low);
    for (int i = 0; i < N; i++) b[i] = a[i] - 2;
    r = vkm_paired_bootstrap(a, b, N, 100, 9);
    assert_near(r.low, 2, 1e-12);
    assert_near(r.high, 2, 1e-12);
    r = vkm_paired_bootstrap(a, b, 1, 100, 9);
    assert_true(fabs(r.mean - 2) < 1e-12 && isnan(r.low) && isnan(r.high));
    r = vkm_paired_bootstrap(a, b, 0, 100, 9);
    assert_true(isnan(r.mean));
}

/* The interval must hold the truth about 95 times of 100. */
static void bootstrap_coverage(void **state) {
    (void)state;
    enum { N = 60, TRIALS = 400 };
    int held = 0;
    uint64_t rng = 77;
    for (int t = 0; t < TRIALS; t++) {
        double a[N], b[N];
        for (int i = 0; i < N; i++) { /* hack rates 0.5 and 0.2 of the same prompts */
            a[i] = uniform(&rng) < 0.5;
            b[i] = uniform(&rng) < 0.2;
        }
        vkm_paired r = vkm_paired_bootstrap(a, b, N, 400, (uint64_t)t);
        held += r.low <= 0.3 && 0.3 <= r.high;
    }
    print_message("95%% interval held the truth %d times of %d\n", held, TRIALS);
    assert_true(held > 0.90 * TRIALS && held < 0.985 * TRIALS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson),
        cmocka_unit_test(auroc),
        cmocka_unit_test(fbeta),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(paired_bootstrap),
        cmocka_unit_test(bootstrap_coverage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
