#include "verify/verify.h"

/* Rows, experts, rank. */
static const uint32_t shapes[][3] = {
    {1, 1, 1}, {16, 1, 4}, {63, 2, 5}, {64, 2, 8}, {65, 1, 16}, {127, 2, 32}, {48, 3, 7},
};

static vkm_tensor rows_of(vkm_verify *v, uint32_t m) {
    vkm_tensor t = vkm_v_u32(v, m, 4);
    uint32_t *seq = (uint32_t *)(uintptr_t)t.addr;
    for (uint32_t i = 0; i < m; i++)
        if (seq[i] == 3) seq[i] = 0xffffffffu;
    return t;
}

static uint32_t columns(uint32_t n_experts, uint32_t rank) {
    return n_experts * 2 * (uint32_t)vkm_round_up(rank, 4);
}

VKM_CASES(lora_mid_fwd) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        uint32_t n_rows = shapes[i][0], n_experts = shapes[i][1], rank = shapes[i][2];
        uint32_t er = n_experts * rank;
        vkm_args_lora_mid_fwd a = {.n_rows = n_rows,
                                   .ldt = 2 * er * (1 + n_rows % 3) + n_rows % 2,
                                   .n_experts = n_experts,
                                   .rank = rank,
                                   .has_h = i != 3 && i != 5,
                                   .has_ht = i != 4 && i != 5};
        a.t = vkm_v_f32(v, (uint64_t)n_rows * a.ldt, i % 2 ? VKM_FILL_NORMAL : VKM_FILL_WIDE);
        a.row_seq = rows_of(v, n_rows);
        a.uh = vkm_v_op16_out(v, n_rows, columns(n_experts, rank));
        a.h = vkm_v_f32_out(v, (uint64_t)n_rows * er);
        a.ht = vkm_v_op16_out(v, er, n_rows);
        VKM_V_RUN(v, lora_mid_fwd, &a);
    }
}

VKM_CASES(lora_mid_bwd) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        uint32_t n_rows = shapes[i][0], n_experts = shapes[i][1], rank = shapes[i][2];
        uint32_t er = n_experts * rank;
        vkm_args_lora_mid_bwd a = {.n_rows = n_rows, .n_experts = n_experts, .rank = rank};
        a.t = vkm_v_f32(v, 2ull * n_rows * er, i % 2 ? VKM_FILL_NORMAL : VKM_FILL_WIDE);
        a.uh = vkm_v_op16(v, n_rows, columns(n_experts, rank), VKM_FILL_ADVERSARIAL);
        a.row_seq = rows_of(v, n_rows);
        a.pz = vkm_v_op16_out(v, n_rows, columns(n_experts, rank));
        a.pt = vkm_v_op16_out(v, er, n_rows);
        a.df = vkm_v_f32_out(v, (uint64_t)n_rows * n_experts);
        VKM_V_RUN(v, lora_mid_bwd, &a);
    }
}

/* A stack alone, and the second and last of three. */
VKM_CASES(lora_pack) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++)
        for (uint32_t place = 0; place < 3; place++) {
            uint32_t n_cols = shapes[i][0], n_rows = shapes[i][1] * shapes[i][2];
            uint32_t end = 2 * n_rows * (place + 1);
            vkm_args_lora_pack a = {.row0 = 2 * n_rows * place, .n_rows = n_rows, .n_cols = n_cols};
            if (place != 1) a.n_pads = (uint32_t)vkm_round_up(end, 16) - end;
            a.p0 = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_ADVERSARIAL);
            a.p1 = vkm_v_f32(v, (uint64_t)n_rows * n_cols, VKM_FILL_SPECIAL);
            a.y = vkm_v_op16_out(v, end, n_cols);
            VKM_V_RUN(v, lora_pack, &a);
        }
}

VKM_CASES(lora_pack_t) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        uint32_t n_cols = shapes[i][0], n_experts = shapes[i][1], rank = shapes[i][2];
        vkm_args_lora_pack_t a = {.n_cols = n_cols, .n_experts = n_experts, .rank = rank};
        a.p0 = vkm_v_f32(v, (uint64_t)n_experts * rank * n_cols, VKM_FILL_ADVERSARIAL);
        a.p1 = vkm_v_f32(v, (uint64_t)n_experts * rank * n_cols, VKM_FILL_SPECIAL);
        a.y = vkm_v_op16_out(v, n_cols, columns(n_experts, rank));
        VKM_V_RUN(v, lora_pack_t, &a);
    }
}

/* row0, length, first completion row, completion length. */
static const uint32_t seqs[][4] = {
    {0, 1, 0, 1}, {16, 63, 3, 60}, {80, 0, 0, 0}, {80, 300, 172, 128}};
enum { SEQ_ROWS = 380 };

VKM_CASES(seq_sum) {
    FOR_SIZES(n_cols, 1, 2, 63, 64, 65) {
        vkm_args_seq_sum a = {.n_seq = VKM_COUNTOF(seqs), .n_cols = n_cols};
        a.x = vkm_v_f32(v, (uint64_t)SEQ_ROWS * n_cols, VKM_FILL_NORMAL);
        a.seqs = vkm_v_u32_data(v, seqs[0], 4ull * a.n_seq);
        a.acc = vkm_v_f32(v, (uint64_t)a.n_seq * n_cols, VKM_FILL_NORMAL);
        VKM_V_RUN(v, seq_sum, &a);
    }
}

VKM_CASES(rank_grad) {
    FOR_SIZES(rank, 1, 5, 16, 32) {
        vkm_args_rank_grad a = {.n_rows = SEQ_ROWS,
                                .n_seq = VKM_COUNTOF(seqs),
                                .n_experts = 1 + rank % 2,
                                .rank = rank,
                                .module = rank % 3,
                                .n_modules = 3};
        uint64_t stack = 2ull * a.n_experts * rank;
        uint32_t k = a.n_experts * 2 * (uint32_t)vkm_round_up(rank, 4);
        a.t = vkm_v_f32(v, SEQ_ROWS * stack, rank % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.uh = vkm_v_op16(v, SEQ_ROWS, k, VKM_FILL_NORMAL);
        a.seqs = vkm_v_u32_data(v, seqs[0], 4ull * a.n_seq);
        a.pooled = vkm_v_f32_out(v, (uint64_t)a.n_seq * a.n_modules * rank);
        VKM_V_RUN(v, rank_grad, &a);
    }
}

VKM_CASES(pool_fwd) {
    FOR_SIZES(rank, 1, 5, 16, 32) {
        vkm_args_pool_fwd a = {.n_seq = VKM_COUNTOF(seqs), .rank = rank, .n_modules = 3};
        a.ldh = rank * (1 + rank % 2);
        a.module = rank % 3;
        a.h = vkm_v_f32(v, (uint64_t)SEQ_ROWS * a.ldh, VKM_FILL_NORMAL);
        a.seqs = vkm_v_u32_data(v, seqs[0], 4ull * a.n_seq);
        a.pooled = vkm_v_f32_out(v, (uint64_t)a.n_seq * a.n_modules * rank);
        VKM_V_RUN(v, pool_fwd, &a);
    }
}
