/* Which form of an attention kernel over whole sequences a device runs, and its grid. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/attention.h"

#ifndef VKM_TWIN64

/* The forms that VKMOE_ATTENTION names; each falls back on those before it. */
enum { PLAIN, SHARED, MATRIX, N_CHOICES };
static const char *const names[N_CHOICES] = {"plain", "shared", "matrix"};

/* What VKMOE_ATTENTION names, or `otherwise`. */
static int choice(int otherwise) {
    const char *text = getenv("VKMOE_ATTENTION");
    static int warned;
    for (int i = 0; text && i < N_CHOICES; i++)
        if (!strcmp(text, names[i])) return i;
    if (text && !warned++)
        vkm_warn("VKMOE_ATTENTION=%s is ignored: it takes plain, shared or matrix "
                 "(docs/numerics.md)",
                 text);
    return otherwise;
}

static int is_gpu(const vkm_dev *dev) {
    return vkm_dev_class_of(dev) == VKM_CLASS_GPU;
}

/* Lavapipe, whose workgroup memory costs as much as any, is faster without: 2 to 4 times in Mesa
 * 26, at a head dimension of 32 also in 22.3. */
static int best(const vkm_dev *dev) {
    if (vkm_dev_matrix(dev).m) return MATRIX;
    return is_gpu(dev) || !strstr(vkm_dev_driver(dev), "Mesa") ? SHARED : PLAIN;
}

/* shaders/attention_staged.glsl */
static vkm_launch staged(const attn_grid *g, double work) {
    enum { ROWS = 32, LANE_COUNT = 128 };
    return (vkm_launch){.groups = {vkm_div_up(g->rows, ROWS), g->heads * g->slices, g->n_seq},
                        .spec = {LANE_COUNT, g->head_dim, g->slices},
                        .work = work,
                        .form = VKM_FORM_shared};
}

/* shaders/attention_matrix.glsl: how many subgroups stand by one another and below one another, and
 * the rows of a tile. Registers bound the first (where outputs are split for a lane of the staged
 * form, they are for a subgroup of this one), workgroup memory the others. */
typedef struct matrix_cut {
    uint32_t across, down, tile;
} matrix_cut;

static int cut_fits(const vkm_dev *dev, const attn_grid *g, vkm_matrix x, matrix_cut c) {
    uint32_t block = c.down * x.m, stripe = c.across ? c.tile / c.across : 0;
    uint32_t line = g->head_dim / 8 + 1, turned = g->products * g->head_dim * (c.tile / 8 + 1);
    uint32_t staged = g->areas * c.tile * line + turned;
    if (staged < block * line) staged = block * line;
    uint32_t bytes = 16 * (staged + g->areas * block * (c.tile / 4 + 1) + c.tile + block + 4);
    return stripe && c.down && x.n % 8 == 0 && c.tile % x.m == 0 && c.tile % x.k == 0 &&
           stripe % x.n == 0 && stripe % 8 == 0 && g->head_dim % c.tile == 0 &&
           g->head_dim % x.k == 0 && bytes <= vkm_dev_shared_bytes(dev);
}

/* 0: the device's matrices are not for this head dimension. */
static int matrix(const vkm_dev *dev, const attn_grid *g, double work, vkm_launch *out) {
    enum { MOST_LANES = 256 };
    vkm_matrix x = vkm_dev_matrix(dev);
    if (!x.m || !g->aligned) return 0;
    int gpu = is_gpu(dev); /* the others compile for long */
    uint32_t rows = gpu ? 64 : 2 * x.m;
    matrix_cut c = {g->slices, rows / g->slices / x.m, gpu ? 32 : 16};
    while (c.down > 1 && c.down * c.across * x.subgroup > MOST_LANES) c.down /= 2;
    while (c.tile > 8 && !cut_fits(dev, g, x, c)) c.tile /= 2;
    if (!cut_fits(dev, g, x, c)) return 0;
    *out = (vkm_launch){.groups = {vkm_div_up(g->rows, c.down * x.m), g->heads, g->n_seq},
                        .spec = {c.down * c.across * x.subgroup, g->head_dim, c.tile, c.across, 0,
                                 0, x.m, x.n, x.k, x.subgroup},
                        .work = work,
                        .form = x.form};
    return 1;
}

static int stages(uint32_t head_dim) {
    return head_dim % 32 == 0 && head_dim <= 128;
}

vkm_launch vkm_attn_form(vkm_stream *s, vkm_launch plain, attn_grid g) {
    const vkm_dev *dev = vkm_stream_dev(s);
    int most = choice(best(dev));
    vkm_launch how;
    g.rows = (uint32_t)vkm_round_up(g.rows, ATTN_BLOCK); /* with pads */
    if (!stages(g.head_dim) || most == PLAIN) return plain;
    return most == MATRIX && matrix(dev, &g, plain.work, &how) ? how : staged(&g, plain.work);
}

/* shaders/attn_decode_staged.glsl; CPU drivers are all faster without: SwiftShader 1.5 times. */
vkm_launch vkm_attn_decode_form(vkm_stream *s, vkm_launch plain, uint32_t head_dim,
                                uint32_t heads) {
    uint32_t lanes = 2 * head_dim, tile = 32;
    int most = choice(is_gpu(vkm_stream_dev(s)) ? SHARED : PLAIN);
    if (!stages(head_dim) || most == PLAIN) return plain;
    while (tile * heads > lanes) tile /= 2;
    return (vkm_launch){.groups = {plain.groups[0], plain.groups[1], 1},
                        .spec = {lanes, head_dim, heads, tile},
                        .work = plain.work,
                        .form = VKM_FORM_shared};
}
#endif
