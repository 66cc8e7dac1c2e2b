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

/* The tile of outputs of up to max_m rows and max_outputs elements, by shaders of up to
 * max_products products. */
typedef struct vkm_tile_choice {
    uint32_t max_m;
    uint64_t max_outputs;
    uint32_t max_products;
    vkm_tile tile;
} vkm_tile_choice;

/* Choices that go before the table's, in order; those that do not fit an output leave it to the
 * table. n 0: none. */
void vkm_tiles_set(vkm_dev *dev, const vkm_tile_choice *v, uint32_t n);
/* The same from the user's cache, where `vkmoe tune` saves them: a file for each device, driver
 * version and tier. A file that cannot be used is left out with a warning. */
void vkm_tiles_load(vkm_dev *dev);
vkm_status vkm_tiles_save(const vkm_dev *dev, const vkm_tile_choice *v, uint32_t n,
                          vkm_err *err) VKM_MUST_CHECK;
/* Their file; "" if there is no place for one. */
void vkm_tiles_path(const vkm_dev *dev, char out[4096]);

/* Tiles worth trying for an (m, n) output here, at most cap of them. */
uint32_t vkm_tile_candidates(const vkm_dev *dev, uint32_t m, uint32_t n, vkm_tile *out,
                             uint32_t cap);

/* "form,lanes,rows,cols,across,step" of a tile that is usable here; 0 if it is not. */
int vkm_tile_read(const vkm_dev *dev, const char *text, vkm_tile *out);
void vkm_tile_write(vkm_tile t, char out[64]);

/* K of each part of the products of m rows that run at once, with n columns in all, where they are
 * best made in parts side by side (gemm's k_part); 0: as wholes. In the exact tier always. */
uint32_t vkm_tile_k_part(const vkm_dev *dev, uint32_t m, uint32_t n, uint32_t k);

/* The launch of a product kernel over an (m, n) output, K elements each, with that tile. quads:
 * whether rows of outputs, and of what is added to them, start at multiples of 4 elements. */
vkm_launch vkm_tile_launch(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n,
                           uint32_t k, int quads, double work);

#endif
