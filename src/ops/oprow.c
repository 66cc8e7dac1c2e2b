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
#include "ops/transpose.h"

__attribute__((target("avx2"))) static void store_avx2(uint16_t *to, uint16_t (*block)[16]) {
    for (int half = 0; half < 16; half += 8) {
        __m256i x[8];
        for (int r = 0; r < 8; r++)
            x[r] = _mm256_loadu_si256((const __m256i *)(const void *)block[half + r]);
        vkm_transpose8(x, (uint32_t *)(void *)to + half, 16);
    }
}

void vkm_block_store(uint16_t *to, uint16_t (*block)[16]) {
    if (vkm_lanes_limit >= 1 && __builtin_cpu_supports("avx2"))
        store_avx2(to, block);
    else
        store_any(to, block);
}
#else
void vkm_block_store(uint16_t *to, uint16_t (*block)[16]) {
    store_any(to, block);
}
#endif
#endif
