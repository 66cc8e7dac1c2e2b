/* SwiGLU, the embedding's rows, and rows gathered or scattered by index. */
#include "ops/oprow.h"
#include "ops/guarded.h"

#ifndef VKM_TWIN64
void vkm_op_swiglu_fwd(vkm_stream *s, const vkm_args_swiglu_fwd *a) {
    vkm_args_swiglu_fwd b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_cols, out = vkm_op_size(a->n_rows, a->n_cols);
    if (!n) return;
    b.gate = vkm_need(a->gate, n, "swiglu_fwd", "gate");
    b.up = vkm_need(a->up, n, "swiglu_fwd", "up");
    b.y = vkm_need(a->y, out, "swiglu_fwd", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_swiglu_fwd], &b,
                      vkm_launch_flat(out / 2, 64, 150.0 * (double)out));
}

void vkm_op_swiglu_bwd(vkm_stream *s, const vkm_args_swiglu_bwd *a) {
    vkm_args_swiglu_bwd b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_cols, out = vkm_op_size(a->n_rows, a->n_cols);
    if (!n) return;
    b.gate = vkm_need(a->gate, n, "swiglu_bwd", "gate");
    b.up = vkm_need(a->up, n, "swiglu_bwd", "up");
    b.dy = vkm_need(a->dy, n, "swiglu_bwd", "dy");
    b.dgate = vkm_need(a->dgate, out, "swiglu_bwd", "dgate");
    b.dup = vkm_need(a->dup, out, "swiglu_bwd", "dup");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_swiglu_bwd], &b,
                      vkm_launch_flat(out / 2, 64, 180.0 * (double)out));
}

void vkm_op_embed_fwd(vkm_stream *s, const vkm_args_embed_fwd *a) {
    vkm_args_embed_fwd b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_cols;
    if (!n) return;
    b.table = vkm_need(a->table, vkm_op_size(a->n_vocab, a->n_cols), "embed_fwd", "table");
    b.tokens = vkm_need(a->tokens, a->n_rows, "embed_fwd", "tokens");
    b.x = vkm_need(a->x, n, "embed_fwd", "x");
    uint64_t units = (uint64_t)a->n_rows * vkm_div_up(a->n_cols, 2);
    vkm_stream_launch(s, &vkm_kernels[VKM_K_embed_fwd], &b,
                      vkm_launch_flat(units, 64, 24.0 * (double)n));
}

void vkm_op_embed_bwd(vkm_stream *s, const vkm_args_embed_bwd *a) {
    vkm_args_embed_bwd b = *a;
    if (!a->n_ids || !a->n_cols) return;
    b.ids = vkm_need(a->ids, 3ull * a->n_ids, "embed_bwd", "ids");
    b.grad = vkm_need(a->grad, (uint64_t)a->n_vocab * a->n_cols, "embed_bwd", "grad");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_embed_bwd], &b,
                      vkm_launch_flat((uint64_t)a->n_ids * a->n_cols, 64, 30.0 * (double)a->dx.n));
}

void vkm_op_gather_rows(vkm_stream *s, const vkm_args_gather_rows *a) {
    vkm_args_gather_rows b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_cols;
    if (!n) return;
    b.rows = vkm_need(a->rows, a->n_rows, "gather_rows", "rows");
    b.y = vkm_need(a->y, n, "gather_rows", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_gather_rows], &b,
                      vkm_launch_flat(n, 64, 40.0 * (double)n));
}

void vkm_op_scatter_rows(vkm_stream *s, const vkm_args_scatter_rows *a) {
    vkm_args_scatter_rows b = *a;
    uint64_t n = (uint64_t)a->n_rows * a->n_cols;
    if (!n) return;
    b.x = vkm_need(a->x, n, "scatter_rows", "x");
    b.rows = vkm_need(a->rows, a->n_rows, "scatter_rows", "rows");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_scatter_rows], &b,
                      vkm_launch_flat(n, 64, 40.0 * (double)n));
}
#endif

VKM_REF(swiglu_fwd) {
    const real *gate = ref_f32(a->gate), *up = ref_f32(a->up); /* (T,F) */
    bf16 *y = ref_bf16(a->y);                                  /* operand (T,F) */
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS)) {
        uint64_t row = panel * VKM_OP_ROWS;
        uint32_t n = a->n_cols, live = vkm_op_rows_live(row, a->n_rows);
        for (uint32_t k = 0; k < n; k += VKM_ROW_CHUNK) {
            vkm_op_rows v;
            uint32_t m = n - k < VKM_ROW_CHUNK ? n - k : VKM_ROW_CHUNK;
            for (uint32_t r = 0; r < live; r++) {
                const real *g = gate + (row + r) * n + k, *u = up + (row + r) * n + k;
                for (uint32_t j = 0; j < m; j++) v[r][j] = vkm_silu(g[j]) * u[j];
            }
            vkm_op_rows_store(y, row, k, v, live, m, kp);
        }
        vkm_op_rows_end(y, row, n, kp);
    }
}

VKM_REF(swiglu_bwd) {
    const real *gate = ref_f32(a->gate), *up = ref_f32(a->up), *dy = ref_f32(a->dy); /* (T,F) */
    bf16 *dgate = ref_bf16(a->dgate), *dup = ref_bf16(a->dup); /* operands (T,F) */
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS)) {
        uint64_t row = panel * VKM_OP_ROWS;
        uint32_t n = a->n_cols, live = vkm_op_rows_live(row, a->n_rows);
        for (uint32_t k = 0; k < n; k += VKM_ROW_CHUNK) {
            vkm_op_rows vg, vu;
            uint32_t m = n - k < VKM_ROW_CHUNK ? n - k : VKM_ROW_CHUNK;
            for (uint32_t r = 0; r < live; r++) {
                uint64_t at = (row + r) * n + k;
                for (uint32_t j = 0; j < m; j++) {
                    real g = gate[at + j], s = vkm_sigmoid(g);
                    vu[r][j] = dy[at + j] * vkm_silu_of(g, s);
                    vg[r][j] = dy[at + j] * up[at + j] * (((1 - s) * g + 1) * s); /* silu'(g) */
                }
            }
            vkm_op_rows_store(dgate, row, k, vg, live, m, kp);
            vkm_op_rows_store(dup, row, k, vu, live, m, kp);
        }
        vkm_op_rows_end(dgate, row, n, kp);
        vkm_op_rows_end(dup, row, n, kp);
    }
}

VKM_REF(embed_fwd) {
    const bf16 *table = ref_bf16(a->table);      /* operand (V,C) */
    const uint32_t *tokens = ref_u32(a->tokens); /* (T) */
    real *x = ref_f32(a->x);                     /* (T,C) */
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(row, a->n_rows) {
        uint32_t token = tokens[row] < a->n_vocab ? tokens[row] : a->n_vocab - 1;
        for (uint32_t c = 0; c < a->n_cols; c++)
            x[row * a->n_cols + c] = canon(ldb(table[vkm_op_index(token, c, kp)]));
    }
}

VKM_REF(embed_bwd) {
    const real *dx = ref_f32(a->dx);       /* (T,C) */
    const uint32_t *ids = ref_u32(a->ids); /* (n_ids,3): token, first of its rows, rows; distinct */
    const uint32_t *rows = ref_u32(a->rows); /* of each token, ascending */
    real *grad = ref_f32(a->grad);           /* (V,C) */
    FOR_PART(i, a->n_ids) {
        const uint32_t *id = ids + 3 * i;
        uint32_t token = id[0] < a->n_vocab ? id[0] : a->n_vocab - 1;
        real *sum = grad + (uint64_t)token * a->n_cols;
        for (uint32_t j = 0; j < id[2]; j++) {
            const real *row = dx + (uint64_t)rows[id[1] + j] * a->n_cols;
            for (uint32_t c = 0; c < a->n_cols; c++) sum[c] = addc(sum[c], row[c]);
        }
    }
}

VKM_REF(gather_rows) {
    const real *x = ref_f32(a->x);
    const uint32_t *rows = ref_u32(a->rows);
    real *y = ref_f32(a->y);
    FOR_PART(row, a->n_rows)
    for (uint32_t c = 0; c < a->n_cols; c++)
        y[row * a->n_cols + c] = canon(x[(uint64_t)rows[row] * a->n_cols + c]);
}

VKM_REF(scatter_rows) {
    const real *x = ref_f32(a->x);
    const uint32_t *rows = ref_u32(a->rows);
    real *y = ref_f32(a->y);
    FOR_PART(row, a->n_rows)
    for (uint32_t c = 0; c < a->n_cols; c++)
        y[(uint64_t)rows[row] * a->n_cols + c] = canon(x[row * a->n_cols + c]);
}
