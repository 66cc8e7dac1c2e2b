#include "verify/verify.h"

/* Sizes of the model's products: odd ones, chunks of K that end anywhere, decode rows. */
static const uint32_t shapes[][3] = {
    {1, 1, 8},      {1, 64, 64},    {63, 65, 64},  {64, 63, 256},  {65, 127, 264},
    {127, 64, 248}, {16, 130, 520}, {8, 512, 128}, {33, 48, 1032}, {96, 96, 96},
};

VKM_CASES(gemm) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        vkm_args_gemm a = {.m = shapes[i][0], .n = shapes[i][1], .k = shapes[i][2]};
        a.kpa = a.k + 8 * (i % 3);
        a.kpb = a.k + 16 * (i % 2);
        a.ldc = a.n + (uint32_t)(i % 4);
        vkm_fill fill = i % 2 ? VKM_FILL_ADVERSARIAL : VKM_FILL_NORMAL;
        a.a = vkm_v_op16(v, a.m, a.kpa, fill);
        a.b = vkm_v_op16(v, a.n, a.kpb, fill);
        a.k_part = i % 3 ? 0 : 256 * (1 + (uint32_t)i / 6);
        uint32_t parts = a.k_part ? (a.k + a.k_part - 1) / a.k_part : 1;
        a.c = vkm_v_f32_out(v, ((uint64_t)parts * a.m - 1) * a.ldc + a.n);
        VKM_V_RUN(v, gemm, &a);
    }
    /* K of a whole vocabulary, as in the gradient of the logits */
    vkm_args_gemm a = {.m = 1, .n = 2, .k = 151936, .kpa = 151936, .kpb = 151936, .ldc = 2};
    a.a = vkm_v_op16(v, a.m, a.k, VKM_FILL_NORMAL);
    a.b = vkm_v_op16(v, a.n, a.k, VKM_FILL_NORMAL);
    a.c = vkm_v_f32_out(v, 2);
    VKM_V_RUN(v, gemm, &a);
}

/* Two sequences, padding rows among them. */
static vkm_tensor rows_of(vkm_verify *v, uint32_t m) {
    vkm_tensor t = vkm_v_u32(v, m, 3);
    uint32_t *seq = (uint32_t *)(uintptr_t)t.addr;
    for (uint32_t i = 0; i < m; i++)
        if (seq[i] == 2) seq[i] = 0xffffffffu;
    return t;
}

VKM_CASES(linear) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        vkm_args_linear a = {.m = shapes[i][0], .n = shapes[i][1], .k = shapes[i][2]};
        a.n_experts = (uint32_t)(i % 3);
        a.kper = i % 2 ? 8 : 264;
        a.kpa2 = a.n_experts * a.kper + 8 * (i % 4);
        a.has_res = (uint32_t)(i % 5) % 3;
        uint32_t k2 = a.n_experts ? a.n_experts * a.kper : 8;
        a.a = vkm_v_op16(v, a.m, a.k, VKM_FILL_NORMAL);
        a.b = vkm_v_op16(v, a.n, a.k, VKM_FILL_ADVERSARIAL);
        a.a2 = vkm_v_op16(v, a.m, a.kpa2 ? a.kpa2 : 8, VKM_FILL_ADVERSARIAL);
        a.b2 = vkm_v_op16(v, a.n, k2, VKM_FILL_NORMAL);
        a.scale = vkm_v_f32(v, 4, i % 2 ? VKM_FILL_WIDE : VKM_FILL_POSITIVE);
        a.row_seq = rows_of(v, a.m);
        a.res = vkm_v_f32(v, a.has_res == 2 ? a.n : (uint64_t)a.m * a.n, VKM_FILL_NORMAL);
        a.n_parts = i % 4 == 3 ? (uint32_t)i : 0;
        if (a.n_parts) a.k = 0;
        a.parts = vkm_v_f32(v, (a.n_parts ? a.n_parts : 1ull) * a.m * a.n, VKM_FILL_NORMAL);
        a.c = vkm_v_f32_out(v, (uint64_t)a.m * a.n);
        VKM_V_RUN(v, linear, &a);
    }
}

VKM_CASES(linear_bf16) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        vkm_args_linear_bf16 a = {.m = shapes[i][0], .n = shapes[i][1] + shapes[i][1] % 2};
        a.k = shapes[i][2];
        a.n_experts = (uint32_t)(i % 3);
        a.kper = 24;
        a.kpa2 = a.n_experts * a.kper + 8 * (i % 4);
        uint32_t k2 = a.n_experts ? a.n_experts * a.kper : 8;
        a.a = vkm_v_op16(v, a.m, a.k, VKM_FILL_NORMAL);
        a.b = vkm_v_op16(v, a.n, a.k, VKM_FILL_NORMAL);
        a.a2 = vkm_v_op16(v, a.m, a.kpa2 ? a.kpa2 : 8, VKM_FILL_SMALL);
        a.b2 = vkm_v_op16(v, a.n, k2, VKM_FILL_NORMAL);
        a.scale = vkm_v_f32(v, 4, VKM_FILL_POSITIVE);
        a.row_seq = rows_of(v, a.m);
        a.has_bias = i % 3 == 1;
        a.has_rows = i % 2;
        a.bias = vkm_v_f32(v, a.n, VKM_FILL_NORMAL);
        a.rows = vkm_v_u32_distinct(v, a.m, 3 * a.m);
        a.n_parts = i % 4 == 2 ? 1 + (uint32_t)i : 0;
        if (a.n_parts) a.k = 0;
        a.parts = vkm_v_f32(v, (a.n_parts ? a.n_parts : 1ull) * a.m * a.n, VKM_FILL_NORMAL);
        a.c = vkm_v_bf16_out(v, (a.has_rows ? 3ull : 1) * a.m * a.n);
        VKM_V_RUN(v, linear_bf16, &a);
    }
}

VKM_CASES(lora_down) {
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        vkm_args_lora_down a = {.m = shapes[i][0], .n = vkm_op_kp(shapes[i][1]), .k = shapes[i][2]};
        a.has_h = i % 3 != 0;
        a.a = vkm_v_op16(v, a.m, a.k, i % 2 ? VKM_FILL_ADVERSARIAL : VKM_FILL_NORMAL);
        a.b = vkm_v_op16(v, a.n, a.k, VKM_FILL_NORMAL);
        a.uh = vkm_v_op16_out(v, a.m, a.n);
        a.h = vkm_v_f32_out(v, a.has_h ? (uint64_t)a.m * a.n / 2 : 1);
        VKM_V_RUN(v, lora_down, &a);
    }
}

VKM_CASES(gemm_seg) {
    /* row0 is a multiple of 16; the rows after a sequence up to one are zero operand columns */
    static const uint32_t seqs[][4] = {
        {0, 1, 0, 0}, {16, 63, 0, 0}, {80, 0, 0, 0}, {80, 300, 0, 0}};
    enum { ROWS = 384 };
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++) {
        vkm_args_gemm_seg a = {.m = shapes[i][0], .n = shapes[i][1], .kpa = ROWS, .kpb = ROWS};
        a.n_seq = (uint32_t)(1 + i % VKM_COUNTOF(seqs));
        a.scale_stride = i % 3 ? 2 : 0;
        a.rows_per_scale = (a.m + 1) / 2;
        a.a = vkm_v_op16(v, a.m, ROWS, VKM_FILL_NORMAL);
        a.b = vkm_v_op16(v, a.n, ROWS, VKM_FILL_ADVERSARIAL);
        a.seqs = vkm_v_u32_data(v, seqs[0], 4ull * VKM_COUNTOF(seqs));
        a.scale = vkm_v_f32(v, 2 * VKM_COUNTOF(seqs), VKM_FILL_POSITIVE);
        a.c = vkm_v_f32(v, (uint64_t)a.m * a.n, VKM_FILL_NORMAL);
        VKM_V_RUN(v, gemm_seg, &a);
    }
}
