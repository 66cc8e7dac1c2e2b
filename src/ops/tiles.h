/* Tile shapes of the products by device and problem. They are specialization constants and never
 * change a bit (shaders/rule4_tile.glsl). */
#ifndef VKM_TILES_H
#define VKM_TILES_H

#include "vk/dev.h"

typedef struct vkm_tile {
    uint32_t lanes;  /* a group, along N */
    uint32_t rows;   /* of a group: 4, 8 or a multiple of 16 */
    uint32_t cols;   /* of a lane: a multiple of 4 */
    uint32_t spread; /* 1: eight lanes load eight rows of A and broadcast them */
    uint32_t unroll; /* words of K a pass: 1, 2 or 4 */
} vkm_tile;

/* For an (m, n) output of a shader that holds `products` of them.
 * VKMOE_TILE=lanes,rows,cols,spread,unroll in the environment overrides the table, to try a shape
 * on a new device. */
vkm_tile vkm_tile_for(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n);

/* The launch of a product kernel over an (m, n) output, K elements each, with that tile. */
vkm_launch vkm_tile_launch(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n,
                           uint32_t k, double work);

#endif
