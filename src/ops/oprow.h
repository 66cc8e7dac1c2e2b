/* For references that write operands: they compute 16 rows, a panel's, a chunk of columns at a
 * time, and this rounds and stores them. The pads are zero, as the layout demands. */
#ifndef VKM_OPROW_H
#define VKM_OPROW_H

#include <string.h>

#include "ops/twin.h"

enum { VKM_OP_ROWS = 16, VKM_ROW_CHUNK = 256 };
typedef real vkm_op_rows[VKM_OP_ROWS][VKM_ROW_CHUNK];

/* Stores 16 rows of 16 columns as the 8 lines of words that they are in a panel. */
#ifdef VKM_TWIN64
static inline void vkm_block_store(bf16 *to, bf16 (*block)[16]) {
    for (uint32_t k = 0; k < 16; k++)
        for (uint32_t r = 0; r < VKM_OP_ROWS; r++) to[k / 2 * 32 + 2 * r + k % 2] = block[r][k];
}
#else
void vkm_block_store(uint16_t *to, uint16_t (*block)[16]);
#endif

/* y(row0 + r, k0 + j) = bf16z of v[r][j], r < 16, j < n <= VKM_ROW_CHUNK, in an operand of padded
 * length kp; row0 is a multiple of 16, rows from `live` on are stored as 0. */
VKM_IN_REF void vkm_op_rows_store(bf16 *y, uint64_t row0, uint32_t k0, vkm_op_rows v, uint32_t live,
                                  uint32_t n, uint32_t kp) {
    uint32_t j = 0;
    for (; k0 % 16 == 0 && j + 16 <= n; j += 16) {
        bf16 block[VKM_OP_ROWS][16];
        for (uint32_t r = 0; r < live; r++)
            for (uint32_t c = 0; c < 16; c++) block[r][c] = stb(v[r][j + c]);
        if (live < VKM_OP_ROWS) memset(block[live], 0, (VKM_OP_ROWS - live) * sizeof block[0]);
        vkm_block_store(y + vkm_op_index(row0, k0 + j, kp), block);
    }
    for (; j < n; j++)
        for (uint32_t r = 0; r < VKM_OP_ROWS; r++)
            y[vkm_op_index(row0 + r, k0 + j, kp)] = r < live ? stb(v[r][j]) : 0;
}

/* y(row0 + r, k) = 0 for r < 16, k0 <= k < kp. */
VKM_IN_REF void vkm_op_rows_end(bf16 *y, uint64_t row0, uint32_t k0, uint32_t kp) {
    for (uint32_t k = k0; k < kp; k++)
        for (uint32_t r = 0; r < VKM_OP_ROWS; r++) y[vkm_op_index(row0 + r, k, kp)] = 0;
}

/* How many of the 16 rows from row0 on are rows of n. */
static inline uint32_t vkm_op_rows_live(uint64_t row0, uint32_t n) {
    return n - row0 < VKM_OP_ROWS ? (uint32_t)(n - row0) : VKM_OP_ROWS;
}

#endif
