#include "verify/verify.h"

static const vkm_fill fills[] = {VKM_FILL_NORMAL, VKM_FILL_SMALL, VKM_FILL_WIDE};

VKM_CASES(rmsnorm_fwd) {
    FOR_SIZES(n_rows, 1, 16, 33) {
        FOR_SIZES(n_cols, 1, 63, 64, 65, 127, 1024) {
            vkm_args_rmsnorm_fwd a = {.n_rows = n_rows, .n_cols = n_cols, .eps = 1e-6f};
            a.x = vkm_v_f32(v, (uint64_t)n_rows * n_cols, fills[vkm_v_random(v, 3)]);
            a.gain = vkm_v_f32(v, n_cols, VKM_FILL_NORMAL);
            a.y = vkm_v_op16_out(v, n_rows, n_cols);
            a.rstd = vkm_v_f32_out(v, n_rows);
            VKM_V_RUN(v, rmsnorm_fwd, &a);
        }
    }
}

VKM_CASES(rmsnorm_bwd) {
    FOR_SIZES(n_cols, 1, 63, 64, 65, 127, 1024) {
        FOR_SIZES(accumulate, 0, 1) {
            for (uint32_t i = 0; i < VKM_COUNTOF(fills); i++) {
                uint32_t n_rows = 7;
                uint64_t n = (uint64_t)n_rows * n_cols;
                vkm_args_rmsnorm_bwd a = {
                    .n_rows = n_rows, .n_cols = n_cols, .accumulate = accumulate};
                a.dy = vkm_v_f32(v, n, fills[i]);
                a.x = vkm_v_f32(v, n, fills[i]);
                a.gain = vkm_v_f32(v, n_cols, VKM_FILL_NORMAL);
                a.rstd = vkm_v_f32(v, n_rows, VKM_FILL_POSITIVE);
                a.dx = vkm_v_f32(v, n, fills[i]);
                VKM_V_RUN(v, rmsnorm_bwd, &a);
            }
        }
    }
}

VKM_CASES(headnorm_bwd) {
    FOR_SIZES(head_dim, 2, 16, 64, 128, 250) {
        FOR_SIZES(n_heads, 1, 3) {
            FOR_SIZES(n_rows, 1, 16, 17) {
                vkm_args_headnorm_bwd a = {
                    .n_rows = n_rows, .n_heads = n_heads, .head_dim = head_dim};
                uint64_t units = (uint64_t)n_rows * n_heads;
                vkm_fill fill = fills[vkm_v_random(v, 3)];
                a.dy = vkm_v_f32(v, units * head_dim, fill);
                a.x = vkm_v_f32(v, units * head_dim, fill);
                a.gain = vkm_v_f32(v, head_dim, VKM_FILL_NORMAL);
                a.rstd = vkm_v_f32(v, units, VKM_FILL_POSITIVE);
                a.dx = vkm_v_op16_out(v, n_rows, n_heads * head_dim);
                VKM_V_RUN(v, headnorm_bwd, &a);
            }
        }
    }
}

VKM_CASES(norm_dgain) {
    static const uint32_t blocks[][2] = {{0, 1}, {16, 63}, {80, 0}, {80, 17}, {3, 64}};
    enum { ROWS = 97 };
    FOR_SIZES(head_dim, 1, 16, 63, 64, 65, 127) {
        FOR_SIZES(n_heads, 1, 3) {
            for (uint32_t i = 0; i < VKM_COUNTOF(fills); i++) {
                vkm_args_norm_dgain a = {.n_heads = n_heads, .head_dim = head_dim};
                uint64_t units = (uint64_t)ROWS * n_heads;
                a.n_blocks = 1 + vkm_v_random(v, VKM_COUNTOF(blocks));
                a.dy = vkm_v_f32(v, units * head_dim, fills[i]);
                a.x = vkm_v_f32(v, units * head_dim, fills[i]);
                a.rstd = vkm_v_f32(v, units, VKM_FILL_POSITIVE);
                a.blocks = vkm_v_u32_data(v, blocks[0], 2ull * a.n_blocks);
                a.part = vkm_v_f32_out(v, (uint64_t)a.n_blocks * n_heads * head_dim);
                VKM_V_RUN(v, norm_dgain, &a);
            }
        }
    }
}

VKM_CASES(add_rows) {
    FOR_SIZES(n_rows, 1, 2, 65, 300) {
        FOR_SIZES(n_cols, 1, 63, 64, 127) {
            vkm_args_add_rows a = {.n_rows = n_rows, .n_cols = n_cols};
            a.x = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_ADVERSARIAL);
            a.y = vkm_v_f32(v, n_cols, VKM_FILL_NORMAL);
            VKM_V_RUN(v, add_rows, &a);
        }
    }
    /* more rows than one launch takes */
    vkm_args_add_rows a = {.n_rows = 70000, .n_cols = 2};
    a.x = vkm_v_f32(v, 2ull * a.n_rows, VKM_FILL_NORMAL);
    a.y = vkm_v_f32(v, 2, VKM_FILL_NORMAL);
    VKM_V_RUN(v, add_rows, &a);
}

enum { MAX_POS = 50 };

VKM_CASES(qk_fwd) {
    FOR_SIZES(n_rows, 1, 17, 63, 65)
    FOR_SIZES(head_dim, 4, 16, 64, 128, 252)
    FOR_SIZES(has_norm, 0, 1) {
        vkm_args_qk_fwd a = {.n_rows = n_rows, .n_heads = n_rows == 17 ? 1 : 3, .eps = 1e-6f};
        uint64_t units = (uint64_t)n_rows * a.n_heads;
        a.head_dim = head_dim;
        a.has_norm = has_norm;
        a.x = vkm_v_f32(v, units * head_dim, fills[vkm_v_random(v, 3)]);
        a.gain = vkm_v_f32(v, head_dim, VKM_FILL_NORMAL);
        a.cos = vkm_v_f32(v, MAX_POS * head_dim / 2, VKM_FILL_POSITIVE);
        a.sin = vkm_v_f32(v, MAX_POS * head_dim / 2, VKM_FILL_POSITIVE);
        a.pos = vkm_v_u32(v, n_rows, MAX_POS);
        a.has_rows = head_dim % 64 == 0;
        a.rows = vkm_v_u32_distinct(v, n_rows, 2 * n_rows);
        a.y = vkm_v_bf16_out(v, (1 + a.has_rows) * units * head_dim);
        a.rstd = vkm_v_f32_out(v, units);
        VKM_V_RUN(v, qk_fwd, &a);
    }
}

VKM_CASES(rope_bwd) {
    FOR_SIZES(n_rows, 1, 63, 65) {
        FOR_SIZES(head_dim, 4, 16, 128) {
            vkm_args_rope_bwd a = {.n_rows = n_rows, .n_heads = 3, .head_dim = head_dim};
            uint64_t n = (uint64_t)n_rows * a.n_heads * head_dim;
            a.dy = vkm_v_f32(v, n, fills[vkm_v_random(v, 3)]);
            a.cos = vkm_v_f32(v, MAX_POS * head_dim / 2, VKM_FILL_POSITIVE);
            a.sin = vkm_v_f32(v, MAX_POS * head_dim / 2, VKM_FILL_POSITIVE);
            a.pos = vkm_v_u32(v, n_rows, MAX_POS);
            a.dx = vkm_v_f32_out(v, n);
            VKM_V_RUN(v, rope_bwd, &a);
        }
    }
}
