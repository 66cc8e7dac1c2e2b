#include "verify/verify.h"

VKM_CASES(pack_f32) {
    FOR_SIZES(n_rows, 1, 15, 16, 63, 65) {
        FOR_SIZES(n_cols, 1, 2, 7, 8, 9, 64, 127) {
            FOR_SIZES(gap, 0, 3) {
                vkm_args_pack_f32 a = {.n_rows = n_rows, .n_cols = n_cols, .ldx = n_cols + gap};
                a.x = vkm_v_f32(v, (uint64_t)n_rows * a.ldx, VKM_FILL_SPECIAL);
                a.y = vkm_v_op16_out(v, n_rows, n_cols);
                VKM_V_RUN(v, pack_f32, &a);
            }
        }
    }
}

VKM_CASES(pack_transpose) {
    FOR_SIZES(n_rows, 1, 15, 16, 63, 130) {
        FOR_SIZES(n_cols, 1, 2, 8, 17, 64, 127) {
            FOR_SIZES(has_seq, 0, 1) {
                vkm_args_pack_transpose a = {
                    .n_rows = n_rows, .n_cols = n_cols, .has_seq = has_seq};
                uint32_t row_seq[130];
                for (uint32_t i = 0; i < n_rows; i++)
                    row_seq[i] = vkm_v_random(v, 3) ? vkm_v_random(v, 8) : 0xffffffffu;
                a.x = vkm_v_op16(v, n_rows, n_cols, VKM_FILL_ADVERSARIAL);
                a.row_seq = vkm_v_u32_data(v, row_seq, has_seq ? n_rows : 1);
                a.y = vkm_v_op16_out(v, n_cols, n_rows);
                VKM_V_RUN(v, pack_transpose, &a);
            }
        }
    }
}

VKM_CASES(pack_transpose_rows) {
    FOR_SIZES(n_rows, 1, 16, 33) {
        FOR_SIZES(n_cols, 1, 8, 17, 64, 127) {
            FOR_SIZES(n_out, 1, 15, 16, 130) {
                vkm_args_pack_transpose_rows a = {
                    .n_rows = n_rows, .n_cols = n_cols, .n_out = n_out};
                uint32_t map[130];
                for (uint32_t j = 0; j < n_out; j++)
                    map[j] = vkm_v_random(v, 3) ? vkm_v_random(v, n_rows) : 0xffffffffu;
                a.x = vkm_v_op16(v, n_rows, n_cols, VKM_FILL_ADVERSARIAL);
                a.map = vkm_v_u32_data(v, map, n_out);
                a.y = vkm_v_op16_out(v, n_cols, n_out);
                VKM_V_RUN(v, pack_transpose_rows, &a);
            }
        }
    }
}

VKM_CASES(round_bf16) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099) {
        vkm_args_round_bf16 a = {.n = n};
        a.x = vkm_v_f32(v, n, VKM_FILL_ADVERSARIAL);
        a.y = vkm_v_f32_out(v, n);
        VKM_V_RUN(v, round_bf16, &a);
    }
}

VKM_CASES(zero) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099) {
        vkm_args_zero a = {.n = n};
        a.y = vkm_v_f32_out(v, n);
        VKM_V_RUN(v, zero, &a);
    }
}

VKM_CASES(fma_chains) {
    FOR_SIZES(n, 1, 15, 16, 17, 64, 4099) {
        vkm_args_fma_chains a = {
            .n = n, .steps = n % 7, .factor = n % 2 ? 0.5f : -1.0f, .term = 3.0f};
        a.x = vkm_v_f32(v, n, VKM_FILL_NORMAL);
        a.y = vkm_v_f32_out(v, n);
        VKM_V_RUN(v, fma_chains, &a);
    }
}
