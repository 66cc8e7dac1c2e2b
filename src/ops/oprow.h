/* For references that write operands row by row: the pads are zero, as the layout demands. */
#ifndef VKM_OPROW_H
#define VKM_OPROW_H

#include <string.h>

#include "ops/twin.h"

enum { VKM_ROW_CHUNK = 256 }; /* columns that a reference computes before it stores them */

/* y(row, k0 ...) = bf16z of v[n] in an operand of padded length kp; n is at most VKM_ROW_CHUNK. */
static inline void vkm_oprow_store(bf16 *y, uint64_t row, uint32_t k0, const real *v, uint32_t n,
                                   uint32_t kp) {
    bf16 *p = y + vkm_op_index(row, k0, kp), rounded[VKM_ROW_CHUNK];
    uint32_t first = k0 % 2, j = 0;
    for (uint32_t i = 0; i < n; i++) rounded[i] = stb(v[i]);
    p -= first;
    if (!first) /* whole words */
        for (; j + 1 < n; j += 2) memcpy(p + 16ull * j, rounded + j, 2 * sizeof(bf16));
    for (; j < n; j++) p[(uint64_t)((j + first) / 2) * 32 + (j + first) % 2] = rounded[j];
}

/* y(row, k0 .. k1) = 0. */
static inline void vkm_oprow_zero(bf16 *y, uint64_t row, uint32_t k0, uint32_t k1, uint32_t kp) {
    for (uint32_t k = k0; k < k1; k++) y[vkm_op_index(row, k, kp)] = 0;
}

#endif
