/* The fast form of rule 4 for the CPU reference: register tiles over panels, several instruction
 * sets, the bits of vkm_rule4_naive. */
#ifndef VKM_GEMM_TILED_H
#define VKM_GEMM_TILED_H

#include "ops/rule4.h"

#ifndef VKM_TWIN64
enum { VKM_TILE_ROWS = 64 };

/* As vkm_rule4_naive, for rows <= VKM_TILE_ROWS. scale (rows): NULL, or, for k <= VKM_CHUNK, what
 * the product of a row is multiplied with before it is added to `out`, each step canonicalised; a
 * row of scale 0 is left as it is. */
typedef void (*vkm_tiler_fn)(vkm_operand a, uint32_t i0, uint32_t rows, vkm_operand b, uint32_t j0,
                             uint32_t cols, uint32_t k, const float *scale, float *out,
                             uint64_t ld);
typedef struct vkm_tiler {
    const char *name; /* the instruction set */
    int (*usable)(void);
    vkm_tiler_fn run;
} vkm_tiler;

/* Best first; the last one runs everywhere. */
extern const vkm_tiler vkm_tilers[];
extern const uint32_t vkm_n_tilers;

/* The best that this machine has. */
vkm_tiler_fn vkm_tiler_best(void);
#endif

#endif
