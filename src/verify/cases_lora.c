#include "ops/lora.h"
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
    return n_experts * vkm_lora_kper(rank);
}

VKM_CASES(lora_mid) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        uint32_t n_rows = shapes[i][0], n_experts = shapes[i][1], rank = shapes[i][2];
        uint32_t er = n_experts * rank, k = columns(n_experts, rank);
        vkm_args_lora_mid a = {.n_rows = n_rows, .n_experts = n_experts, .rank = rank};
        a.kpu = k * (1 + (uint32_t)(i % 3));
        a.t = vkm_v_f32(v, (uint64_t)n_rows * k, i % 2 ? VKM_FILL_NORMAL : VKM_FILL_WIDE);
        a.uh = vkm_v_op16(v, n_rows, a.kpu, VKM_FILL_ADVERSARIAL);
        a.row_seq = rows_of(v, n_rows);
        a.pz = vkm_v_op16_out(v, n_rows, k);
        a.pt = vkm_v_op16_out(v, er, n_rows);
        a.ht = vkm_v_op16_out(v, er, n_rows);
        a.df = vkm_v_f32_out(v, (uint64_t)n_rows * n_experts);
        VKM_V_RUN(v, lora_mid, &a);
    }
}

/* A stack alone, and the second and last of three. */
VKM_CASES(lora_pack) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++)
        for (uint32_t place = 0; place < 3; place++) {
            uint32_t n_cols = shapes[i][0], n_experts = shapes[i][1], rank = shapes[i][2];
            uint32_t stack = columns(n_experts, rank), end = stack * (place + 1);
            vkm_args_lora_pack a = {
                .row0 = stack * place, .n_experts = n_experts, .rank = rank, .n_cols = n_cols};
            if (place != 1) a.n_pads = (uint32_t)vkm_round_up(end, 16) - end;
            a.p0 = vkm_v_f32(v, (uint64_t)n_experts * rank * n_cols, VKM_FILL_ADVERSARIAL);
            a.p1 = vkm_v_f32(v, (uint64_t)n_experts * rank * n_cols, VKM_FILL_SPECIAL);
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
        uint32_t k = columns(a.n_experts, rank);
        a.kpu = k * (1 + rank % 3);
        a.t = vkm_v_f32(v, (uint64_t)SEQ_ROWS * k, rank % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.uh = vkm_v_op16(v, SEQ_ROWS, a.kpu, VKM_FILL_NORMAL);
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
