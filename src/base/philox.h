/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), one source
 * for C and GLSL. There is no state: a draw is a function of the seed and of a counter that names
 * what is drawn, so it does not depend on the batch, the order or a resume. */
#ifndef VKM_PHILOX_H
#define VKM_PHILOX_H

#ifdef VKM_GLSL
struct vkm_u4 {
    uint x, y, z, w;
};
#else
#include <stdint.h>
#ifndef VKM_FN
#define VKM_FN static inline
#endif
typedef uint32_t uint;
typedef struct vkm_u4 {
    uint x, y, z, w;
} vkm_u4;
#endif

/* What a draw is for: the high byte of counter word 0. New purposes go at the end: a renumbered one
 * changes every run. */
#define VKM_RNG_WEIGHTS    1u  /* random model weights; rollout = tensor, position = element */
#define VKM_RNG_ADAPTER    2u  /* adapter initialisation; likewise */
#define VKM_RNG_SAMPLE     3u  /* one token; step, rollout, position */
#define VKM_RNG_PROBLEMS   4u  /* which problems a step takes */
#define VKM_RNG_ROUTES     5u  /* which rollouts a routing arm picks */
#define VKM_RNG_DIRECTION  6u  /* random directions of the control arms */
#define VKM_RNG_SHUFFLE    7u  /* order of the data in supervised training */
#define VKM_RNG_TEST       8u  /* tests, gates and benchmarks */
#define VKM_RNG_TEACHERS   9u  /* which pool rows a group takes */
#define VKM_RNG_UNHACKABLE 10u /* which prompts a step shows without their hint */
#define VKM_RNG_SPLIT      11u /* train, validation and test sets */
#define VKM_RNG_BOOTSTRAP  12u /* resampled pairs of an interval; rollout = resample */

/* High word of the 64-bit product, from 16-bit limbs: no driver is asked for 64-bit integers. */
VKM_FN uint vkm_mulhi(uint a, uint b) {
    uint al = a & 0xffffu, ah = a >> 16, bl = b & 0xffffu, bh = b >> 16;
    uint mid = ah * bl + ((al * bl) >> 16);
    uint low = al * bh + (mid & 0xffffu);
    return ah * bh + (mid >> 16) + (low >> 16);
}

VKM_FN vkm_u4 vkm_philox(vkm_u4 c, uint key0, uint key1) {
    for (int i = 0; i < 10; i++) {
        uint h0 = vkm_mulhi(0xd2511f53u, c.x), l0 = 0xd2511f53u * c.x;
        uint h1 = vkm_mulhi(0xcd9e8d57u, c.z), l1 = 0xcd9e8d57u * c.z;
        c.x = h1 ^ c.y ^ key0;
        c.z = h0 ^ c.w ^ key1;
        c.y = l1;
        c.w = l0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

/* Four draws. draw < 2^24 numbers repeated draws at one place. The seed is key1:key0. */
VKM_FN vkm_u4 vkm_random4(uint key0, uint key1, uint purpose, uint step, uint rollout,
                          uint position, uint draw) {
    vkm_u4 c;
    c.x = (purpose << 24) | (draw & 0xffffffu);
    c.y = position;
    c.z = rollout;
    c.w = step;
    return vkm_philox(c, key0, key1);
}

/* [0, 1) in steps of 2^-24: every value is exact. */
#ifdef VKM_GLSL
VKM_FN float vkm_unit(uint u) {
    return float(int(u >> 8)) * 5.96046448e-08f;
}
#else
VKM_FN float vkm_unit(uint u) {
    return (float)(int)(u >> 8) * 5.96046448e-08f;
}
#endif

#endif
