/* Transposes 8 rows of 8 words: what stands between row-major bf16 and the words of a panel, and
 * between rows and lanes. x86 only; callers have a plain form beside it. */
#ifndef VKM_TRANSPOSE_H
#define VKM_TRANSPOSE_H

#include <immintrin.h>
#include <stdint.h>

/* Line w of `to`, `stride` words after line w - 1, = word w of each of x[0] .. x[7]; x is used up.
 */
__attribute__((target("avx2"))) static inline void vkm_transpose8(__m256i *x, uint32_t *to,
                                                                  uint32_t stride) {
    __m256i y[8];
    for (int r = 0; r < 8; r += 2) {
        y[r] = _mm256_unpacklo_epi32(x[r], x[r + 1]);
        y[r + 1] = _mm256_unpackhi_epi32(x[r], x[r + 1]);
    }
    for (int r = 0; r < 8; r += 4) {
        x[r] = _mm256_unpacklo_epi64(y[r], y[r + 2]);
        x[r + 1] = _mm256_unpackhi_epi64(y[r], y[r + 2]);
        x[r + 2] = _mm256_unpacklo_epi64(y[r + 1], y[r + 3]);
        x[r + 3] = _mm256_unpackhi_epi64(y[r + 1], y[r + 3]);
    }
    for (int w = 0; w < 4; w++) {
        __m256i low = _mm256_permute2x128_si256(x[w], x[w + 4], 0x20);
        __m256i high = _mm256_permute2x128_si256(x[w], x[w + 4], 0x31);
        _mm256_storeu_si256((__m256i *)(void *)(to + (uint64_t)stride * (uint32_t)w), low);
        _mm256_storeu_si256((__m256i *)(void *)(to + (uint64_t)stride * (uint32_t)(w + 4)), high);
    }
}

#endif
