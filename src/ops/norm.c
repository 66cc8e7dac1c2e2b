/* RMS norm of rows and of heads, and the rotary embedding, forward and backward.
 * Sums over a row are lane-64 reductions. A product that may be tiny is canonicalised before it is
 * added, so that a device that flushes denormals sees the same terms. */
#include "ops/oprow.h"
#include "ops/guarded.h"
#include "ops/norm.h"

#ifndef VKM_TWIN64
void vkm_op_rmsnorm_fwd(vkm_stream *s, const vkm_args_rmsnorm_fwd *a) {
    vkm_args_rmsnorm_fwd b = *a;
    if (!a->n_rows || !a->n_cols) return;
    b.x = vkm_need(a->x, (uint64_t)a->n_rows * a->n_cols, "rmsnorm_fwd", "x");
    b.gain = vkm_need(a->gain, a->n_cols, "rmsnorm_fwd", "gain");
    b.y = vkm_need(a->y, vkm_op_size(a->n_rows, a->n_cols), "rmsnorm_fwd", "y");
    b.rstd = vkm_need(a->rstd, a->n_rows, "rmsnorm_fwd", "rstd");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_rmsnorm_fwd], &b,
                      vkm_launch_units(s, vkm_round_up(a->n_rows, 16), a->n_cols));
}

void vkm_op_rmsnorm_bwd(vkm_stream *s, const vkm_args_rmsnorm_bwd *a) {
    vkm_args_rmsnorm_bwd b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_cols;
    if (!n) return;
    b.dy = vkm_need(a->dy, n, "rmsnorm_bwd", "dy");
    b.x = vkm_need(a->x, n, "rmsnorm_bwd", "x");
    b.gain = vkm_need(a->gain, a->n_cols, "rmsnorm_bwd", "gain");
    b.rstd = vkm_need(a->rstd, a->n_rows, "rmsnorm_bwd", "rstd");
    b.dx = vkm_need(a->dx, n, "rmsnorm_bwd", "dx");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_rmsnorm_bwd], &b,
                      vkm_launch_units(s, a->n_rows, a->n_cols));
}

void vkm_op_qk_fwd(vkm_stream *s, const vkm_args_qk_fwd *a) {
    vkm_args_qk_fwd b = *a;
    uint64_t units = (uint64_t)a->n_rows * a->n_heads, n = units * a->head_dim;
    if (!n) return;
    VKM_BUG_ON(a->head_dim & 3, "qk_fwd: head_dim %u is not a multiple of 4", a->head_dim);
    b.x = vkm_need(a->x, n, "qk_fwd", "x");
    b.gain = a->has_norm ? vkm_need(a->gain, a->head_dim, "qk_fwd", "gain") : b.x; /* unread */
    b.pos = vkm_need(a->pos, a->n_rows, "qk_fwd", "pos");
    /* rows unread without has_rows; with it they choose among those of y */
    b.rows = a->has_rows ? vkm_need(a->rows, a->n_rows, "qk_fwd", "rows") : b.pos;
    b.y = vkm_need(a->y, a->has_rows ? a->y.n : n, "qk_fwd", "y");
    b.rstd = vkm_need(a->rstd, units, "qk_fwd", "rstd");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_qk_fwd], &b, vkm_launch_units(s, units, a->head_dim));
}

void vkm_op_headnorm_bwd(vkm_stream *s, const vkm_args_headnorm_bwd *a) {
    vkm_args_headnorm_bwd b = *a;
    uint64_t units = (uint64_t)a->n_rows * a->n_heads, n = units * a->head_dim;
    if (!n) return;
    VKM_BUG_ON(a->head_dim & 1, "headnorm_bwd: head_dim %u is odd", a->head_dim);
    b.dy = vkm_need(a->dy, n, "headnorm_bwd", "dy");
    b.x = vkm_need(a->x, n, "headnorm_bwd", "x");
    b.gain = vkm_need(a->gain, a->head_dim, "headnorm_bwd", "gain");
    b.rstd = vkm_need(a->rstd, units, "headnorm_bwd", "rstd");
    b.dx = vkm_need(a->dx, vkm_op_size(a->n_rows, a->n_heads * a->head_dim), "headnorm_bwd", "dx");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_headnorm_bwd], &b,
                      vkm_launch_units(s, vkm_round_up(a->n_rows, 16) * a->n_heads, a->head_dim));
}

void vkm_op_norm_dgain(vkm_stream *s, const vkm_args_norm_dgain *a) {
    vkm_args_norm_dgain b = *a;
    uint64_t n = (uint64_t)a->n_blocks * a->n_heads * a->head_dim;
    if (!n) return;
    b.blocks = vkm_need(a->blocks, 2ull * a->n_blocks, "norm_dgain", "blocks");
    b.part = vkm_need(a->part, n, "norm_dgain", "part");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_norm_dgain], &b,
                      vkm_launch_flat(n, 64, 60.0 * VKM_GRAD_BLOCK * (double)n));
}

void vkm_op_add_rows(vkm_stream *s, const vkm_args_add_rows *a) {
    enum { MOST = 32768 }; /* some drivers end all loops of an invocation after 65,535 iterations */
    vkm_args_add_rows b = *a;
    if (!a->n_rows || !a->n_cols) return;
    b.y = vkm_need(a->y, a->n_cols, "add_rows", "y");
    for (uint32_t row = 0; row < a->n_rows; row += MOST) {
        b.n_rows = a->n_rows - row < MOST ? a->n_rows - row : MOST;
        uint64_t n = (uint64_t)b.n_rows * a->n_cols;
        b.x = vkm_view(a->x, (uint64_t)row * a->n_cols, n);
        vkm_stream_launch(s, &vkm_kernels[VKM_K_add_rows], &b,
                          vkm_launch_flat(a->n_cols, 16, 20.0 * (double)n));
    }
}

void vkm_op_rope_bwd(vkm_stream *s, const vkm_args_rope_bwd *a) {
    vkm_args_rope_bwd b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_heads * a->head_dim;
    if (!n) return;
    VKM_BUG_ON(a->head_dim & 1, "rope_bwd: head_dim %u is odd", a->head_dim);
    b.dy = vkm_need(a->dy, n, "rope_bwd", "dy");
    b.pos = vkm_need(a->pos, a->n_rows, "rope_bwd", "pos");
    b.dx = vkm_need(a->dx, n, "rope_bwd", "dx");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_rope_bwd], &b,
                      vkm_launch_flat(n / 2, 64, 20.0 * (double)n));
}
#endif

/* The tree of vkm_rule5_tree, written out: what is left over of short rows is +0 and adds nothing.
 */
VKM_IN_REF real tree_of(real acc[64]) {
    for (int l = 0; l < 32; l++) acc[l] += acc[l + 32];
    for (int l = 0; l < 16; l++) acc[l] += acc[l + 16];
    for (int l = 0; l < 8; l++) acc[l] += acc[l + 8];
    return ((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]));
}

VKM_IN_REF real sum_of_squares(const real *x, uint32_t n) {
    enum { STEP = 32 };
    real acc[64] = {0};
    uint32_t i = 0;
    for (; i + STEP <= n; i += STEP) {
        const real *from = x + i;
        real *to = acc + i % 64;
        for (uint32_t l = 0; l < STEP; l++) to[l] += canon(from[l] * from[l]);
    }
    for (; i < n; i++) acc[i % 64] += canon(x[i] * x[i]);
    return tree_of(acc);
}

/* 1 / rms of up to SIDE vectors of n that lie one after another. */
enum { SIDE = VKM_OP_ROWS };
VKM_IN_REF void rstds_of(const real *x, uint32_t n, uint32_t count, float eps, real *rstd) {
    real sum[SIDE] = {0};
    for (uint32_t i = 0; i < count; i++) sum[i] = sum_of_squares(x + (uint64_t)i * n, n);
    for (uint32_t i = 0; i < SIDE; i++)
        sum[i] = canon(vkm_rsqrt(vkm_div(sum[i], (real)(int)n) + (real)eps));
    memcpy(rstd, sum, count * sizeof *sum);
}

/* dx = rstd * (gain * dy) - x * pull, pull = rstd^3 / n * sum(gain * dy * x): that sum, then the
 * pull of up to SIDE rows from it. */
VKM_IN_REF real pull_sum(const real *dy, const real *x, const real *gain, uint32_t n) {
    real acc[64] = {0};
    for (uint32_t i = 0; i < n; i += 64) {
        const real *g = gain + i, *d = dy + i, *from = x + i;
        for (uint32_t l = 0, m = n - i < 64 ? n - i : 64; l < m; l++)
            acc[l] += canon(canon(g[l] * d[l]) * from[l]);
    }
    return tree_of(acc);
}
VKM_IN_REF void pulls_of(const real *rstd, uint32_t n, real *pull) {
    for (uint32_t i = 0; i < SIDE; i++)
        pull[i] = canon(vkm_div(rstd[i] * rstd[i] * rstd[i], (real)(int)n) * pull[i]);
}
static inline real norm_dx(real dy, real x, real gain, real rstd, real pull) {
    return canon(canon(rstd * canon(gain * dy)) - canon(x * pull));
}

VKM_REF(rmsnorm_fwd) {
    const real *x = ref_f32(a->x), *gain = ref_f32(a->gain); /* (T,C), (C) */
    bf16 *y = ref_bf16(a->y);                                /* operand (T,C) */
    real *rstd = ref_f32(a->rstd);                           /* (T) */
    uint32_t n = a->n_cols, kp = vkm_op_kp(n);
    FOR_PART(panel, vkm_div_up(a->n_rows, SIDE)) {
        uint64_t row = panel * SIDE;
        uint32_t live = vkm_op_rows_live(row, a->n_rows);
        rstds_of(x + row * n, n, live, a->eps, rstd + row);
        for (uint32_t k = 0; k < n; k += VKM_ROW_CHUNK) {
            vkm_op_rows v;
            uint32_t m = n - k < VKM_ROW_CHUNK ? n - k : VKM_ROW_CHUNK;
            for (uint32_t r = 0; r < live; r++) {
                const real *from = x + (row + r) * n + k, *by = gain + k, s = rstd[row + r];
                for (uint32_t j = 0; j < m; j++) v[r][j] = from[j] * s * by[j];
            }
            vkm_op_rows_store(y, row, k, v, live, m, kp);
        }
        vkm_op_rows_end(y, row, n, kp);
    }
}

VKM_REF(rmsnorm_bwd) {
    const real *dy = ref_f32(a->dy), *x = ref_f32(a->x); /* (T,C) */
    const real *gain = ref_f32(a->gain);                 /* (C) */
    const real *rstd = ref_f32(a->rstd);                 /* (T) */
    real *dx = ref_f32(a->dx);                           /* (T,C) */
    uint32_t n = a->n_cols;
    FOR_PART(side, vkm_div_up(a->n_rows, SIDE)) {
        uint64_t row = side * SIDE;
        uint32_t live = vkm_op_rows_live(row, a->n_rows);
        real pull[SIDE] = {0}, by[SIDE] = {0};
        memcpy(by, rstd + row, live * sizeof *by);
        for (uint32_t r = 0; r < live; r++)
            pull[r] = pull_sum(dy + (row + r) * n, x + (row + r) * n, gain, n);
        pulls_of(by, n, pull);
        for (uint32_t r = 0; r < live; r++) {
            const real *dy_row = dy + (row + r) * n, *x_row = x + (row + r) * n;
            real *out = dx + (row + r) * n;
            for (uint32_t c = 0; c < n; c++) {
                real d = norm_dx(dy_row[c], x_row[c], gain[c], by[r], pull[r]);
                out[c] = a->accumulate ? canon(out[c] + d) : d;
            }
        }
    }
}

VKM_REF(headnorm_bwd) {
    const real *dy = ref_f32(a->dy), *x = ref_f32(a->x); /* (T,H,D) */
    const real *gain = ref_f32(a->gain);                 /* (D) */
    const real *rstd = ref_f32(a->rstd);                 /* (T,H) */
    bf16 *dx = ref_bf16(a->dx);                          /* operand (T,H*D) */
    uint32_t n = a->head_dim, n_cols = a->n_heads * n, kp = vkm_op_kp(n_cols);
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS)) {
        uint64_t row = panel * VKM_OP_ROWS;
        uint32_t live = vkm_op_rows_live(row, a->n_rows);
        for (uint32_t h = 0; h < a->n_heads; h++) {
            vkm_op_rows v;
            real pull[SIDE] = {0}, by[SIDE] = {0};
            for (uint32_t r = 0; r < live; r++) {
                uint64_t unit = (row + r) * a->n_heads + h;
                by[r] = rstd[unit];
                pull[r] = pull_sum(dy + unit * n, x + unit * n, gain, n);
            }
            pulls_of(by, n, pull);
            for (uint32_t k = 0; k < n; k += VKM_ROW_CHUNK) {
                uint32_t m = n - k < VKM_ROW_CHUNK ? n - k : VKM_ROW_CHUNK;
                for (uint32_t r = 0; r < live; r++) {
                    uint64_t unit = (row + r) * a->n_heads + h;
                    const real *from_dy = dy + unit * n + k, *from_x = x + unit * n + k;
                    const real *g = gain + k;
                    for (uint32_t j = 0; j < m; j++)
                        v[r][j] = norm_dx(from_dy[j], from_x[j], g[j], by[r], pull[r]);
                }
                vkm_op_rows_store(dx, row, h * n + k, v, live, m, kp);
            }
        }
        vkm_op_rows_end(dx, row, n_cols, kp);
    }
}

/* d(gain) = sum over rows of dy * (x * rstd): sequential from +0 within a block. */
VKM_REF(norm_dgain) {
    const real *dy = ref_f32(a->dy), *x = ref_f32(a->x); /* (T,H,D) */
    const real *rstd = ref_f32(a->rstd);                 /* (T,H) */
    const uint32_t *blocks = ref_u32(a->blocks);         /* (n_blocks,2): first row, rows */
    real *part = ref_f32(a->part);                       /* (n_blocks,H,D) */
    uint32_t h = a->n_heads, n = a->head_dim;
    FOR_PART(unit, (uint64_t)a->n_blocks * h) {
        const uint32_t *block = blocks + 2 * (unit / h);
        real *sum = part + unit * n;
        for (uint32_t d = 0; d < n; d++) sum[d] = 0;
        for (uint32_t i = 0; i < block[1]; i++) {
            uint64_t at = (uint64_t)(block[0] + i) * h + unit % h;
            for (uint32_t d = 0; d < n; d++)
                sum[d] = addc(sum[d], mulc(dy[at * n + d], mulc(x[at * n + d], rstd[at])));
        }
    }
}

VKM_REF(add_rows) {
    const real *x = ref_f32(a->x); /* (n_rows, n_cols) */
    real *y = ref_f32(a->y);       /* (n_cols) */
    uint64_t lo = vkm_part_lo(me, a->n_cols), hi = vkm_part_hi(me, a->n_cols);
    for (uint32_t r = 0; r < a->n_rows; r++)
        for (uint64_t c = lo; c < hi; c++) y[c] = addc(y[c], x[(uint64_t)r * a->n_cols + c]);
}

/* Norms, with a gain, and turns pairs d, d + half of a head from d on, `step` at a time, as long as
 * whole steps are left; where it stopped. A constant step becomes whole vectors. */
enum { MOST_STEP = 32 };
VKM_IN_REF uint32_t rotate(const real *x, real rstd, const real *gain, const real *c, const real *s,
                           uint32_t half, uint32_t d, uint32_t step, bf16 *y) {
    for (; d + step <= half; d += step) {
        real lo[MOST_STEP], hi[MOST_STEP];
        const real *x0 = x + d, *x1 = x + half + d, *cd = c + d, *sd = s + d;
        for (uint32_t i = 0; i < step; i++) {
            lo[i] = gain ? canon(canon(x0[i] * rstd) * gain[d + i]) : x0[i];
            hi[i] = gain ? canon(canon(x1[i] * rstd) * gain[half + d + i]) : x1[i];
        }
        for (uint32_t i = 0; i < step; i++) {
            y[d + i] = stb(lo[i] * cd[i] - hi[i] * sd[i]);
            y[half + d + i] = stb(hi[i] * cd[i] + lo[i] * sd[i]);
        }
    }
    return d;
}

VKM_IN_REF void rotate_head(const real *x, real rstd, const real *gain, const real *c,
                            const real *s, uint32_t half, bf16 *y) {
    uint32_t d = rotate(x, rstd, gain, c, s, half, 0, MOST_STEP, y);
    d = rotate(x, rstd, gain, c, s, half, d, 16, y);
    d = rotate(x, rstd, gain, c, s, half, d, 8, y);
    (void)rotate(x, rstd, gain, c, s, half, d, 1, y);
}

VKM_REF(qk_fwd) {
    const real *x = ref_f32(a->x), *gain = ref_f32(a->gain); /* (T,H,D), (D) */
    const real *cosines = ref_f32(a->cos), *sines = ref_f32(a->sin);
    const uint32_t *pos = ref_u32(a->pos);   /* (T) */
    const uint32_t *rows = ref_u32(a->rows); /* (T) */
    bf16 *y = ref_bf16(a->y);                /* (.,H,D) */
    real *rstd = ref_f32(a->rstd);           /* (T,H) */
    uint64_t n_units = (uint64_t)a->n_rows * a->n_heads;
    uint32_t n = a->head_dim, half = n / 2;
    FOR_PART(g, (n_units + SIDE - 1) / SIDE) {
        uint64_t unit = g * SIDE, end = unit + SIDE < n_units ? unit + SIDE : n_units;
        if (a->has_norm) rstds_of(x + unit * n, n, (uint32_t)(end - unit), a->eps, rstd + unit);
        for (; unit < end; unit++) {
            uint64_t row = unit / a->n_heads, t = (uint64_t)pos[row] * half;
            const real *from = x + unit * n, *c = cosines + t, *s = sines + t;
            bf16 *to = y + ((a->has_rows ? rows[row] : row) * a->n_heads + unit % a->n_heads) * n;
            if (a->has_norm)
                rotate_head(from, rstd[unit], gain, c, s, half, to);
            else
                rotate_head(from, 1, NULL, c, s, half, to);
        }
    }
}

/* The inverse, likewise; through memory of its own, since x and y could be one to the compiler. */
VKM_IN_REF uint32_t rotate_back(const real *y, const real *c, const real *s, uint32_t half,
                                uint32_t d, uint32_t step, real *x) {
    for (; d + step <= half; d += step) {
        real lo[MOST_STEP], hi[MOST_STEP];
        const real *y0 = y + d, *y1 = y + half + d, *cd = c + d, *sd = s + d;
        for (uint32_t i = 0; i < step; i++) {
            lo[i] = canon(canon(y0[i] * cd[i]) + canon(y1[i] * sd[i]));
            hi[i] = canon(canon(y1[i] * cd[i]) - canon(y0[i] * sd[i]));
        }
        memcpy(x + d, lo, step * sizeof *lo);
        memcpy(x + half + d, hi, step * sizeof *hi);
    }
    return d;
}

VKM_REF(rope_bwd) {
    const real *dy = ref_f32(a->dy), *cosines = ref_f32(a->cos), *sines = ref_f32(a->sin);
    const uint32_t *pos = ref_u32(a->pos); /* (T) */
    real *dx = ref_f32(a->dx);             /* (T,H,D) */
    uint32_t half = a->head_dim / 2;
    FOR_PART(unit, (uint64_t)a->n_rows * a->n_heads) {
        uint64_t at = unit * a->head_dim, t = (uint64_t)pos[unit / a->n_heads] * half;
        uint32_t d = rotate_back(dy + at, cosines + t, sines + t, half, 0, MOST_STEP, dx + at);
        d = rotate_back(dy + at, cosines + t, sines + t, half, d, 16, dx + at);
        (void)rotate_back(dy + at, cosines + t, sines + t, half, d, 1, dx + at);
    }
}
