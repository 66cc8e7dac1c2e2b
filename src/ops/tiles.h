/* Tile shapes of the products by device and problem. They are specialization constants, and forms
 * of a shader (shaders/tile.glsl); in the exact tier none changes a bit. */
#ifndef VKM_TILES_H
#define VKM_TILES_H

#include "vk/dev.h"

typedef struct vkm_tile {
    vkm_form form;
    uint32_t lanes;  /* invocations of a group */
    uint32_t rows;   /* of an invocation; half, bf16: matrices of a subgroup along M */
    uint32_t cols;   /* the same along N */
    uint32_t across; /* shared, split: invocations along N; half, bf16: subgroups; plain, wide: 1 if
                        eight lanes load eight rows of A and broadcast them */
    uint32_t step;   /* words of K that are loaded, or staged, at a time */
} vkm_tile;

/* For an (m, n) output of a shader that holds `products` of them, on this device and in its tier:
 * the environment's VKMOE_TILE=form,lanes,rows,cols,across,step if it is usable, else what
 * `vkmoe tune` has stored, else the table's. */
vkm_tile vkm_tile_for(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n);

/* "form,lanes,rows,cols,across,step" of a tile that is usable here; 0 if it is not. */
int vkm_tile_read(const vkm_dev *dev, const char *text, vkm_tile *out);
void vkm_tile_write(vkm_tile t, char out[64]);

/* The launch of a product kernel over an (m, n) output, K elements each, with that tile. */
vkm_launch vkm_tile_launch(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n,
                           uint32_t k, double work);

#endif
