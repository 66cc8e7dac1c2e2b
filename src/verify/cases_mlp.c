#include "verify/verify.h"

VKM_CASES(swiglu_fwd) {
    FOR_SIZES(n_rows, 1, 16, 33) {
        FOR_SIZES(n_cols, 1, 2, 63, 64, 127, 768) {
            vkm_args_swiglu_fwd a = {.n_rows = n_rows, .n_cols = n_cols};
            a.gate = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_ADVERSARIAL);
            a.up = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_ADVERSARIAL);
            a.y = vkm_v_op16_out(v, n_rows, n_cols);
            VKM_V_RUN(v, swiglu_fwd, &a);
        }
    }
}

VKM_CASES(swiglu_bwd) {
    FOR_SIZES(n_rows, 1, 16, 33) {
        FOR_SIZES(n_cols, 1, 2, 63, 64, 127, 768) {
            vkm_args_swiglu_bwd a = {.n_rows = n_rows, .n_cols = n_cols};
            a.gate = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_ADVERSARIAL);
            a.up = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_NORMAL);
            a.dy = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_ADVERSARIAL);
            a.dgate = vkm_v_op16_out(v, n_rows, n_cols);
            a.dup = vkm_v_op16_out(v, n_rows, n_cols);
            VKM_V_RUN(v, swiglu_bwd, &a);
        }
    }
}

VKM_CASES(embed_fwd) {
    FOR_SIZES(n_rows, 1, 63, 65) {
        FOR_SIZES(n_cols, 1, 8, 63, 64) {
            vkm_args_embed_fwd a = {.n_rows = n_rows, .n_cols = n_cols, .n_vocab = 131};
            a.table = vkm_v_op16(v, a.n_vocab, n_cols, VKM_FILL_ADVERSARIAL);
            a.tokens = vkm_v_u32(v, n_rows, a.n_vocab + 9); /* some out of range */
            a.x = vkm_v_f32_out(v, (uint64_t)n_rows * n_cols);
            VKM_V_RUN(v, embed_fwd, &a);
        }
    }
}

VKM_CASES(embed_bwd) {
    /* token, first of its rows, rows; one token without any, one that takes most */
    static const uint32_t ids[][3] = {{7, 0, 1}, {130, 1, 0}, {0, 1, 3}, {64, 4, 61}};
    FOR_SIZES(n_ids, 1, 2, 4) {
        FOR_SIZES(n_cols, 1, 8, 63, 64, 65) {
            vkm_args_embed_bwd a = {.n_ids = n_ids, .n_cols = n_cols, .n_vocab = 131};
            uint32_t rows[65], first = vkm_v_random(v, 65);
            for (uint32_t i = 0; i < 65; i++) rows[i] = (first + 3 * i) % 65; /* any order */
            a.dx = vkm_v_f32(v, 65ull * n_cols, VKM_FILL_ADVERSARIAL);
            a.ids = vkm_v_u32_data(v, ids[0], 3ull * n_ids);
            a.rows = vkm_v_u32_data(v, rows, 65);
            a.grad = vkm_v_f32(v, (uint64_t)a.n_vocab * n_cols, VKM_FILL_NORMAL);
            VKM_V_RUN(v, embed_bwd, &a);
        }
    }
}

VKM_CASES(gather_rows) {
    FOR_SIZES(n_rows, 1, 63, 65) {
        FOR_SIZES(n_cols, 1, 64, 127) {
            vkm_args_gather_rows a = {.n_rows = n_rows, .n_cols = n_cols};
            a.x = vkm_v_f32(v, 50ull * n_cols, VKM_FILL_SPECIAL);
            a.rows = vkm_v_u32(v, n_rows, 50);
            a.y = vkm_v_f32_out(v, (uint64_t)n_rows * n_cols);
            VKM_V_RUN(v, gather_rows, &a);
        }
    }
}

VKM_CASES(scatter_rows) {
    FOR_SIZES(n_rows, 1, 63, 65) {
        FOR_SIZES(n_cols, 1, 64, 127) {
            vkm_args_scatter_rows a = {.n_rows = n_rows, .n_cols = n_cols};
            uint32_t rows[65], first = vkm_v_random(v, 131);
            for (uint32_t i = 0; i < n_rows; i++) rows[i] = (first + 2 * i) % 131; /* distinct */
            a.x = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_SPECIAL);
            a.rows = vkm_v_u32_data(v, rows, n_rows);
            a.y = vkm_v_f32(v, 131ull * n_cols, VKM_FILL_NORMAL);
            VKM_V_RUN(v, scatter_rows, &a);
        }
    }
}
