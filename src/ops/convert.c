/* Storage formats: conversions between fp32, row-major bf16 and operand panels. */
#include "ops/oprow.h"

#ifndef VKM_TWIN64
void vkm_op_pack_f32(vkm_stream *s, const vkm_args_pack_f32 *a) {
    vkm_args_pack_f32 b = *a;
    uint64_t out = vkm_op_size(a->n_rows, a->n_cols);
    if (!out) return;
    VKM_BUG_ON(a->ldx < a->n_cols, "pack_f32: ldx %u for %u columns", a->ldx, a->n_cols);
    b.x = vkm_need(a->x, (uint64_t)(a->n_rows - 1) * a->ldx + a->n_cols, "pack_f32", "x");
    b.y = vkm_need(a->y, out, "pack_f32", "y");
    vkm_launch how = vkm_launch_flat(out / 16, 64, 30.0 * (double)out);
    how.spec[1] = b.x.addr % 16 == 0 && a->ldx % 4 == 0 && a->n_cols % 4 == 0; /* QUADS */
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pack_f32], &b, how);
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

void vkm_op_pack_transpose_rows(vkm_stream *s, const vkm_args_pack_transpose_rows *a) {
    vkm_args_pack_transpose_rows b = *a;
    uint64_t out = vkm_op_size(a->n_cols, a->n_out);
    if (!out) return;
    b.x = vkm_need(a->x, vkm_op_size(a->n_rows, a->n_cols), "pack_transpose_rows", "x");
    b.map = vkm_need(a->map, a->n_out, "pack_transpose_rows", "map");
    b.y = vkm_need(a->y, out, "pack_transpose_rows", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pack_transpose_rows], &b,
                      vkm_launch_flat(out / 4, 64, 20.0 * (double)out));
}

void vkm_op_round_bf16(vkm_stream *s, const vkm_args_round_bf16 *a) {
    vkm_args_round_bf16 b = *a;
    b.x = vkm_need(a->x, a->n, "round_bf16", "x");
    b.y = vkm_need(a->y, a->n, "round_bf16", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_round_bf16], &b,
                      vkm_launch_flat(a->n, 64, 30.0 * a->n));
}

void vkm_op_zero(vkm_stream *s, const vkm_args_zero *a) {
    vkm_args_zero b = *a;
    b.y = vkm_need(a->y, a->n, "zero", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_zero], &b, vkm_launch_flat(a->n, 64, 4.0 * a->n));
}
#endif

VKM_REF(pack_f32) {
    const real *x = ref_f32(a->x); /* (n_rows, ldx) */
    bf16 *y = ref_bf16(a->y);
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS)) {
        uint64_t row = panel * VKM_OP_ROWS;
        uint32_t live = vkm_op_rows_live(row, a->n_rows);
        for (uint32_t k = 0; k < a->n_cols; k += VKM_ROW_CHUNK) {
            vkm_op_rows v;
            uint32_t n = a->n_cols - k < VKM_ROW_CHUNK ? a->n_cols - k : VKM_ROW_CHUNK;
            for (uint32_t r = 0; r < live; r++)
                memcpy(v[r], x + (row + r) * a->ldx + k, n * sizeof v[r][0]);
            vkm_op_rows_store(y, row, k, v, live, n, kp);
        }
        vkm_op_rows_end(y, row, a->n_cols, kp);
    }
}

/* 16 rows by up to 16 columns of x as 16 columns of y: eight lines of 16 words each way. live:
 * which rows count; the rest become 0, as do columns from n_cols on. */
static inline void transpose_block(const bf16 *x, uint32_t n_words, uint32_t n_cols,
                                   const int *live, bf16 *y, uint32_t n_out_words) {
    bf16 block[16][16];
    memset(block, 0, sizeof block);
    for (uint32_t w = 0; w < n_words; w++)
        for (uint32_t r = 0; r < 16; r++) {
            block[2 * w][r] = live[r] ? x[w * 32 + 2 * r] : 0;
            block[2 * w + 1][r] = live[r] ? x[w * 32 + 2 * r + 1] : 0;
        }
    for (uint32_t c = n_cols; c < 16; c++) memset(block[c], 0, sizeof block[c]);
    for (uint32_t w = 0; w < n_out_words; w++)
        for (uint32_t c = 0; c < 16; c++)
            memcpy(y + w * 32 + 2ull * c, &block[c][2 * w], 2 * sizeof(bf16));
}

/* The words of a pair of columns in rows r and r + 1 become those of a pair of rows in two columns:
 * of four elements the middle ones change places. */
static inline void transpose_words(const bf16 *x, bf16 *y) {
#ifdef VKM_TWIN64
    y[0] = x[0], y[1] = x[2], y[2] = x[1], y[3] = x[3];
#else
    uint64_t v;
    memcpy(&v, x, sizeof v);
    v = (v & 0xffff00000000ffffull) | (v >> 16 & 0xffff0000ull) | (v & 0xffff0000ull) << 16;
    memcpy(y, &v, sizeof v);
#endif
}

/* transpose_block where all 16 rows and columns count. */
static inline void transpose_whole(const bf16 *x, bf16 *y) {
    for (uint32_t r2 = 0; r2 < 8; r2++)
        for (uint32_t c2 = 0; c2 < 8; c2++)
            transpose_words(x + c2 * 32 + 4ull * r2, y + r2 * 32 + 4ull * c2);
}

VKM_REF(pack_transpose) {
    const bf16 *x = ref_bf16(a->x); /* operand (n_rows, n_cols) */
    const uint32_t *row_seq = ref_u32(a->row_seq);
    bf16 *y = ref_bf16(a->y); /* operand (n_cols, n_rows) */
    uint32_t kpx = vkm_op_kp(a->n_cols), kpy = vkm_op_kp(a->n_rows);
    FOR_PART(panel, vkm_round_up(a->n_cols, 16) / 16) {
        uint32_t c = (uint32_t)panel * 16, n_words = kpx - c < 16 ? (kpx - c) / 2 : 8;
        for (uint32_t r = 0; r < kpy; r += 16) {
            int live[16], n_live = 0;
            for (uint32_t i = 0; i < 16; i++)
                n_live += live[i] =
                    r + i < a->n_rows && !(a->has_seq && row_seq[r + i] == 0xffffffffu);
            const bf16 *from = x + vkm_op_index(r, c, kpx);
            bf16 *to = y + vkm_op_index(c, r, kpy);
            if (n_live == 16 && c + 16 <= a->n_cols)
                transpose_whole(from, to);
            else
                transpose_block(from, n_words, a->n_cols - c, live, to,
                                kpy - r < 16 ? (kpy - r) / 2 : 8);
        }
    }
}

/* Rows at or past n_rows count as absent too. */
VKM_REF(pack_transpose_rows) {
    const bf16 *x = ref_bf16(a->x);        /* operand (n_rows, n_cols) */
    const uint32_t *map = ref_u32(a->map); /* (n_out) */
    bf16 *y = ref_bf16(a->y);              /* operand (n_cols, n_out) */
    uint32_t kpx = vkm_op_kp(a->n_cols), kpy = vkm_op_kp(a->n_out);
    FOR_PART(panel, vkm_round_up(a->n_cols, 16) / 16) {
        for (uint32_t j = 0; j < kpy; j++) {
            uint32_t r = j < a->n_out ? map[j] : 0xffffffffu;
            for (uint32_t c = (uint32_t)panel * 16; c < (uint32_t)panel * 16 + 16; c++)
                y[vkm_op_index(c, j, kpy)] =
                    r < a->n_rows && c < a->n_cols ? x[vkm_op_index(r, c, kpx)] : 0;
        }
    }
}

VKM_REF(round_bf16) {
    const real *x = ref_f32(a->x);
    real *y = ref_f32(a->y);
    FOR_PART(i, a->n) y[i] = ldb(stb(x[i]));
}

VKM_REF(zero) {
    real *y = ref_f32(a->y);
    FOR_PART(i, a->n) y[i] = 0;
}
