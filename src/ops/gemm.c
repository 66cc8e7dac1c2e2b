/* Matrix products over operand panels (vk/tensor.h): gemm, linear with the experts' low-rank terms,
 * what these terms start from, and the weight gradients' product by sequences. All sums follow rule
 * 4 of the numerics contract. A product that a factor scales is canonicalised before it is added,
 * so that a denormal product counts as zero on every device; an expert's is scaled chunk by chunk.
 * A factor of 0 adds nothing, whatever the product is: here it is not even made where the whole
 * tile has that factor. */
#include "ops/gemm_tiled.h"
#include "ops/oprow.h"
#include "ops/rule4.h"
#include "ops/tiles.h"

enum { PADDING = 0xffffffffu, TILE_ROWS = 64, TILE_COLS = 192 };

/* ---- wrappers ----------------------------------------------------------------------------------
 */
#ifndef VKM_TWIN64

/* Elements that `rows` rows of an operand span when K from its start on is read. */
static uint64_t operand_span(uint64_t rows, uint32_t k, uint32_t kp) {
    return rows && k ? ((uint64_t)(vkm_div_up(rows, VKM_PANEL) - 1) * kp + k) * VKM_PANEL : 0;
}

static double work_of(uint64_t m, uint64_t n, uint64_t k) {
    return 2.0 * (double)m * (double)n * (double)k +
           4.0 * (2.0 * (double)(m + n) * (double)k + 4.0 * (double)m * (double)n);
}

static int aligned(vkm_tensor t, uint32_t bytes) {
    return t.addr % bytes == 0;
}

void vkm_op_gemm(vkm_stream *s, const vkm_args_gemm *a) {
    vkm_args_gemm b = *a;
    VKM_BUG_ON(a->k & 7 || a->kpa & 7 || a->kpb & 7 || a->k > a->kpa || a->k > a->kpb,
               "gemm: k %u of operands with %u and %u", a->k, a->kpa, a->kpb);
    VKM_BUG_ON(a->ldc < a->n, "gemm: ldc %u for %u columns", a->ldc, a->n);
    VKM_BUG_ON(a->k_part & (VKM_CHUNK - 1), "gemm: k_part %u", a->k_part);
    if (!a->m || !a->n) return;
    if (!a->k_part) b.k_part = a->k;
    uint32_t parts = a->k_part && a->k ? vkm_div_up(a->k, a->k_part) : 1;
    b.a = vkm_need(a->a, operand_span(a->m, a->k, a->kpa), "gemm", "a");
    b.b = vkm_need(a->b, operand_span(a->n, a->k, a->kpb), "gemm", "b");
    b.c = vkm_need(a->c, ((uint64_t)parts * a->m - 1) * a->ldc + a->n, "gemm", "c");
    vkm_launch how =
        vkm_tile_launch(vkm_stream_dev(s), 1, a->m, a->n, b.k_part,
                        aligned(b.c, 16) && a->ldc % 4 == 0, work_of(a->m, a->n, a->k));
    how.groups[2] = parts;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_gemm], &b, how);
}

/* Of linear and linear_bf16; k with the experts'. */
static vkm_launch linear_launch(vkm_stream *s, uint32_t m, uint32_t n, uint32_t k, uint32_t n_parts,
                                int quads) {
    vkm_launch how = vkm_tile_launch(vkm_stream_dev(s), 2, m, n, k, quads, work_of(m, n, k));
    how.spec[11] = n_parts != 0;
    return how;
}

void vkm_op_linear(vkm_stream *s, const vkm_args_linear *a) {
    vkm_args_linear b = *a;
    uint32_t k2 = a->n_experts * a->kper;
    VKM_BUG_ON(a->k & 7 || a->kper & 7 || a->kpa2 & 7 || k2 > a->kpa2 || (a->k && a->n_parts),
               "linear: k %u, %u parts, kper %u of %u", a->k, a->n_parts, a->kper, a->kpa2);
    b.a = vkm_need(a->a, operand_span(a->m, a->k, a->k), "linear", "a");
    b.b = vkm_need(a->b, operand_span(a->n, a->k, a->k), "linear", "b");
    b.a2 = vkm_need(a->a2, operand_span(a->m, k2, a->kpa2), "linear", "a2");
    b.b2 = vkm_need(a->b2, operand_span(a->n, k2, k2), "linear", "b2");
    b.scale = vkm_need(a->scale, a->n_experts ? a->scale.n : 0, "linear", "scale");
    b.row_seq = vkm_need(a->row_seq, a->n_experts ? a->m : 0, "linear", "row_seq");
    VKM_BUG_ON(a->has_res > 2, "linear: has_res %u", a->has_res);
    const uint64_t added[] = {0, (uint64_t)a->m * a->n, a->n};
    b.res = vkm_need(a->res, added[a->has_res], "linear", "res");
    b.c = vkm_need(a->c, (uint64_t)a->m * a->n, "linear", "c");
    b.parts = a->n_parts ? vkm_need(a->parts, a->n_parts * b.c.n, "linear", "parts") : b.res;
    vkm_stream_launch(
        s, &vkm_kernels[VKM_K_linear], &b,
        linear_launch(s, a->m, a->n, a->k + k2, a->n_parts,
                      aligned(b.c, 16) && aligned(b.res, 16) && aligned(b.parts, 16)));
}

void vkm_op_linear_bf16(vkm_stream *s, const vkm_args_linear_bf16 *a) {
    vkm_args_linear_bf16 b = *a;
    uint32_t k2 = a->n_experts * a->kper;
    VKM_BUG_ON(a->k & 7 || a->kper & 7 || a->kpa2 & 7 || k2 > a->kpa2 || a->n & 1 ||
                   (a->k && a->n_parts),
               "linear_bf16: k %u, %u parts, kper %u of %u, n %u", a->k, a->n_parts, a->kper,
               a->kpa2, a->n);
    b.a = vkm_need(a->a, operand_span(a->m, a->k, a->k), "linear_bf16", "a");
    b.b = vkm_need(a->b, operand_span(a->n, a->k, a->k), "linear_bf16", "b");
    b.a2 = vkm_need(a->a2, operand_span(a->m, k2, a->kpa2), "linear_bf16", "a2");
    b.b2 = vkm_need(a->b2, operand_span(a->n, k2, k2), "linear_bf16", "b2");
    b.scale = vkm_need(a->scale, a->n_experts ? a->scale.n : 0, "linear_bf16", "scale");
    b.row_seq = vkm_need(a->row_seq, a->n_experts ? a->m : 0, "linear_bf16", "row_seq");
    /* unread without has_bias, has_rows */
    b.bias = a->has_bias ? vkm_need(a->bias, a->n, "linear_bf16", "bias") : b.scale;
    b.rows = a->has_rows ? vkm_need(a->rows, a->m, "linear_bf16", "rows") : b.row_seq;
    /* with rows they choose among those of c */
    b.c = vkm_need(a->c, a->has_rows ? a->c.n : (uint64_t)a->m * a->n, "linear_bf16", "c");
    uint64_t n_parts = (uint64_t)a->n_parts * a->m * a->n;
    b.parts = n_parts ? vkm_need(a->parts, n_parts, "linear_bf16", "parts") : b.scale;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_linear_bf16], &b,
                      linear_launch(s, a->m, a->n, a->k + k2, a->n_parts,
                                    aligned(b.c, 8) && (!a->has_bias || aligned(b.bias, 16)) &&
                                        (!a->n_parts || aligned(b.parts, 16))));
}

void vkm_op_lora_down(vkm_stream *s, const vkm_args_lora_down *a) {
    vkm_args_lora_down b = *a;
    VKM_BUG_ON(a->k & 7 || a->n & 7, "lora_down: k %u, n %u", a->k, a->n);
    if (!a->m || !a->n) return;
    b.a = vkm_need(a->a, operand_span(a->m, a->k, a->k), "lora_down", "a");
    b.b = vkm_need(a->b, operand_span(a->n, a->k, a->k), "lora_down", "b");
    b.uh = vkm_need(a->uh, vkm_op_size(a->m, a->n), "lora_down", "uh");
    b.h = vkm_need(a->h, a->has_h ? (uint64_t)a->m * a->n / 2 : 0, "lora_down", "h");
    vkm_stream_launch(
        s, &vkm_kernels[VKM_K_lora_down], &b,
        vkm_tile_launch(vkm_stream_dev(s), 1, a->m, a->n, a->k, 1, work_of(a->m, a->n, a->k)));
}

void vkm_op_gemm_seg(vkm_stream *s, const vkm_args_gemm_seg *a) {
    vkm_args_gemm_seg b = *a;
    VKM_BUG_ON(a->kpa & 7 || a->kpb & 7, "gemm_seg: operands of %u and %u", a->kpa, a->kpb);
    VKM_BUG_ON(a->scale_stride && !a->rows_per_scale, "gemm_seg: rows_per_scale is 0");
    if (!a->n_seq) return;
    uint64_t scales = a->scale_stride ? (uint64_t)(a->n_seq - 1) * a->scale_stride +
                                            vkm_div_up(a->m, a->rows_per_scale)
                                      : 0;
    b.a = vkm_need(a->a, vkm_round_up(a->m, VKM_PANEL) * a->kpa, "gemm_seg", "a");
    b.b = vkm_need(a->b, vkm_round_up(a->n, VKM_PANEL) * a->kpb, "gemm_seg", "b");
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "gemm_seg", "seqs");
    b.scale = vkm_need(a->scale, scales, "gemm_seg", "scale");
    b.c = vkm_need(a->c, (uint64_t)a->m * a->n, "gemm_seg", "c");
    uint32_t k = a->kpa < a->kpb ? a->kpa : a->kpb;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_gemm_seg], &b,
                      vkm_tile_launch(vkm_stream_dev(s), 2, a->m, a->n, k, aligned(b.c, 16),
                                      work_of(a->m, a->n, k)));
}
#endif

/* ---- references --------------------------------------------------------------------------------
 */

typedef struct tile {
    uint32_t i0, rows, j0, cols;
} tile;

/* How an (m, n) output is cut into tiles. */
typedef struct cut {
    uint32_t rows, cols;
} cut;

static uint64_t n_tiles(uint32_t m, uint32_t n, cut c) {
    return (uint64_t)vkm_div_up(m, c.rows) * vkm_div_up(n, c.cols);
}

/* Few rows read B once; more are cut so that a chunk of A stays in the first cache. Smaller tiles
 * when there are few, so that every part has work; a tile's rows are whole panels. */
static cut cut_of(uint32_t m, uint32_t n, vkm_part me) {
    cut c = {m <= TILE_ROWS ? TILE_ROWS : TILE_ROWS / 2, TILE_COLS};
    while (n_tiles(m, n, c) < 2ull * me.n) {
        if (c.rows > VKM_PANEL && (n <= c.cols || c.cols <= 48))
            c.rows /= 2;
        else if (c.cols > 48)
            c.cols -= 48;
        else
            break;
    }
    return c;
}

static tile tile_at(uint64_t t, uint32_t m, uint32_t n, cut c) {
    uint32_t across = vkm_div_up(n, c.cols);
    tile x = {.i0 = (uint32_t)(t / across) * c.rows, .j0 = (uint32_t)(t % across) * c.cols};
    x.rows = m - x.i0 < c.rows ? m - x.i0 : c.rows;
    x.cols = n - x.j0 < c.cols ? n - x.j0 : c.cols;
    return x;
}

#define FOR_TILES(t, m, n)                                                                         \
    for (cut cut_ = cut_of((m), (n), me), *done_ = &cut_; done_; done_ = NULL)                     \
        FOR_PART(tiles_i, n_tiles((m), (n), cut_))                                                 \
    for (tile t = tile_at(tiles_i, (m), (n), cut_), *once = &t; once; once = NULL)

typedef real sums[TILE_ROWS][TILE_COLS];
_Static_assert(TILE_COLS % VKM_PANEL == 0, "a tile is whole panels");
#ifndef VKM_TWIN64
_Static_assert((int)TILE_ROWS <= (int)VKM_TILE_ROWS, "a tile that the fast form can do");
#endif

static void product(vkm_operand a, vkm_operand b, tile t, uint32_t k, sums out) {
#ifdef VKM_TWIN64
    vkm_rule4_naive(a, t.i0, t.rows, b, t.j0, t.cols, k, out[0], TILE_COLS);
#else
    vkm_tiler_best()(a, t.i0, t.rows, b, t.j0, t.cols, k, NULL, out[0], TILE_COLS);
#endif
}

VKM_REF(gemm) {
    vkm_operand x = {ref_bf16(a->a), a->kpa}, w = {ref_bf16(a->b), a->kpb};
    real *c = ref_f32(a->c); // (parts, m, ldc)
    uint32_t k = 0;
    do {
        uint32_t n = a->k - k < a->k_part ? a->k - k : a->k_part;
        FOR_TILES(t, a->m, a->n) {
            sums y;
            product(x, w, t, n, y);
            for (uint32_t i = 0; i < t.rows; i++) {
                real *row = c + (uint64_t)(t.i0 + i) * a->ldc + t.j0;
                for (uint32_t j = 0; j < t.cols; j++) row[j] = canon(y[i][j]);
            }
        }
        k += n;
        x.x += (uint64_t)n * VKM_PANEL;
        w.x += (uint64_t)n * VKM_PANEL;
        c += (uint64_t)a->m * a->ldc;
    } while (k < a->k);
}

/* Columns come in fours: u, u, A0 x, A0 x of two neighbouring ranks. */
VKM_REF(lora_down) {
    vkm_operand x = {ref_bf16(a->a), a->k}, w = {ref_bf16(a->b), a->k};
    FOR_TILES(t, a->m, a->n) {
        sums y;
        product(x, w, t, a->k, y);
        for (uint32_t i0 = 0; i0 < t.rows; i0 += VKM_OP_ROWS) {
            vkm_op_rows v;
            uint32_t live = vkm_op_rows_live(i0, t.rows);
            for (uint32_t r = 0; r < live; r++) {
                const real *from = y[i0 + r];
                for (uint32_t j = 0; j < t.cols; j++) v[r][j] = canon(from[j]);
                for (uint32_t j = 0; j + 4 <= t.cols; j += 4) {
                    v[r][j + 2] = v[r][j + 2] + v[r][j];
                    v[r][j + 3] = v[r][j + 3] + v[r][j + 1];
                }
                if (!a->has_h) continue;
                real *h = ref_f32(a->h) + ((uint64_t)(t.i0 + i0 + r) * a->n + t.j0) / 2; // (m, n/2)
                for (uint32_t j = 0; j + 4 <= t.cols; j += 4) {
                    h[j / 2] = canon(v[r][j + 2]);
                    h[j / 2 + 1] = canon(v[r][j + 3]);
                }
            }
            vkm_op_rows_store(ref_bf16(a->uh), t.i0 + i0, t.j0, v, live, t.cols, a->n);
        }
    }
}

/* y = canon(y + canon(f d)) for the rows of a tile with factors f; a factor of 0 adds nothing. ld:
 * of y, whose columns are the tile's, up to a whole panel where `padded`. */
VKM_IN_REF void add_scaled(vkm_operand a, vkm_operand b, tile t, uint32_t k, const real *f, real *y,
                           uint64_t ld, int padded) {
    int any = 0;
    for (uint32_t i = 0; i < t.rows; i++) any |= f[i] != 0;
    if (!any) return;
#ifndef VKM_TWIN64
    if (k <= VKM_CHUNK && (padded || t.cols % VKM_PANEL == 0)) {
        vkm_tiler_best()(a, t.i0, t.rows, b, t.j0, t.cols, k, f, y, ld);
        return;
    }
#endif
    (void)padded;
    sums d;
    product(a, b, t, k, d);
    for (uint32_t i = 0; i < t.rows; i++) {
        real *row = y + i * ld;
        for (uint32_t j = 0; j < t.cols && f[i] != 0; j++)
            row[j] = canon(row[j] + canon(f[i] * d[i][j]));
    }
}

/* The sum of a tile's parts, each (m, n). */
VKM_IN_REF void sum_parts(const vkm_args_linear *a, tile t, sums y) {
    const real *parts = ref_f32(a->parts); // (n_parts, m, n)
    for (uint32_t i = 0; i < t.rows; i++)
        for (uint32_t j = 0; j < t.cols; j++) y[i][j] = 0;
    for (uint32_t p = 0; p < a->n_parts; p++, parts += (uint64_t)a->m * a->n)
        for (uint32_t i = 0; i < t.rows; i++) {
            const real *row = parts + (uint64_t)(t.i0 + i) * a->n + t.j0;
            for (uint32_t j = 0; j < t.cols; j++) y[i][j] = y[i][j] + row[j];
        }
}

/* y = x W^T + the experts' terms for one tile; the part that linear and linear_bf16 share. */
VKM_IN_REF void linear_tile(const vkm_args_linear *a, tile t, sums y) {
    uint32_t k2 = a->n_experts * a->kper;
    if (a->n_parts)
        sum_parts(a, t, y);
    else
        product((vkm_operand){ref_bf16(a->a), a->k}, (vkm_operand){ref_bf16(a->b), a->k}, t, a->k,
                y);
    const uint32_t *row_seq = ref_u32(a->row_seq);
    const real *scale = ref_f32(a->scale); // (n_seq, n_experts)
    for (uint32_t e = 0; e < a->n_experts; e++) {
        real f[TILE_ROWS];
        for (uint32_t i = 0; i < t.rows; i++) {
            uint32_t seq = row_seq[t.i0 + i];
            f[i] = seq == PADDING ? 0 : scale[(uint64_t)seq * a->n_experts + e];
        }
        for (uint32_t k = 0; k < a->kper; k += VKM_CHUNK) {
            uint64_t skip = ((uint64_t)e * a->kper + k) * VKM_PANEL;
            uint32_t n = a->kper - k < VKM_CHUNK ? a->kper - k : VKM_CHUNK;
            add_scaled((vkm_operand){ref_bf16(a->a2) + skip, a->kpa2},
                       (vkm_operand){ref_bf16(a->b2) + skip, k2}, t, n, f, y[0], TILE_COLS, 1);
        }
    }
}

VKM_REF(linear) {
    real *c = ref_f32(a->c); // (m, n)
    FOR_TILES(t, a->m, a->n) {
        sums y;
        linear_tile(a, t, y);
        for (uint32_t i = 0; i < t.rows; i++) {
            uint64_t at = (uint64_t)(t.i0 + i) * a->n + t.j0;
            const real *res = ref_f32(a->res) + (a->has_res == 2 ? t.j0 : at); // (m, n) or (n)
            if (a->has_res)
                for (uint32_t j = 0; j < t.cols; j++) c[at + j] = canon(res[j] + y[i][j]);
            else
                for (uint32_t j = 0; j < t.cols; j++) c[at + j] = canon(y[i][j]);
        }
    }
}

VKM_REF(linear_bf16) {
    vkm_args_linear l = {.a = a->a,
                         .b = a->b,
                         .a2 = a->a2,
                         .b2 = a->b2,
                         .scale = a->scale,
                         .row_seq = a->row_seq,
                         .parts = a->parts,
                         .m = a->m,
                         .n = a->n,
                         .k = a->k,
                         .kpa2 = a->kpa2,
                         .kper = a->kper,
                         .n_experts = a->n_experts,
                         .n_parts = a->n_parts};
    const uint32_t *rows = ref_u32(a->rows); // (m)
    bf16 *c = ref_bf16(a->c);                // (., n) row-major
    FOR_TILES(t, a->m, a->n) {
        const real *bias = ref_f32(a->bias) + t.j0; // (n)
        sums y;
        linear_tile(&l, t, y);
        for (uint32_t i = 0; i < t.rows; i++) {
            uint64_t to = a->has_rows ? rows[t.i0 + i] : t.i0 + i;
            bf16 *row = c + to * a->n + t.j0;
            for (uint32_t j = 0; a->has_bias && j < t.cols; j++) y[i][j] = bias[j] + y[i][j];
            for (uint32_t j = 0; j < t.cols; j++) row[j] = stb(y[i][j]);
        }
    }
}

VKM_REF(gemm_seg) {
    const uint32_t(*seqs)[4] = (const uint32_t(*)[4])ref_u32(a->seqs);
    const real *scale = ref_f32(a->scale); // (n_seq, scale_stride)
    real *c = ref_f32(a->c);               // (m, n)
    FOR_TILES(t, a->m, a->n) {
        for (uint32_t s = 0; s < a->n_seq; s++) {
            uint64_t skip = (uint64_t)seqs[s][0] * VKM_PANEL;
            real g[TILE_ROWS];
            for (uint32_t i = 0; i < t.rows; i++)
                g[i] = a->scale_stride ? scale[s * a->scale_stride + (t.i0 + i) / a->rows_per_scale]
                                       : 1;
            add_scaled((vkm_operand){ref_bf16(a->a) + skip, a->kpa},
                       (vkm_operand){ref_bf16(a->b) + skip, a->kpb}, t, vkm_op_kp(seqs[s][1]), g,
                       c + (uint64_t)t.i0 * a->n + t.j0, a->n, 0);
        }
    }
}
