/* Bit-level rules of the exact tier, one source for C and GLSL (docs/numerics.md).
 * Shaders define VKM_GLSL before including it. */
#ifndef VKM_NUMERICS_H
#define VKM_NUMERICS_H

#ifdef VKM_GLSL
#define VKM_FN
#define VKM_PRECISE      precise
#define vkm_bits(x)      floatBitsToUint(x)
#define vkm_from_bits(u) uintBitsToFloat(u)
#else
#include <stdint.h>
#include <string.h>
#define VKM_FN static inline
#define VKM_PRECISE
typedef uint32_t uint;
static inline uint vkm_bits(float x) {
    uint u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float vkm_from_bits(uint u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
#endif

/* Every float store goes through here: denormals and minus zero become +0. */
VKM_FN float vkm_canon(float x) {
    uint u = vkm_bits(x);
    return (u & 0x7f800000u) == 0u ? vkm_from_bits(0u) : x;
}

/* Rounds to bf16, nearest even, by integer operations; |x| < 2^-50 becomes +0, so that every
 * partial sum of a GEMM is a multiple of 2^-114; NaN becomes the one quiet NaN 0x7fc0. */
VKM_FN uint vkm_bf16z(float x) {
    uint u = vkm_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;
    u = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (u & 0x7fffu) < 0x2680u ? 0u : u;
}

/* The two halves of a bf16 pair: element 2i in the low half, 2i+1 in the high one. */
VKM_FN float vkm_bf16_lo(uint w) {
    return vkm_from_bits(w << 16);
}
VKM_FN float vkm_bf16_hi(uint w) {
    return vkm_from_bits(w & 0xffff0000u);
}
VKM_FN uint vkm_bf16_pair(float lo, float hi) {
    return vkm_bf16z(lo) | (vkm_bf16z(hi) << 16);
}

#endif
