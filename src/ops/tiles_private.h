/* What tiles.c and tiles_tuned.c share. */
#ifndef VKM_TILES_PRIVATE_H
#define VKM_TILES_PRIVATE_H

#include "ops/tiles.h"

/* Outputs of a group along M and N, those of an invocation, and bytes of workgroup memory. */
typedef struct vkm_tile_extent {
    uint32_t rows, cols, own, shared_bytes;
} vkm_tile_extent;
vkm_tile_extent vkm_tile_extent_of(vkm_tile t, vkm_matrix x);

/* Whether the shaders can run it, with the matrices of the fast tier (m 0: in the exact tier). */
int vkm_tile_usable(vkm_tile t, vkm_matrix x);

/* The first of the device's own choices that fits. */
int vkm_tile_chosen(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n, vkm_tile *out);

#endif
