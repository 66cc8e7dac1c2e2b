/* Rotary tables by double arithmetic and series of our own: glibc picks its code by CPU. There are
 * no kernels here, so the oracle's compile of this folder leaves the file out. */
#ifndef VKM_TWIN64
#include "ops/rope_table.h"

#include <string.h>

#include "base/status.h"

static const double ln2_hi = 0x1.62e42feep-1, ln2_lo = 0x1.a39ef35793c76p-33;

/* 2^n for |n| < 1000. */
static double power_of_two(int n) {
    uint64_t u = (uint64_t)(n + 1023) << 52;
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ln x, x >= 1: x = 2^n m, ln m = 2 artanh((m - 1) / (m + 1)). */
static double natural_log(double x) {
    int n = 0;
    while (x > 1.4142135623730951) {
        x *= 0.5;
        n++;
    }
    double s = (x - 1) / (x + 1), z = s * s, sum = 0; /* |s| < 0.172 */
    for (int k = 25; k > 0; k -= 2) sum = sum * z + 1.0 / k;
    return n * ln2_hi + (n * ln2_lo + 2 * s * sum);
}

/* e^y, 0 <= y < 600. */
static double exponential(double y) {
    int n = (int)(y * 1.4426950408889634 + 0.5);
    double r = y - n * ln2_hi - n * ln2_lo, sum = 1; /* |r| < 0.35 */
    for (int k = 16; k > 0; k--) sum = 1 + sum * r / k;
    return sum * power_of_two(n);
}

/* sin and cos of a >= 0, a < 2^25: pi / 2 in three parts, the first two of which times n are exact.
 */
static void sine_cosine(double a, double *sine, double *cosine) {
    uint32_t n = (uint32_t)(a * 0.6366197723675814 + 0.5);
    double r = a - n * 0x1.921fb54p+0;
    r -= n * 0x1.10b461p-30;
    r -= n * 0x1.a62633145c06ep-58;
    double z = r * r, s = 0, c = 0; /* |r| <= pi / 4 */
    for (int k = 18; k > 0; k -= 2) {
        s = (1 + s) * -z / (k * (k + 1));
        c = (1 + c) * -z / (k * (k - 1));
    }
    s = r + r * s;
    c = 1 + c;
    *sine = n & 1 ? c : s;
    *cosine = n & 1 ? s : c;
    if (n & 2) *sine = -*sine;
    if ((n + 1) & 2) *cosine = -*cosine;
}

/* Each operation rounded to fp32, as transformers' tensors are. */
static float stretched(float inv_freq, const vkm_rope *r) {
    float wave = 6.283185307179586f / inv_freq, old = (float)r->original_max_pos;
    float low = (float)r->low_freq_factor, high = (float)r->high_freq_factor;
    float factor = (float)r->factor;
    if (wave < (float)(r->original_max_pos / r->high_freq_factor)) return inv_freq;
    if (wave > (float)(r->original_max_pos / r->low_freq_factor)) return inv_freq / factor;
    float smooth = (old / wave - low) / (high - low);
    return (1 - smooth) * inv_freq / factor + smooth * inv_freq;
}

void vkm_rope_table(float *cosines, float *sines, uint32_t max_pos, uint32_t head_dim,
                    const vkm_rope *rope) {
    VKM_BUG_ON(!(rope->theta >= 1) || head_dim & 1 || max_pos > 1u << 24,
               "rope: %u positions of %u, theta %g", max_pos, head_dim, rope->theta);
    uint32_t half = head_dim / 2;
    double log_theta = natural_log(rope->theta);
    for (uint32_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)head_dim;
        float power = (float)exponential((double)exponent * log_theta);
        float inv_freq = 1.0f / power;
        if (rope->factor > 0) inv_freq = stretched(inv_freq, rope);
        for (uint32_t p = 0; p < max_pos; p++) {
            float angle = (float)p * inv_freq;
            double s, c;
            sine_cosine((double)angle, &s, &c);
            sines[(uint64_t)p * half + i] = (float)s;
            cosines[(uint64_t)p * half + i] = (float)c;
        }
    }
}
#endif
