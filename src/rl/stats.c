/* Intervals, rank statistics and the paired bootstrap. */
#include "rl/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "base/status.h"

void vkm_wilson(uint32_t k, uint32_t n, double *low, double *high) {
    const double z = 1.959963984540054; /* the normal's 97.5% point */
    *low = *high = NAN;
    if (n == 0 || k > n) return;
    double p = (double)k / n, z2 = z * z / n;
    double centre = (p + z2 / 2) / (1 + z2);
    double half = z / (1 + z2) * sqrt(p * (1 - p) / n + z2 / (4.0 * n));
    *low = k == 0 ? 0 : centre - half;
    *high = k == n ? 1 : centre + half;
}

static int has_nan(const double *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i])) return 1;
    return 0;
}

static int ascending(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* A sorted copy, for the caller to free. */
static double *sorted(const double *x, size_t n) {
    double *y = malloc(n * sizeof *y);
    VKM_BUG_ON(!y, "no memory for %zu values", n);
    memcpy(y, x, n * sizeof *y);
    qsort(y, n, sizeof *y, ascending);
    return y;
}

/* How many of the sorted values are below x, or at most x. */
static size_t count_below(const double *y, size_t n, double x, int or_equal) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (y[mid] < x || (or_equal && y[mid] == x))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

double vkm_auroc(const double *scores, const unsigned char *labels, size_t n) {
    size_t n_negative = 0;
    for (size_t i = 0; i < n; i++) n_negative += !labels[i];
    if (n_negative == 0 || n_negative == n || has_nan(scores, n)) return NAN;
    double *all = malloc(n_negative * sizeof *all), wins = 0;
    VKM_BUG_ON(!all, "no memory for %zu scores", n);
    for (size_t i = 0, j = 0; i < n; i++)
        if (!labels[i]) all[j++] = scores[i];
    qsort(all, n_negative, sizeof *all, ascending);
    for (size_t i = 0; i < n; i++)
        if (labels[i])
            wins += 0.5 * (double)(count_below(all, n_negative, scores[i], 0) +
                                   count_below(all, n_negative, scores[i], 1));
    free(all);
    return wins / ((double)n_negative * (double)(n - n_negative));
}

double vkm_fbeta(const double *scores, const unsigned char *labels, size_t n, double threshold,
                 double beta) {
    double hits = 0, detected = 0, positives = 0, b2 = beta * beta;
    for (size_t i = 0; i < n; i++) {
        int found = scores[i] > threshold;
        positives += labels[i] != 0;
        detected += found;
        hits += found && labels[i];
    }
    if (positives == 0 || positives == (double)n || has_nan(scores, n)) return NAN;
    return (1 + b2) * hits / (b2 * positives + detected);
}

static double quantile_of_sorted(const double *y, size_t n, double q) {
    double at = q * (double)(n - 1), below = floor(at);
    size_t i = (size_t)below, j = i + 1 < n ? i + 1 : i;
    return y[i] == y[j] ? y[i] : y[i] + (at - below) * (y[j] - y[i]);
}

double vkm_quantile(const double *x, size_t n, double q) {
    if (n == 0 || !(q >= 0 && q <= 1) || has_nan(x, n)) return NAN;
    double *y = sorted(x, n), value = quantile_of_sorted(y, n, q);
    free(y);
    return value;
}

vkm_paired vkm_paired_bootstrap(const double *a, const double *b, size_t n, uint32_t resamples,
                                uint64_t seed) {
    vkm_paired r = {NAN, NAN, NAN};
    if (n == 0 || has_nan(a, n) || has_nan(b, n)) return r;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] - b[i];
    r.mean = sum / (double)n;
    if (n < 2 || n > UINT32_MAX || resamples < 2) return r;
    double *means = malloc(resamples * sizeof *means);
    VKM_BUG_ON(!means, "no memory for %u resamples", resamples);
    for (uint32_t k = 0; k < resamples; k++) {
        sum = 0;
        for (size_t i = 0; i < n; i += 4) {
            vkm_u4 u = vkm_random4((uint32_t)seed, (uint32_t)(seed >> 32), VKM_RNG_BOOTSTRAP, 0, k,
                                   (uint32_t)i, 0);
            uint32_t word[4] = {u.x, u.y, u.z, u.w};
            for (size_t j = 0; j < 4 && i + j < n; j++) {
                size_t pick = (size_t)((uint64_t)word[j] * n >> 32);
                sum += a[pick] - b[pick];
            }
        }
        means[k] = sum / (double)n;
    }
    qsort(means, resamples, sizeof *means, ascending);
    r.low = quantile_of_sorted(means, resamples, 0.025);
    r.high = quantile_of_sorted(means, resamples, 0.975);
    free(means);
    return r;
}

/* The 97.5% point of Student's t with df degrees of freedom: a table up to 30, then the expansion
 * in 1/df around the normal's point (Abramowitz and Stegun 26.7.5; 1e-4 off at 31). */
static double t975(size_t df) {
    static const double table[] = {
        12.7062047364, 4.3026527297, 3.1824463053, 2.7764451052, 2.5705818356, 2.4469118511,
        2.3646242516,  2.3060041352, 2.2621571628, 2.2281388520, 2.2009851601, 2.1788128297,
        2.1603686565,  2.1447866879, 2.1314495456, 2.1199052992, 2.1098155778, 2.1009220402,
        2.0930240544,  2.0859634473, 2.0796138447, 2.0738730679, 2.0686576104, 2.0638985616,
        2.0595385528,  2.0555294386, 2.0518305165, 2.0484071418, 2.0452296421, 2.0422724563};
    const double z = 1.959963984540054, z3 = z * z * z, z5 = z3 * z * z, n = (double)df;
    if (df <= VKM_COUNTOF(table)) return table[df - 1];
    return z + (z3 + z) / (4 * n) + (5 * z5 + 16 * z3 + 3 * z) / (96 * n * n);
}

vkm_mean vkm_mean_t(const double *x, size_t n) {
    vkm_mean out = {NAN, NAN, 0};
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) sum += x[i], out.n++;
    if (out.n) out.mean = sum / (double)out.n;
    if (out.n < 2) return out;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) squares += (x[i] - out.mean) * (x[i] - out.mean);
    double m = (double)out.n;
    out.half = t975(out.n - 1) * sqrt(squares / (m - 1) / m);
    return out;
}
