/* Tiles that were measured on a device: what `vkmoe tune` tries, and the file that it leaves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "ops/tiles_private.h"
#include "ops/twin.h"

#ifndef VKM_TWIN64

enum { MAX_CHOICES = 64 };
static const char *const format = "vkmoe tiles 1";

typedef struct choices {
    uint32_t n;
    vkm_tile_choice v[MAX_CHOICES];
} choices;

void vkm_tiles_set(vkm_dev *dev, const vkm_tile_choice *v, uint32_t n) {
    VKM_BUG_ON(n > MAX_CHOICES, "%u choices of tiles", n);
    choices *c = n ? malloc(sizeof *c) : NULL;
    VKM_BUG_ON(n && !c, "no memory for choices of tiles");
    if (c) {
        c->n = n;
        memcpy(c->v, v, n * sizeof *v);
    }
    vkm_dev_set_tiles(dev, c);
}

int vkm_tile_chosen(const vkm_dev *dev, uint32_t products, uint32_t m, uint32_t n, vkm_tile *out) {
    const choices *c = vkm_dev_tiles(dev);
    for (uint32_t i = 0; c && i < c->n; i++) {
        const vkm_tile_choice *v = &c->v[i];
        if (m > v->max_m || (uint64_t)m * n > v->max_outputs || products > v->max_products)
            continue;
        *out = v->tile;
        return 1;
    }
    return 0;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

void vkm_tiles_path(const vkm_dev *dev, char out[VKM_PATH_MAX]) {
    const char *base = vkm_dev_cache_base(dev), *tier = vkm_dev_matrix(dev).m ? "fast" : "exact";
    out[0] = 0;
    if (base[0]) snprintf(out, VKM_PATH_MAX, "%s.tiles-%s.json", base, tier);
}

static vkm_status read_choice(const vkm_dev *dev, vkm_jv row, vkm_tile_choice *out, vkm_err *err) {
    static const char *const keys[] = {"max_m", "max_outputs", "max_products", "tile"};
    int64_t m, products;
    const char *tile;
    if (vkm_json_known_keys(row, keys, VKM_COUNTOF(keys), err) ||
        vkm_json_get_i64(row, "max_m", VKM_JSON_REQ, 1, UINT32_MAX, &m, err) ||
        vkm_json_get_u64(row, "max_outputs", VKM_JSON_REQ, &out->max_outputs, err) ||
        vkm_json_get_i64(row, "max_products", VKM_JSON_REQ, 1, 16, &products, err) ||
        vkm_json_get_str(row, "tile", VKM_JSON_REQ, &tile, err))
        return err->status;
    out->max_m = (uint32_t)m;
    out->max_products = (uint32_t)products;
    if (!vkm_tile_read(dev, tile, &out->tile))
        return vkm_json_fail(row, err, "'%s' is no tile that can be used here", tile);
    return VKM_OK;
}

static vkm_status read_choices(const vkm_dev *dev, vkm_jv root, choices *c, vkm_err *err) {
    static const char *const keys[] = {"format", "device", "driver", "tiles"};
    const char *is;
    vkm_jv tiles;
    if (vkm_json_known_keys(root, keys, VKM_COUNTOF(keys), err) ||
        vkm_json_get_str(root, "format", VKM_JSON_REQ, &is, err) ||
        vkm_json_get_array(root, "tiles", VKM_JSON_REQ, &tiles, err))
        return err->status;
    if (strcmp(is, format) != 0) return vkm_json_fail(root, err, "format is not '%s'", format);
    for (vkm_jv e = vkm_json_first(tiles); e.v; e = vkm_json_next(e)) {
        if (c->n == MAX_CHOICES)
            return vkm_json_fail(tiles, err, "more than %d tiles", MAX_CHOICES);
        if (read_choice(dev, e, &c->v[c->n++], err)) return err->status;
    }
    return VKM_OK;
}

void vkm_tiles_load(vkm_dev *dev) {
    char path[VKM_PATH_MAX];
    vkm_err err = {0};
    vkm_json *doc = NULL;
    choices c = {0};
    vkm_tiles_path(dev, path);
    if (!path[0] || !vkm_file_exists(path)) return;
    if (vkm_json_load(path, NULL, &doc, &err) || read_choices(dev, vkm_json_root(doc), &c, &err))
        vkm_warn("tuned tiles are left out: %s; `vkmoe tune` writes them anew", err.msg);
    else
        vkm_tiles_set(dev, c.v, c.n);
    vkm_json_free(doc);
}

vkm_status vkm_tiles_save(const vkm_dev *dev, const vkm_tile_choice *v, uint32_t n, vkm_err *err) {
    char path[VKM_PATH_MAX], folder[VKM_PATH_MAX], text[64];
    vkm_strbuf out = {0};
    vkm_jw w = vkm_jw_begin(&out, 1);
    vkm_tiles_path(dev, path);
    if (!path[0])
        return vkm_fail(err, VKM_FAILED,
                        "there is no folder for tuned tiles: set HOME or XDG_CACHE_HOME");
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "format", format);
    vkm_jw_str(&w, "device", vkm_dev_name(dev));
    vkm_jw_str(&w, "driver", vkm_dev_driver(dev));
    vkm_jw_arr(&w, "tiles");
    for (uint32_t i = 0; i < n; i++) {
        vkm_tile_write(v[i].tile, text);
        vkm_jw_obj(&w, NULL);
        vkm_jw_u64(&w, "max_m", v[i].max_m);
        vkm_jw_u64(&w, "max_outputs", v[i].max_outputs);
        vkm_jw_u64(&w, "max_products", v[i].max_products);
        vkm_jw_str(&w, "tile", text);
        vkm_jw_end_obj(&w);
    }
    vkm_jw_end_arr(&w);
    vkm_jw_end_obj(&w);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    if (!vkm_strbuf_check(&out, path, err) && !vkm_dir_make(folder, err))
        (void)!vkm_file_save(path, out.data, out.n, err);
    vkm_strbuf_free(&out);
    return err->status;
}

/* ---- candidates --------------------------------------------------------------------------------
 */

/* The values that a form's fields take, 0 ends a list; those of `across` and lanes are times a
 * subgroup where the form counts subgroups. */
typedef struct grid {
    vkm_dev_class class;
    vkm_form form;
    uint32_t lanes[5], rows[5], cols[5], across[4], step[4];
} grid;

enum { NONE = UINT32_MAX }; /* across 0 */
static const grid grids[] = {
    {VKM_CLASS_CPU_DRIVER, VKM_FORM_plain, {8, 16}, {4, 8, 16, 32}, {4, 8, 16}, {NONE}, {2, 4}},
    {VKM_CLASS_CPU_DRIVER, VKM_FORM_plain, {8}, {8, 16, 32}, {4, 8, 16}, {1}, {1}},
    {VKM_CLASS_GPU, VKM_FORM_shared, {64, 128, 256}, {4, 8}, {4, 8}, {8, 16}, {4, 8, 16}},
    {VKM_CLASS_GPU, VKM_FORM_split, {32, 64, 128, 256}, {4, 8, 16}, {4}, {4, 8, 16}, {4, 8, 16}},
    {VKM_CLASS_GPU, VKM_FORM_plain, {32, 64}, {8, 16}, {4, 8}, {NONE}, {2, 4}},
    {VKM_CLASS_GPU, VKM_FORM_half, {1, 2, 4, 8}, {1, 2, 4}, {1, 2, 4}, {1, 2, 4}, {16, 32, 64}},
    {VKM_CLASS_GPU, VKM_FORM_bf16, {1, 2, 4, 8}, {1, 2, 4}, {1, 2, 4}, {1, 2, 4}, {16, 32, 64}},
    {VKM_CLASS_CPU_DRIVER, VKM_FORM_half, {1}, {1, 2, 4}, {1, 2, 4}, {1}, {4, 8}},
};

#define EACH(var, list)                                                                            \
    for (size_t var##_i = 0, var = (list)[0]; var##_i < VKM_COUNTOF(list) && (list)[var##_i];      \
         var = (list)[++var##_i < VKM_COUNTOF(list) ? var##_i : 0])

/* Nothing that mostly computes rows or columns that are not there. */
static int worth(vkm_tile t, vkm_matrix x, uint32_t m, uint32_t n) {
    vkm_tile_extent e = vkm_tile_extent_of(t, x);
    return e.rows < 2 * (m > 8 ? m : 8) && e.cols <= 2 * n && e.rows * 32 >= (m < 512 ? m : 512);
}

uint32_t vkm_tile_candidates(const vkm_dev *dev, uint32_t m, uint32_t n, vkm_tile *out,
                             uint32_t cap) {
    vkm_matrix x = vkm_dev_matrix(dev);
    uint32_t found = 0;
    for (size_t g = 0; g < VKM_COUNTOF(grids); g++) {
        const grid *q = &grids[g];
        uint32_t unit = q->form == VKM_FORM_half || q->form == VKM_FORM_bf16 ? x.subgroup : 1;
        if (q->class != vkm_dev_class_of(dev)) continue;
        EACH(lanes, q->lanes)
        EACH(rows, q->rows)
        EACH(cols, q->cols)
        EACH(across, q->across)
        EACH(step, q->step) {
            vkm_tile t = {q->form,
                          (uint32_t)lanes * unit,
                          (uint32_t)rows,
                          (uint32_t)cols,
                          across == NONE ? 0 : (uint32_t)across,
                          (uint32_t)step};
            if (found < cap && vkm_tile_usable(t, x) && worth(t, x, m, n)) out[found++] = t;
        }
    }
    return found;
}

#endif
