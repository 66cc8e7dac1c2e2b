/* Elementary functions of the exact tier, one source for C and GLSL: the same bits on every device.
 *
 * Only float mul and add (never fused: GLSL locals are `precise`, C is built with
 * -ffp-contract=off) and integer operations. NaN, Inf and zero are told by their bits; a denormal
 * argument counts as zero, a result below 2^-126 is +0 and zero is always +0. No intermediate
 * that matters is denormal, so it is the same whatever a driver does with those. Special values
 * select at the end instead of branching, so C loops over these functions vectorise.
 *
 *   vkm_div, vkm_sqrt   correctly rounded (to nearest even)
 *   vkm_exp   0.99 ulp      vkm_log      0.79      vkm_rsqrt     1.24
 *   vkm_sin   2.3, any      vkm_cos      2.3       vkm_sigmoid   2.4
 *             finite angle  vkm_silu     3.1       vkm_softplus  2.0
 * tests/test_softmath.c measures and asserts the bounds. Coefficients are minimax fits (linear
 * programming on Chebyshev nodes, rounded to fp32 from the lowest order on, refitted each time). */
#ifndef VKM_SOFTMATH_H
#define VKM_SOFTMATH_H

#ifdef VKM_GLSL
#include "numerics.h"
#include "philox.h"
#define VKM_INT(x)                  int(x)
#define VKM_UINT(x)                 uint(x)
#define VKM_FLOAT(i)                float(i) /* of an int below 2^24: exact */
#define VKM_SELECT(condition, x, y) ((condition) ? (x) : (y))
#else
#include "base/philox.h"
#include "ops/numerics.h"
#define VKM_INT(x)                  ((int)(x))
#define VKM_UINT(x)                 ((uint)(x))
#define VKM_FLOAT(i)                ((float)(i))
/* By masks: gcc turns a conditional expression into a branch and then vectorises no loop over it.
 */
static inline uint vkm_select(int condition, uint x, uint y) {
    uint mask = 0u - (uint)condition;
    return (x & mask) | (y & ~mask);
}
#define VKM_SELECT(condition, x, y) vkm_select((condition), (x), (y))
#endif

#define VKM_ABS_BITS 0x7fffffffu
#define VKM_INF_BITS 0x7f800000u
#define VKM_NAN_BITS 0x7fc00000u

/* |x| as bits, denormals as 0. */
VKM_FN uint vkm_magnitude(float x) {
    uint a = vkm_bits(x) & VKM_ABS_BITS;
    return VKM_SELECT(a < 0x00800000u, 0u, a);
}

/* A float from sign, exponent field (any int) and 24-bit significand in [2^23, 2^24]. */
VKM_FN float vkm_compose(uint sign, int field, uint significand) {
    uint w = (VKM_UINT(field) << 23) + (significand - 0x800000u);
    w = VKM_SELECT(field >= 255, VKM_INF_BITS, w);
    w = VKM_SELECT(field <= 0, 0u, (w | sign));
    return vkm_from_bits(w);
}

/* Cody-Waite: y = n ln 2 + r, |r| <= ln 2 / 2; n times the high part of ln 2 is exact. */
VKM_FN int vkm_exp_n(float y) {
    VKM_PRECISE float t = y * 1.44269504f;
    t = t + 12582912.0f; /* 1.5 * 2^23: the integer nearest to t is in the low bits */
    return VKM_INT(vkm_bits(t) - 0x4b400000u);
}

/* The bits of exp(r). */
VKM_FN uint vkm_exp_r(float y, int n) {
    VKM_PRECISE float nf = VKM_FLOAT(n);
    VKM_PRECISE float r = nf * 0.693145752f;
    r = y - r;
    VKM_PRECISE float t = nf * 1.42860682e-06f;
    r = r - t;
    VKM_PRECISE float q = r * 0.0013818742f;
    q = q + 0.00836872123f;
    q = q * r;
    q = q + 0.0416682921f;
    q = q * r;
    q = q + 0.166665211f;
    q = q * r;
    q = q + 0.49999994f;
    t = r * r;
    q = q * t;
    q = q + r;
    q = q + 1.0f;
    return vkm_bits(q);
}

/* Beyond +-104 the result is known: there x counts as +-104. For a tiny x what may be denormal is
 * lost in the sum with 1. */
VKM_FN float vkm_exp(float x) {
    uint u = vkm_bits(x), a = u & VKM_ABS_BITS;
    float y = vkm_from_bits(VKM_SELECT(a > 0x42d00000u, 0x42d00000u | (u ^ a), u));
    int n = vkm_exp_n(y);
    uint q = vkm_exp_r(y, n), w = q + (VKM_UINT(n) << 23);
    int field = VKM_INT(q >> 23) + n;
    w = VKM_SELECT(field >= 255, VKM_INF_BITS, w);
    w = VKM_SELECT(field <= 0, 0u, w);
    w = VKM_SELECT(a > VKM_INF_BITS, VKM_NAN_BITS, w);
    return vkm_from_bits(w);
}

/* A weight of a softmax: vkm_exp(x) rounded to bf16 (numerics.h), as a float, for x <= 0 or below
 * 2^-25 or NaN. Below -36 it is 0. */
VKM_FN float vkm_exp_weight(float x) {
    uint u = vkm_bits(x), a = u & VKM_ABS_BITS;
    float y = vkm_from_bits(VKM_SELECT(a > 0x42100000u, 0xc2100000u, u));
    int n = vkm_exp_n(y);
    uint w = vkm_exp_r(y, n) + (VKM_UINT(n) << 23);
    w = (w + 0x7fffu + ((w >> 16) & 1u)) & 0xffff0000u;
    w = VKM_SELECT(w < 0x26800000u, 0u, w);
    w = VKM_SELECT(a > VKM_INF_BITS, VKM_NAN_BITS, w);
    return vkm_from_bits(w);
}

/* log(2^e m) with m in [sqrt(1/2), sqrt(2)): e ln 2 + f - f^2/2 + f^3 P(f), f = m - 1 exact. */
VKM_FN float vkm_log(float x) {
    uint u = vkm_bits(x), a = vkm_magnitude(x);
    uint t = a + (0x3f800000u - 0x3f3504f3u);
    VKM_PRECISE float e = VKM_FLOAT(VKM_INT(t >> 23) - 127);
    VKM_PRECISE float f = vkm_from_bits((t & 0x007fffffu) + 0x3f3504f3u);
    f = f - 1.0f;
    VKM_PRECISE float p = f * 0.0675196946f;
    p = p + -0.116744362f;
    p = p * f;
    p = p + 0.118847206f;
    p = p * f;
    p = p + -0.12405733f;
    p = p * f;
    p = p + 0.142201751f;
    p = p * f;
    p = p + -0.166680023f;
    p = p * f;
    p = p + 0.200020775f;
    p = p * f;
    p = p + -0.250000089f;
    p = p * f;
    p = p + 0.333333135f;
    VKM_PRECISE float ff = f * f;
    VKM_PRECISE float fff = ff * f;
    p = p * fff;
    VKM_PRECISE float y = e * 1.42860682e-06f;
    p = p + y;
    y = ff * 0.5f;
    p = p - y;
    p = p + f;
    y = e * 0.693145752f;
    p = p + y;
    uint w = vkm_bits(vkm_canon(p));
    w = VKM_SELECT(u == VKM_INF_BITS, VKM_INF_BITS, w);
    w = VKM_SELECT(u > VKM_INF_BITS, VKM_NAN_BITS, w); /* NaN, or the sign is set */
    w = VKM_SELECT(a == 0u, 0xff800000u, w);
    return vkm_from_bits(w);
}

/* 1 / b for b in [1, 2), within 2 ulp; the last step adds a small correction. */
VKM_FN float vkm_reciprocal_seed(float b) {
    VKM_PRECISE float e = b * 0.470588237f;
    VKM_PRECISE float r = 1.41176474f - e;
    e = b * r;
    e = 1.0f - e;
    e = e * r;
    r = r + e;
    e = b * r;
    e = 1.0f - e;
    e = e * r;
    r = r + e;
    e = b * r;
    e = 1.0f - e;
    e = e * r;
    r = r + e;
    return r;
}

/* x / y for bits ax, ay of normal |x|, |y|. The float quotient's significand n is within three of
 * the right one, so the remainder modulo 2^32 is the true one; divided in float it tells the
 * correction to within a half, which the new remainder settles. An exact tie cannot occur. */
VKM_FN uint vkm_div_by_parts(uint ax, uint ay, uint sign) {
    uint fx = ax & 0x007fffffu, fy = ay & 0x007fffffu;
    uint below = VKM_UINT(fx < fy);
    uint my = fy | 0x800000u;
    VKM_PRECISE float b = vkm_from_bits(fy | 0x3f800000u);
    VKM_PRECISE float reciprocal = vkm_reciprocal_seed(b);
    VKM_PRECISE float q = vkm_from_bits((fx | 0x4b000000u) + (below << 23));
    q = q * reciprocal; /* in [2^23, 2^24], nearly */
    int n = VKM_INT(q), d = VKM_INT(my);
    uint top = fx << 23; /* of the dividend's significand, modulo 2^32 */
    top = top + (top & (0u - below));
    int r = VKM_INT(top - VKM_UINT(n) * my);
    q = VKM_FLOAT(r) * 1.1920929e-07f; /* 2^-23; |r| < 5 my */
    q = q * reciprocal;
    q = q + 8.5f;
    int k = VKM_INT(q) - 8; /* the nearest integer, or its neighbour when q is half-way */
    r -= k * d;
    n += k + VKM_INT(2 * r > d) - VKM_INT(2 * r < 0 - d);
    int field = VKM_INT(ax >> 23) - VKM_INT(ay >> 23) + 127 - VKM_INT(below);
    return vkm_bits(vkm_compose(sign, field, VKM_UINT(n)));
}

/* The same, as C itself divides. Rounded to the grid of denormals a quotient below 2^-126 could
 * become 2^-126 only between 1 - 2^-24 and 1 - 2^-25 times that, where none lies: quotients of
 * 24-bit significands keep more than 2^-24 away from 1. */
#ifdef VKM_GLSL
#define vkm_div_normal(ax, ay, sign) vkm_div_by_parts(ax, ay, sign)
#else
VKM_FN uint vkm_div_normal(uint ax, uint ay, uint sign) {
    return vkm_bits(vkm_canon(vkm_from_bits(ax | sign) / vkm_from_bits(ay)));
}
#endif

/* Correctly rounded. C's own division knows zeros and infinities; a NaN it gives has other bits. */
VKM_FN float vkm_div(float x, float y) {
    uint ax = vkm_magnitude(x), ay = vkm_magnitude(y);
    uint sign = (vkm_bits(x) ^ vkm_bits(y)) & 0x80000000u;
    uint w = vkm_div_normal(ax, ay, sign);
#ifdef VKM_GLSL
    w = VKM_SELECT(ax == 0u, 0u, w);
    w = VKM_SELECT(ay == VKM_INF_BITS, 0u, w);
    w = VKM_SELECT(ay == 0u, (sign | VKM_INF_BITS), w);
    w = VKM_SELECT(ax == VKM_INF_BITS, (sign | VKM_INF_BITS), w);
    w = VKM_SELECT((ax | ay) == 0u, VKM_NAN_BITS, w);
    w = VKM_SELECT((ax & ay) == VKM_INF_BITS, VKM_NAN_BITS, w); /* Inf / Inf, or a NaN */
    w = VKM_SELECT(ax > VKM_INF_BITS, VKM_NAN_BITS, w);
    w = VKM_SELECT(ay > VKM_INF_BITS, VKM_NAN_BITS, w);
#else
    w = VKM_SELECT((w & VKM_ABS_BITS) > VKM_INF_BITS, VKM_NAN_BITS, w);
#endif
    return vkm_from_bits(w);
}

/* One Newton step towards 1 / sqrt(m), y good to a few bits. */
VKM_FN float vkm_rsqrt_step(float m, float y) {
    VKM_PRECISE float h = m * y;
    h = h * y;
    h = h * 0.5f;
    h = 1.5f - h;
    h = h * y;
    return h;
}

/* The last step: adds a small correction, which rounds better. */
VKM_FN float vkm_rsqrt_last(float m, float y) {
    VKM_PRECISE float h = m * y;
    h = h * y;
    h = 1.0f - h;
    VKM_PRECISE float g = y * 0.5f;
    h = h * g;
    h = h + y;
    return h;
}

/* |x| = m 4^(half - 64), m in [1, 4). */
VKM_FN float vkm_sqrt_reduce(uint a) {
    uint odd = (a >> 23) & 1u;
    return vkm_from_bits((a & 0x007fffffu) | ((128u - odd) << 23));
}
VKM_FN uint vkm_sqrt_half(uint a) {
    return ((a >> 23) + ((a >> 23) & 1u)) >> 1;
}

/* Correctly rounded, in the manner of vkm_div_normal: the root is near n + r / (2 n). */
VKM_FN float vkm_sqrt(float x) {
    uint u = vkm_bits(x), a = vkm_magnitude(x);
    VKM_PRECISE float m = vkm_sqrt_reduce(a);
    VKM_PRECISE float y = vkm_from_bits(0x5f3759dfu - (vkm_bits(m) >> 1));
    y = vkm_rsqrt_step(m, y);
    y = vkm_rsqrt_step(m, y);
    y = vkm_rsqrt_last(m, y);
    VKM_PRECISE float root = y * m;
    root = root * 8388608.0f;
    int n = VKM_INT(root);
    uint top = a << 23; /* of the radicand, modulo 2^32: the hidden bit is shifted out */
    top = top + (top & (((a >> 23) & 1u) - 1u));
    int r = VKM_INT(top - VKM_UINT(n) * VKM_UINT(n)); /* radicand - n^2 */
    root = VKM_FLOAT(r) * 5.96046448e-08f;            /* 2^-24: r / (2 n) */
    root = root * y;
    root = root + 8.5f;
    int k = VKM_INT(root) - 8;
    r -= k * (2 * n + k);
    n += k;
    n += VKM_INT(r > n) - VKM_INT(r <= 0 - n);
    uint w = ((vkm_sqrt_half(a) + 63u) << 23) + (VKM_UINT(n) - 0x800000u);
    w = VKM_SELECT(u == VKM_INF_BITS, VKM_INF_BITS, w);
    w = VKM_SELECT(u > VKM_INF_BITS, VKM_NAN_BITS, w);
    w = VKM_SELECT(a == 0u, 0u, w);
    return vkm_from_bits(w);
}

/* 1 / sqrt(x); +Inf at zero, NaN below. */
VKM_FN float vkm_rsqrt(float x) {
    uint u = vkm_bits(x), a = vkm_magnitude(x);
    VKM_PRECISE float m = vkm_sqrt_reduce(a);
    VKM_PRECISE float y = vkm_from_bits(0x5f3759dfu - (vkm_bits(m) >> 1));
    y = vkm_rsqrt_step(m, y);
    y = vkm_rsqrt_step(m, y);
    y = vkm_rsqrt_step(m, y);
    y = vkm_rsqrt_last(m, y);
    uint w = vkm_bits(y) + ((64u - vkm_sqrt_half(a)) << 23);
    w = VKM_SELECT(u == VKM_INF_BITS, 0u, w);
    w = VKM_SELECT(u > VKM_INF_BITS, VKM_NAN_BITS, w);
    w = VKM_SELECT(a == 0u, VKM_INF_BITS, w);
    return vkm_from_bits(w);
}

/* sin and cos of v quarter turns, |v| <= 1/2 and not denormal. */
VKM_FN float vkm_sin_quarter(float v) {
    VKM_PRECISE float z = v * v;
    VKM_PRECISE float p = z * 0.000154604393f;
    p = p + -0.00467954064f;
    p = p * z;
    p = p + 0.0796923339f;
    p = p * z;
    p = p + -0.645964086f;
    p = p * z;
    p = p + -4.371139e-08f; /* the low part of pi / 2 */
    p = p * v;
    z = v * 1.57079637f;
    p = p + z;
    return p;
}
VKM_FN float vkm_cos_quarter(float v) {
    VKM_PRECISE float z = v * v;
    VKM_PRECISE float p = z * 0.00089448638f;
    p = p + -0.0208555963f;
    p = p * z;
    p = p + 0.253668547f;
    p = p * z;
    p = p + -1.23370051f;
    p = p * z;
    p = p + 1.0f;
    return p;
}

/* Quarter turns `quarter` + v, v in [-1/2, 1/2]. */
VKM_FN float vkm_sin_turned(uint quarter, float v) {
    VKM_PRECISE float s = vkm_sin_quarter(v);
    VKM_PRECISE float c = vkm_cos_quarter(v);
    uint w = VKM_SELECT((quarter & 1u) != 0u, vkm_bits(c), vkm_bits(s)) ^ ((quarter & 2u) << 30);
    return vkm_canon(vkm_from_bits(w));
}

/* sin and cos of a whole turn's fraction u in [0, 1] that is a multiple of 2^-24: no reduction. */
VKM_FN float vkm_sin_turn(float u) {
    VKM_PRECISE float t = u * 4.0f;
    t = t + 0.5f;
    int n = VKM_INT(t);
    VKM_PRECISE float v = u * 4.0f;
    v = v - VKM_FLOAT(n);
    return vkm_sin_turned(VKM_UINT(n), v);
}
VKM_FN float vkm_cos_turn(float u) {
    VKM_PRECISE float t = u * 4.0f;
    t = t + 0.5f;
    int n = VKM_INT(t);
    VKM_PRECISE float v = u * 4.0f;
    v = v - VKM_FLOAT(n);
    return vkm_sin_turned(VKM_UINT(n) + 1u, v);
}

/* Word i of 2 / pi, after two words of zeros. */
VKM_FN uint vkm_two_over_pi(uint i) {
    uint w = VKM_SELECT(i == 2u, 0xa2f9836eu, 0u);
    w = VKM_SELECT(i == 3u, 0x4e441529u, w);
    w = VKM_SELECT(i == 4u, 0xfc2757d1u, w);
    w = VKM_SELECT(i == 5u, 0xf534ddc0u, w);
    w = VKM_SELECT(i == 6u, 0xdb629599u, w);
    w = VKM_SELECT(i == 7u, 0x3c439041u, w);
    w = VKM_SELECT(i == 8u, 0xfe5163abu, w);
    return w;
}

/* sin(|x| + quarters * pi / 2) for |x| >= 2^-24, by Payne and Hanek: the significand m times those
 * 96 bits of 2 / pi that matter modulo 4, of which 62 below the point are kept. */
VKM_FN float vkm_sin_reduced(uint a, uint quarters) {
    /* x = m 2^(field - 150); bit 0 of the window weighs 2 quarter turns after the product */
    uint m = (a & 0x007fffffu) | 0x800000u, at = (a >> 23) - 88u;
    uint i = at >> 5, s = at & 31u, back = (32u - s) & 31u, keep = 0u - VKM_UINT(s != 0u);
    uint t1 = vkm_two_over_pi(i + 1u), t2 = vkm_two_over_pi(i + 2u);
    uint w0 = (vkm_two_over_pi(i) << s) | ((t1 >> back) & keep);
    uint w1 = (t1 << s) | ((t2 >> back) & keep);
    uint w2 = (t2 << s) | ((vkm_two_over_pi(i + 3u) >> back) & keep);
    uint carry = vkm_mulhi(m, w2), lo = m * w1 + carry;
    uint hi = m * w0 + vkm_mulhi(m, w1) + VKM_UINT(lo < carry);
    uint n = (hi + 0x20000000u) >> 30;
    hi -= n << 30; /* two's complement, between -1/2 and 1/2 */
    uint sign = hi & 0x80000000u;
    hi = VKM_SELECT(sign != 0u, ~hi + VKM_UINT(lo == 0u), hi);
    lo = VKM_SELECT(sign != 0u, 0u - lo, lo);
    VKM_PRECISE float v = VKM_FLOAT(VKM_INT(lo & 0x3fffu)) * 2.16840434e-19f; /* 2^-62 */
    VKM_PRECISE float part = VKM_FLOAT(VKM_INT(((hi & 63u) << 18) | (lo >> 14)));
    part = part * 3.55271368e-15f; /* 2^-48 */
    v = v + part;
    part = VKM_FLOAT(VKM_INT(hi >> 6)) * 5.96046448e-08f; /* 2^-24 */
    v = v + part;
    return vkm_sin_turned(n + quarters, vkm_from_bits(vkm_bits(v) ^ sign));
}

VKM_FN float vkm_sin(float x) {
    uint u = vkm_bits(x), a = u & VKM_ABS_BITS;
    uint safe = VKM_SELECT(a < 0x39800000u, 0x3f800000u, a);
    safe = VKM_SELECT(a >= VKM_INF_BITS, 0x3f800000u, safe);
    uint w = vkm_bits(vkm_sin_reduced(safe, 0u)) ^ (u & 0x80000000u);
    w = VKM_SELECT(a < 0x39800000u, u, w); /* below 2^-12, x is nearer than the polynomial */
    w = VKM_SELECT(a >= VKM_INF_BITS, VKM_NAN_BITS, w);
    return vkm_canon(vkm_from_bits(w));
}

VKM_FN float vkm_cos(float x) {
    uint a = vkm_bits(x) & VKM_ABS_BITS;
    uint safe = VKM_SELECT(a < 0x39000000u, 0x39000000u, a);
    safe = VKM_SELECT(a >= VKM_INF_BITS, 0x3f800000u, safe);
    uint w = vkm_bits(vkm_sin_reduced(safe, 1u));
    w = VKM_SELECT(a < 0x39000000u, 0x3f800000u, w);
    w = VKM_SELECT(a >= VKM_INF_BITS, VKM_NAN_BITS, w);
    return vkm_from_bits(w);
}

/* -|x|, whatever the driver does with denormals. */
VKM_FN float vkm_minus_abs(float x) {
    return vkm_from_bits(vkm_bits(x) | 0x80000000u);
}

/* 1 / (1 + e) or e / (1 + e) of e = vkm_exp(-|x|), written out: of its selects one is needed. */
VKM_FN float vkm_sigmoid(float x) {
    uint u = vkm_bits(x), a = u & VKM_ABS_BITS;
    float y = vkm_from_bits(VKM_SELECT(a > 0x42d00000u, 0x42d00000u, a) | 0x80000000u);
    int n = vkm_exp_n(y);
    uint q = vkm_exp_r(y, n), e = q + (VKM_UINT(n) << 23);
    e = VKM_SELECT(VKM_INT(q >> 23) + n <= 0, 0u, e);
    VKM_PRECISE float d = vkm_from_bits(e) + 1.0f; /* in [1, 2] */
    e = VKM_SELECT((u & 0x80000000u) != 0u, e, 0x3f800000u);
    uint w = vkm_div_normal(e, vkm_bits(d), 0u);
    w = VKM_SELECT(e == 0u, 0u, w);
    w = VKM_SELECT(a > VKM_INF_BITS, VKM_NAN_BITS, w);
    return vkm_from_bits(w);
}

/* x sigmoid(x) of s = sigmoid(x), for callers that need s as well; below 2^-100 it is +0, so that
 * the product cannot round near 2^-126. */
VKM_FN float vkm_silu_of(float x, float s) {
    VKM_PRECISE float y = x * s;
    uint w = vkm_bits(y);
    w = VKM_SELECT((w & VKM_ABS_BITS) < 0x0d800000u, 0u, w);
    w = VKM_SELECT(vkm_bits(s) == 0u, 0u, w); /* also at -Inf */
    return vkm_from_bits(w);
}
VKM_FN float vkm_silu(float x) {
    return vkm_silu_of(x, vkm_sigmoid(x));
}

/* log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)). */
VKM_FN float vkm_softplus(float x) {
    VKM_PRECISE float u = vkm_exp(vkm_minus_abs(x)); /* (0, 1] */
    VKM_PRECISE float w = u + 1.0f;
    VKM_PRECISE float c = w - 1.0f;
    c = u - c; /* what w lost, exact */
    VKM_PRECISE float l = vkm_div(c, w);
    VKM_PRECISE float g = vkm_log(w);
    l = l + g;
    l = vkm_from_bits(VKM_SELECT(vkm_bits(u) < 0x33000000u, vkm_bits(u), vkm_bits(l)));
    VKM_PRECISE float m =
        vkm_from_bits(VKM_SELECT((vkm_bits(x) & 0x80000000u) != 0u, 0u, vkm_bits(x)));
    m = m + l;
    return vkm_canon(m);
}

#endif
