/* Normal deviates for weights and tests, on the host: Philox and Box-Muller in software functions,
 * so the same bits everywhere. */
#ifndef VKM_GAUSS_H
#define VKM_GAUSS_H

#include "ops/softmath.h"

/* N(0, 1) pair from two words: u in (0, 1] gives the radius, at most 5.77. */
static inline void vkm_gauss_pair(uint u0, uint u1, float *a, float *b) {
    float u = 1.0f - vkm_unit(u0), turn = vkm_unit(u1);
    float radius = vkm_sqrt(-2.0f * vkm_log(u));
    *a = vkm_canon(radius * vkm_cos_turn(turn));
    *b = vkm_canon(radius * vkm_sin_turn(turn));
}

/* x[i] = scale * N(0, 1). Element i is word i % 4 of the draw at position i / 4, so a part of an
 * array can be filled alone: `first` is the index of x[0]. n + first < 2^34. */
static inline void vkm_gauss(float *x, uint64_t n, uint64_t first, uint64_t seed, uint purpose,
                             uint stream, float scale) {
    for (uint64_t i = first; i < first + n;) {
        vkm_u4 r =
            vkm_random4((uint)seed, (uint)(seed >> 32), purpose, 0, stream, (uint)(i / 4), 0);
        float g[4];
        vkm_gauss_pair(r.x, r.y, &g[0], &g[1]);
        vkm_gauss_pair(r.z, r.w, &g[2], &g[3]);
        for (uint64_t j = i % 4; j < 4 && i < first + n; j++, i++)
            x[i - first] = vkm_canon(scale * g[j]);
    }
}

#endif
