/* The tile table. Measured at 1024^3 on two cores beside OpenBLAS at 170 to 200 GFLOP/s: lavapipe
 * of Mesa 22.3 loads lane by lane behind the execution mask, so rows of A are spread over the lanes
 * and broadcast (17 GFLOP/s, 9 without), and words come in pairs (1.3 times that). Mesa 26's keeps
 * loads of uniform addresses scalar (74). A 32 x 8 tile takes 1.5 s to compile on 22.3, one of
 * 32 x 16 8 s (and is a quarter faster), so decode rows and small products have less. */
#include "ops/tiles.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/twin.h"

#ifndef VKM_TWIN64

typedef struct tile_row {
    vkm_dev_class class;
    const char *driver;    /* part of vkm_dev_driver; NULL for any */
    uint32_t max_m;        /* rows up to this */
    uint64_t max_outputs;  /* and m * n up to this */
    uint32_t max_products; /* and so many products in the shader, which compile one by one */
    vkm_tile tile;
} tile_row;

/* The first that fits counts. */
static const tile_row table[] = {
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", 4, UINT64_MAX, 2, {8, 4, 8, 0, 2}},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", 8, UINT64_MAX, 2, {8, 8, 8, 1, 1}},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", UINT32_MAX, 1u << 18, 2, {8, 16, 4, 1, 1}},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", UINT32_MAX, (1u << 20) - 1, 2, {8, 32, 8, 1, 1}},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", UINT32_MAX, UINT64_MAX, 1, {8, 32, 16, 1, 1}},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", UINT32_MAX, UINT64_MAX, 2, {8, 32, 8, 1, 1}},
    {VKM_CLASS_CPU_DRIVER, NULL, 4, UINT64_MAX, 2, {8, 4, 8, 0, 2}},
    {VKM_CLASS_CPU_DRIVER, NULL, 8, UINT64_MAX, 2, {8, 8, 8, 0, 2}},
    {VKM_CLASS_CPU_DRIVER, NULL, UINT32_MAX, 1u << 18, 2, {8, 16, 4, 0, 2}},
    {VKM_CLASS_CPU_DRIVER, NULL, UINT32_MAX, UINT64_MAX, 2, {8, 16, 16, 0, 2}},
    {VKM_CLASS_GPU, NULL, 8, UINT64_MAX, 2, {32, 8, 4, 0, 2}},
    {VKM_CLASS_GPU, NULL, UINT32_MAX, 1u << 18, 2, {32, 16, 4, 0, 2}},
    {VKM_CLASS_GPU, NULL, UINT32_MAX, UINT64_MAX, 2, {64, 16, 4, 0, 2}},
};

static int row_fits(const tile_row *r, const vkm_dev *dev, uint32_t products, uint32_t m,
                    uint32_t n) {
    return r->class == vkm_dev_class_of(dev) &&
           (!r->driver || strstr(vkm_dev_driver(dev), r->driver)) && m <= r->max_m &&
           (uint64_t)m * n <= r->max_outputs && products <= r->max_products;
}

static int tile_usable(vkm_tile t) {
    int rows = t.rows == 4 || t.rows == 8 || (t.rows && t.rows % 16 == 0 && t.rows <= 64);
    int cols = t.cols && t.cols % 4 == 0 && t.cols <= 32;
    int unroll = t.unroll == 1 || t.unroll == 2 || t.unroll == 4;
    return rows && cols && unroll && t.lanes && t.lanes <= 256 && t.spread <= 1;
}

static int forced_tile(vkm_tile *t) {
    const char *text = getenv("VKMOE_TILE");
    if (!text) return 0;
    int got = sscanf(text, "%u,%u,%u,%u,%u", &t->lanes, &t->rows, &t->cols, &t->spread, &t->unroll);
    if (got == 5 && tile_usable(*t)) return 1;
    static int warned;
    if (!warned++)
        vkm_warn("VKMOE_TILE=%s is ignored: it takes lanes (1 to 256), rows (4, 8, 16, 32, 48 or "
                 "64), columns (4 to 32 in fours), spread (0 or 1), unroll (1, 2 or 4)",
                 text);
    return 0;
}

vkm_tile vkm_tile_for(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n) {
    vkm_tile t;
    if (forced_tile(&t)) return t;
    uint32_t i = 0;
    while (!row_fits(&table[i], dev, products, m, n)) i++;
    return table[i].tile;
}

/* lavapipe 22.3 ends all loops of an invocation after 65,535 iterations in total, silently: a long
 * K (the gradient of the logits has the vocabulary) goes in larger steps. */
enum { MAX_PASSES = 60000 };

vkm_launch vkm_tile_launch(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n,
                           uint32_t k, double work) {
    vkm_tile t = vkm_tile_for(dev, products, m, n);
    while (t.unroll < 4 && k / (2 * t.unroll) > MAX_PASSES) t.unroll *= 2;
    VKM_BUG_ON(vkm_dev_class_of(dev) == VKM_CLASS_CPU_DRIVER && k / (2 * t.unroll) > MAX_PASSES,
               "a product over K = %u takes too many steps", k);
    return (vkm_launch){{vkm_div_up(n, t.lanes * t.cols), vkm_div_up(m, t.rows), 1},
                        {t.lanes, t.rows, t.cols, t.rows * t.cols, t.spread, t.unroll},
                        work};
}

#endif
