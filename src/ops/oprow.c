/* Owns the store of a panel's blocks. */
#include "ops/oprow.h"

#ifndef VKM_TWIN64
#include "ops/attention.h" /* vkm_lanes_limit */

static void store_any(uint16_t *to, uint16_t (*block)[16]) {
    for (uint32_t w = 0; w < 8; w++)
        for (uint32_t r = 0; r < VKM_OP_ROWS; r++)
            memcpy(to + w * 32 + 2ull * r, &block[r][2 * w], 2 * sizeof(uint16_t));
}

#if defined(__x86_64__)
#include <immintrin.h>

/* Transposes 8 rows of 8 words; line w of `to` lies 16 words after line w - 1. */
__attribute__((target("avx2"))) static void store_half(uint32_t *to, uint16_t (*block)[16]) {
    __m256i x[8], y[8];
    for (int r = 0; r < 8; r++) x[r] = _mm256_loadu_si256((const __m256i *)(const void *)block[r]);
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
        _mm256_storeu_si256((__m256i *)(void *)(to + 16 * w), low);
        _mm256_storeu_si256((__m256i *)(void *)(to + 16 * (w + 4)), high);
    }
}

void vkm_block_store(uint16_t *to, uint16_t (*block)[16]) {
    if (vkm_lanes_limit < 1 || !__builtin_cpu_supports("avx2")) {
        store_any(to, block);
        return;
    }
    store_half((uint32_t *)(void *)to, block);
    store_half((uint32_t *)(void *)to + 8, block + 8);
}
#else
void vkm_block_store(uint16_t *to, uint16_t (*block)[16]) {
    store_any(to, block);
}
#endif
#endif
