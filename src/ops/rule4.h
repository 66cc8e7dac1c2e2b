/* Dot products over K as the numerics contract defines them: sums of 256 products at absolute k,
 * each sequential from +0, added in ascending order. For twin files, after ops/twin.h. */
#ifndef VKM_RULE4_H
#define VKM_RULE4_H

#include "ops/twin.h"

enum { VKM_CHUNK = 256, VKM_PANEL = 16 };

/* One operand of a product: panel p, element (k, row) stands at p * 16 * kp + k / 2 * 32 + row * 2
 * + k % 2 (vk/tensor.h). */
typedef struct vkm_operand {
    const bf16 *x;
    uint32_t kp;
} vkm_operand;

static inline const bf16 *vkm_panel(vkm_operand o, uint64_t panel) {
    return o.x + panel * VKM_PANEL * o.kp;
}

/* The definition. out[j] = rule 4 of one row of A and row j of a panel of B; a points at the row's
 * element 0 inside its panel. */
static inline void vkm_rule4_row(const bf16 *a, const bf16 *panel, uint32_t k,
                                 real out[VKM_PANEL]) {
    for (uint32_t j = 0; j < VKM_PANEL; j++) out[j] = 0;
    for (uint32_t k0 = 0; k0 < k; k0 += VKM_CHUNK) {
        uint32_t k1 = k - k0 < VKM_CHUNK ? k : k0 + VKM_CHUNK;
        real sum[VKM_PANEL] = {0};
        for (uint32_t i = k0; i < k1; i++) {
            real x = ldb(a[i / 2 * 32 + i % 2]);
            const bf16 *b = panel + i / 2 * 32 + i % 2;
            for (uint32_t j = 0; j < VKM_PANEL; j++) sum[j] = madd(x, ldb(b[2 * j]), sum[j]);
        }
        for (uint32_t j = 0; j < VKM_PANEL; j++) out[j] += sum[j];
    }
}

/* out[i * ld + j] = rule 4 of rows i0 + i of A and j0 + j of B, i < rows, j < cols; i0 and j0 are
 * multiples of 16. Columns of `out` up to round_up(cols, 16) are scratch. */
static inline void vkm_rule4_naive(vkm_operand a, uint32_t i0, uint32_t rows, vkm_operand b,
                                   uint32_t j0, uint32_t cols, uint32_t k, real *out, uint32_t ld) {
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j += VKM_PANEL)
            vkm_rule4_row(vkm_panel(a, (i0 + i) / VKM_PANEL) + (i0 + i) % VKM_PANEL * 2,
                          vkm_panel(b, (j0 + j) / VKM_PANEL), k, out + (uint64_t)i * ld + j);
}

#endif
