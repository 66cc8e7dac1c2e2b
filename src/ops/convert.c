/* Storage formats: conversions between fp32, row-major bf16 and operand panels. */
#include "ops/oprow.h"

#ifndef VKM_TWIN64
void vkm_op_f32_to_bf16(vkm_stream *s, const vkm_args_f32_to_bf16 *a) {
    vkm_args_f32_to_bf16 b = *a;
    if (!a->n_words) return;
    b.x = vkm_need(a->x, 2ull * a->n_words, "f32_to_bf16", "x");
    b.y = vkm_need(a->y, 2ull * a->n_words, "f32_to_bf16", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_f32_to_bf16], &b,
                      vkm_launch_flat(a->n_words, 64, 50.0 * a->n_words));
}

void vkm_op_pack_f32(vkm_stream *s, const vkm_args_pack_f32 *a) {
    vkm_args_pack_f32 b = *a;
    uint64_t out = vkm_op_size(a->n_rows, a->n_cols);
    if (!out) return;
    VKM_BUG_ON(a->ldx < a->n_cols, "pack_f32: ldx %u for %u columns", a->ldx, a->n_cols);
    b.x = vkm_need(a->x, (uint64_t)(a->n_rows - 1) * a->ldx + a->n_cols, "pack_f32", "x");
    b.y = vkm_need(a->y, out, "pack_f32", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pack_f32], &b,
                      vkm_launch_flat(out / 2, 64, 30.0 * (double)out));
}

void vkm_op_pack_transpose(vkm_stream *s, const vkm_args_pack_transpose *a) {
    vkm_args_pack_transpose b = *a;
    uint64_t in = vkm_op_size(a->n_rows, a->n_cols), out = vkm_op_size(a->n_cols, a->n_rows);
    if (!out) return;
    b.x = vkm_need(a->x, in, "pack_transpose", "x");
    b.row_seq = vkm_need(a->row_seq, a->has_seq ? a->n_rows : 1, "pack_transpose", "row_seq");
    b.y = vkm_need(a->y, out, "pack_transpose", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pack_transpose], &b,
                      vkm_launch_flat(out / 4, 64, 20.0 * (double)out));
}

void vkm_op_zero(vkm_stream *s, const vkm_args_zero *a) {
    vkm_args_zero b = *a;
    b.y = vkm_need(a->y, a->n, "zero", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_zero], &b, vkm_launch_flat(a->n, 64, 4.0 * a->n));
}
#endif

VKM_REF(f32_to_bf16) {
    const real *x = ref_f32(a->x);
    bf16 *y = ref_bf16(a->y);
    FOR_PART(i, 2ull * a->n_words) y[i] = stb(x[i]);
}

VKM_REF(pack_f32) {
    const real *x = ref_f32(a->x); /* (n_rows, ldx) */
    bf16 *y = ref_bf16(a->y);
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(row, vkm_round_up(a->n_rows, 16)) {
        uint32_t n = row < a->n_rows ? a->n_cols : 0;
        vkm_oprow_store(y, row, 0, x + (n ? row * a->ldx : 0), n, kp);
        vkm_oprow_zero(y, row, n, kp, kp);
    }
}

VKM_REF(pack_transpose) {
    const bf16 *x = ref_bf16(a->x); /* operand (n_rows, n_cols) */
    const uint32_t *row_seq = ref_u32(a->row_seq);
    bf16 *y = ref_bf16(a->y); /* operand (n_cols, n_rows) */
    uint32_t kpx = vkm_op_kp(a->n_cols), kpy = vkm_op_kp(a->n_rows);
    FOR_PART(panel, vkm_round_up(a->n_cols, 16) / 16) {
        for (uint32_t r = 0; r < kpy; r++) {
            int live = r < a->n_rows && !(a->has_seq && row_seq[r] == 0xffffffffu);
            for (uint32_t c = (uint32_t)panel * 16; c < (uint32_t)panel * 16 + 16; c++)
                y[vkm_op_index(c, r, kpy)] = live && c < a->n_cols ? x[vkm_op_index(r, c, kpx)] : 0;
        }
    }
}

VKM_REF(zero) {
    real *y = ref_f32(a->y);
    FOR_PART(i, a->n) y[i] = 0;
}
