/* The tile table. Lavapipe of Mesa 22.3 loads lane by lane behind the execution mask, so rows of A
 * are spread over the lanes and shuffled: a tile of 64 x 8 loads 8 times a word of K for 512 sums.
 * It takes 6 s to compile, one of 32 x 8 1.5 s, so decode rows and small products have less. Mesa
 * 26's keeps loads of uniform addresses scalar. GPUs stage large tiles in workgroup memory and cut
 * K into its chunks for few rows; no figures of one yet. Figures: docs/performance.md. */
#include "ops/tiles.h"
#include "ops/tiles_private.h"

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

enum { ANY_M = UINT32_MAX, FEW = 1u << 15, MAX_LANES = 256 };
#define ANY UINT64_MAX
#define PLAIN(...)                                                                                 \
    { VKM_FORM_plain, __VA_ARGS__ }

/* The first that fits counts. */
static const tile_row table[] = {
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", 4, ANY, 2, PLAIN(8, 4, 8, 0, 2)},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", 8, ANY, 2, PLAIN(8, 8, 8, 1, 1)},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", ANY_M, 1u << 18, 2, PLAIN(8, 16, 4, 1, 1)},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", ANY_M, (1u << 20) - 1, 2, PLAIN(8, 32, 8, 1, 1)},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", ANY_M, ANY, 1, PLAIN(8, 64, 8, 1, 1)},
    {VKM_CLASS_CPU_DRIVER, "Mesa 22.", ANY_M, ANY, 2, PLAIN(8, 32, 8, 1, 1)},
    {VKM_CLASS_CPU_DRIVER, NULL, 4, ANY, 2, PLAIN(8, 4, 8, 0, 2)},
    {VKM_CLASS_CPU_DRIVER, NULL, 8, ANY, 2, PLAIN(8, 8, 8, 0, 2)},
    {VKM_CLASS_CPU_DRIVER, NULL, ANY_M, 1u << 18, 2, PLAIN(8, 16, 4, 0, 2)},
    {VKM_CLASS_CPU_DRIVER, NULL, ANY_M, ANY, 2, PLAIN(8, 16, 16, 0, 2)},
    {VKM_CLASS_GPU, NULL, 64, FEW, 2, {VKM_FORM_split, 256, 4, 4, 4, 16}},
    {VKM_CLASS_GPU, NULL, 8, ANY, 2, {VKM_FORM_split, 64, 8, 4, 8, 8}},
    {VKM_CLASS_GPU, NULL, 64, 1u << 16, 2, {VKM_FORM_split, 128, 8, 4, 8, 8}},
    {VKM_CLASS_GPU, NULL, 64, 1u << 18, 2, {VKM_FORM_split, 128, 16, 4, 8, 8}},
    {VKM_CLASS_GPU, NULL, 64, 1u << 20, 2, {VKM_FORM_shared, 128, 4, 4, 8, 8}},
    {VKM_CLASS_GPU, NULL, 64, ANY, 2, {VKM_FORM_shared, 128, 8, 8, 16, 8}},
    {VKM_CLASS_GPU, NULL, ANY_M, 1u << 20, 2, {VKM_FORM_shared, 256, 4, 4, 16, 8}},
    {VKM_CLASS_GPU, NULL, ANY_M, ANY, 2, {VKM_FORM_shared, 256, 8, 8, 16, 4}},
};

/* Groups of the fast tier: rows by columns of outputs, subgroups in all and along N, words of K.
 * Few rows are bound by the loads of the other operand that are on their way: long steps. Few
 * outputs are bound by the length of K, which matrices take step after step: the exact tier's tile
 * (0 rows) has its chunks side by side. */
typedef struct matrix_row {
    vkm_dev_class class;
    uint32_t max_m;
    uint64_t max_outputs;
    uint32_t rows, cols, subgroups, across, step;
} matrix_row;

static const matrix_row matrix_table[] = {
    {VKM_CLASS_CPU_DRIVER, ANY_M, ANY, 16, 16, 1, 1, 16},
    {VKM_CLASS_GPU, 64, FEW, 0, 0, 0, 0, 0},
    {VKM_CLASS_GPU, 16, ANY, 16, 64, 4, 4, 64},
    {VKM_CLASS_GPU, 32, ANY, 32, 64, 4, 4, 64},
    {VKM_CLASS_GPU, 64, ANY, 64, 64, 4, 2, 32},
    {VKM_CLASS_GPU, ANY_M, 1u << 20, 64, 64, 4, 2, 16},
    {VKM_CLASS_GPU, ANY_M, ANY, 128, 128, 8, 2, 16},
};

static int row_fits(const tile_row *r, const vkm_dev *dev, uint32_t products, uint32_t m,
                    uint32_t n) {
    return r->class == vkm_dev_class_of(dev) &&
           (!r->driver || strstr(vkm_dev_driver(dev), r->driver)) && m <= r->max_m &&
           (uint64_t)m * n <= r->max_outputs && products <= r->max_products;
}

/* ---- what a tile means -------------------------------------------------------------------------
 */

vkm_tile_extent vkm_tile_extent_of(vkm_tile t, vkm_matrix x) {
    uint32_t across = t.across ? t.across : 1, down = t.lanes / across;
    uint32_t subgroup = x.subgroup ? x.subgroup : 1;
    switch (t.form) {
    case VKM_FORM_shared: {
        uint32_t rows = down * t.rows, cols = t.across * t.cols;
        return (vkm_tile_extent){rows, cols, t.rows * t.cols, t.step * (rows + cols + 16) * 16};
    }
    case VKM_FORM_split:
        return (vkm_tile_extent){t.rows, 4 * t.across, down < t.rows ? 4 * t.rows / down : 4,
                                 t.lanes * t.rows * 16};
    case VKM_FORM_half:
    case VKM_FORM_bf16: {
        uint32_t rows = t.lanes / subgroup / across * t.rows * x.m, own = x.m * x.n / subgroup;
        uint32_t cols = t.across * t.cols * x.n;
        return (vkm_tile_extent){rows, cols, t.rows * t.cols * own,
                                 4 * ((rows + cols) * (t.step + 4) + t.lanes * own + 4)};
    }
    default:
        return (vkm_tile_extent){t.rows, t.lanes * t.cols, t.rows * t.cols, 0};
    }
}

static int is_one_of(uint32_t x, uint32_t a, uint32_t b, uint32_t c) {
    return x == a || x == b || x == c;
}

int vkm_tile_usable(vkm_tile t, vkm_matrix x) {
    enum { SHARED_BYTES = 32 << 10 }; /* that every device has */
    if (!t.lanes || t.lanes > MAX_LANES || !t.rows || t.rows > 64 || !t.cols || t.cols > 32)
        return 0;
    int rows_of_panels = t.rows == 4 || t.rows == 8 || t.rows % 16 == 0;
    if (t.form == VKM_FORM_plain)
        return rows_of_panels && t.cols % 4 == 0 && t.across <= 1 && is_one_of(t.step, 1, 2, 4);
    int matrix = x.m && t.form == x.form;
    if ((t.form != VKM_FORM_shared && t.form != VKM_FORM_split && !matrix) || !t.across ||
        t.lanes % (t.across * (matrix ? x.subgroup : 1)))
        return 0;
    vkm_tile_extent e = vkm_tile_extent_of(t, x);
    if (e.shared_bytes > SHARED_BYTES) return 0;
    if (matrix)
        return e.rows % 16 == 0 && e.cols % 16 == 0 && e.own <= 128 && 2 * t.step % x.k == 0 &&
               t.step >= 4 && t.step <= 64 && !(t.step & (t.step - 1)) &&
               !(t.lanes & (t.lanes - 1));
    if (t.form == VKM_FORM_shared)
        return t.rows % 4 == 0 && t.cols % 4 == 0 && t.rows * t.cols <= 128 && e.rows % 16 == 0 &&
               e.cols % 16 == 0 && is_one_of(t.step, 4, 8, 16);
    uint32_t parts = t.lanes / t.across;
    return rows_of_panels && t.rows <= 32 && t.cols == 4 &&
           (parts > t.rows || t.rows % parts == 0) && t.step <= 16 && !(t.step & (t.step - 1));
}

/* ---- text --------------------------------------------------------------------------------------
 */

int vkm_tile_read(const vkm_dev *dev, const char *text, vkm_tile *out) {
    char form[16];
    int end = 0;
    vkm_tile t = {0};
    if (sscanf(text, "%15[a-z0-9],%u,%u,%u,%u,%u%n", form, &t.lanes, &t.rows, &t.cols, &t.across,
               &t.step, &end) != 6 ||
        text[end])
        return 0;
    while (t.form < VKM_N_FORMS && strcmp(form, vkm_form_name(t.form)) != 0) t.form++;
    if (t.form == VKM_N_FORMS || !vkm_tile_usable(t, vkm_dev_matrix(dev))) return 0;
    *out = t;
    return 1;
}

void vkm_tile_write(vkm_tile t, char out[64]) {
    snprintf(out, 64, "%s,%u,%u,%u,%u,%u", vkm_form_name(t.form), t.lanes, t.rows, t.cols, t.across,
             t.step);
}

static int forced_tile(const vkm_dev *dev, vkm_tile *t) {
    const char *text = getenv("VKMOE_TILE");
    static int warned;
    if (!text || vkm_dev_backend(dev) != VKM_VULKAN) return 0;
    if (vkm_tile_read(dev, text, t)) return 1;
    if (!warned++)
        vkm_warn(
            "VKMOE_TILE=%s is ignored: it takes form,lanes,rows,cols,across,step of a tile that "
            "can be used here (docs/numerics.md)",
            text);
    return 0;
}

/* ---- choice ------------------------------------------------------------------------------------
 */

static const matrix_row *matrix_row_of(const vkm_dev *dev, uint32_t m, uint32_t n) {
    const matrix_row *r = matrix_table;
    while (r->class != vkm_dev_class_of(dev) || m > r->max_m || (uint64_t)m * n > r->max_outputs)
        r++;
    return r;
}

static vkm_tile matrix_tile(const vkm_dev *dev, const matrix_row *r, uint32_t m, uint32_t n) {
    vkm_matrix x = vkm_dev_matrix(dev);
    uint32_t subgroups = r->subgroups, across = r->across;
    while (subgroups * x.subgroup > MAX_LANES) { /* of 64, as on AMD's */
        if (across * 2 > subgroups) across /= 2;
        subgroups /= 2;
    }
    while (subgroups * x.subgroup < r->subgroups * 32) { /* of 8 or 16, as on Intel's */
        uint32_t rows = r->rows / (subgroups / across * x.m), cols = r->cols / (across * x.n);
        if (rows < 2 && cols < 2) break; /* each has one matrix */
        if (cols >= rows) across *= 2;
        subgroups *= 2;
    }
    uint32_t high = subgroups / across * x.m, wide = across * x.n; /* of a matrix each */
    VKM_BUG_ON(!high || !wide, "no matrices for %u x %u outputs", m, n);
    vkm_tile t = {x.form,
                  subgroups * x.subgroup,
                  vkm_div_up(r->rows, high),
                  vkm_div_up(r->cols, wide),
                  across,
                  r->step};
    VKM_BUG_ON(!vkm_tile_usable(t, x), "a tile of %u x %u x %u matrices for %u x %u outputs", x.m,
               x.n, x.k, m, n);
    return t;
}

vkm_tile vkm_tile_for(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n) {
    vkm_tile t;
    if (forced_tile(dev, &t) || vkm_tile_chosen(dev, products, m, n, &t)) return t;
    const matrix_row *r = matrix_row_of(dev, m, n);
    if (vkm_dev_matrix(dev).m && m > 8 && r->rows) return matrix_tile(dev, r, m, n);
    uint32_t i = 0;
    while (!row_fits(&table[i], dev, products, m, n)) i++;
    return table[i].tile;
}

/* Few rows are bound by the weights on their way (matrix_table), which groups side by side along K
 * multiply: so many of them, each with two chunks at least. */
uint32_t vkm_tile_k_part(const vkm_dev *dev, uint32_t m, uint32_t n, uint32_t k) {
    enum { GROUPS = 400, LEAST_K = 512 };
    const matrix_row *r = matrix_row_of(dev, m, n);
    int few = r->class == VKM_CLASS_GPU && r->max_m != ANY_M;
    if (!vkm_dev_matrix(dev).m || !few || m <= 8 || !r->rows) return 0;
    uint32_t groups = vkm_div_up(n, r->cols), parts = GROUPS / groups;
    if (parts > k / LEAST_K) parts = k / LEAST_K;
    return parts < 2 ? 0 : (uint32_t)vkm_round_up(vkm_div_up(k, parts), 256);
}

/* lavapipe 22.3 ends all loops of an invocation after 65,535 iterations in total, silently: a long
 * K (the gradient of the logits has the vocabulary) goes in larger steps. */
enum { MAX_PASSES = 60000 };

static uint32_t passes(vkm_tile t, uint32_t k) {
    return k / (2 * t.step) / (t.form == VKM_FORM_split ? t.lanes / t.across : 1);
}

vkm_launch vkm_tile_launch(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n,
                           uint32_t k, int quads, double work) {
    vkm_tile t = vkm_tile_for(dev, products, m, n);
    while (t.step < 4 && passes(t, k) > MAX_PASSES) t.step *= 2;
    VKM_BUG_ON(vkm_dev_class_of(dev) == VKM_CLASS_CPU_DRIVER && passes(t, k) > MAX_PASSES,
               "a product over K = %u takes too many steps", k);
    vkm_matrix x = vkm_dev_matrix(dev);
    vkm_tile_extent e = vkm_tile_extent_of(t, x);
    VKM_BUG_ON(!e.rows || !e.cols, "a tile of %u x %u outputs", e.rows, e.cols);
    if (t.form == VKM_FORM_plain) t.across &= vkm_dev_spreads(dev);
    return (vkm_launch){.groups = {vkm_div_up(n, e.cols), vkm_div_up(m, e.rows), 1},
                        .spec = {t.lanes, t.rows, t.cols, e.own, t.across, t.step, x.m, x.n, x.k,
                                 x.subgroup, quads && n % 4 == 0},
                        .form = t.form,
                        .work = work};
}

#endif
