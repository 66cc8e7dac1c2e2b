/* Bench rows of products and attention. */
#include "cli/bench_kit.h"
#include "ops/tiles.h"

/* Sizes of a row: which product (for gemm, linear); rows, 0 for a training batch's; experts or not.
 */
enum { CUBE, HEAD, HEAD_DX, GATE, O, DOWN };
enum { SIZE_PRODUCT, SIZE_ROWS, SIZE_BASE };

typedef struct product {
    uint32_t m, n, k;
} product;

static product product_of(const vkm_kit *k) {
    const vkm_model_config *c = &k->c;
    uint32_t cube = k->row->size[SIZE_ROWS], rows = cube ? cube : k->rows;
    switch (k->row->size[SIZE_PRODUCT]) {
    case CUBE:
        return (product){cube, cube, cube};
    case HEAD:
        return (product){k->decoding, c->V, c->C};
    case HEAD_DX:
        return (product){k->decoding, c->C, c->V};
    case GATE:
        return (product){rows, c->F, c->C};
    case O:
        return (product){rows, c->C, c->H * c->D};
    default:
        return (product){rows, c->C, c->F};
    }
}

/* A decode step's, gate beside up, in the parts that it is made in. */
VKM_BENCH(gemm) {
    product p = product_of(k);
    uint32_t kp = vkm_op_kp(p.k), of = k->row->size[SIZE_PRODUCT], parts = 1;
    *a = (vkm_args_gemm){.m = p.m, .n = p.n, .k = kp, .kpa = kp, .kpb = kp, .ldc = p.n};
    vkm_kit_op16(k, &a->a, p.m, p.k);
    vkm_kit_op16(k, &a->b, p.n, p.k);
    if (of >= GATE) a->k_part = vkm_tile_k_part(k->dev, p.m, p.n * (of == GATE ? 2 : 1), kp);
    if (a->k_part) parts = (kp + a->k_part - 1) / a->k_part;
    vkm_kit_f32(k, &a->c, (uint64_t)parts * p.m * p.n);
    k->flops = 2.0 * p.m * p.n * p.k;
}

/* Module o and down add the residual. */
VKM_BENCH(linear) {
    product p = product_of(k);
    uint32_t experts = k->row->size[SIZE_BASE] ? 0 : k->experts, k2 = experts * k->kper;
    int has_res = k->row->size[SIZE_PRODUCT] != GATE;
    *a = (vkm_args_linear){.m = p.m,
                           .n = p.n,
                           .k = vkm_op_kp(p.k),
                           .kpa2 = k2,
                           .kper = k->kper,
                           .n_experts = experts,
                           .has_res = (uint32_t)has_res};
    vkm_kit_op16(k, &a->a, p.m, p.k);
    vkm_kit_op16(k, &a->b, p.n, p.k);
    vkm_kit_op16(k, &a->a2, p.m, k2 ? k2 : 8);
    vkm_kit_op16(k, &a->b2, p.n, k2 ? k2 : 8);
    vkm_kit_f32(k, &a->scale, (uint64_t)k->n_seq * k->experts);
    vkm_kit_count(k, &a->row_seq, p.m, k->len, k->n_seq);
    vkm_kit_f32(k, &a->res, has_res ? (uint64_t)p.m * p.n : 1);
    vkm_kit_f32(k, &a->c, (uint64_t)p.m * p.n);
    k->flops = 2.0 * p.m * p.n * (p.k + k2);
}

/* Module v. */
VKM_BENCH(linear_bf16) {
    uint32_t n = k->c.K * k->c.D, k2 = k->experts * k->kper;
    *a = (vkm_args_linear_bf16){.m = k->rows,
                                .n = n,
                                .k = vkm_op_kp(k->c.C),
                                .kpa2 = k2,
                                .kper = k->kper,
                                .n_experts = k->experts};
    vkm_kit_op16(k, &a->a, k->rows, k->c.C);
    vkm_kit_op16(k, &a->b, n, k->c.C);
    vkm_kit_op16(k, &a->a2, k->rows, k2);
    vkm_kit_op16(k, &a->b2, n, k2);
    vkm_kit_f32(k, &a->scale, (uint64_t)k->n_seq * k->experts);
    vkm_kit_count(k, &a->row_seq, k->rows, k->len, k->n_seq);
    vkm_kit_f32(k, &a->bias, 1);
    vkm_kit_count(k, &a->rows, 1, 1, 1);
    vkm_kit_bf16(k, &a->c, (uint64_t)k->rows * n);
    k->flops = 2.0 * k->rows * n * (k->c.C + k2);
}

/* Modules q, k and v. */
VKM_BENCH(lora_down) {
    uint32_t n = 3 * k->experts * k->kper, rows = k->row->size[SIZE_ROWS];
    if (!rows) rows = k->rows;
    *a = (vkm_args_lora_down){.m = rows, .n = n, .k = vkm_op_kp(k->c.C)};
    vkm_kit_op16(k, &a->a, rows, k->c.C);
    vkm_kit_op16(k, &a->b, n, k->c.C);
    vkm_kit_op16(k, &a->uh, rows, n);
    vkm_kit_f32(k, &a->h, 1);
    k->flops = 2.0 * rows * n * k->c.C;
}

/* Gradient of module gate's A. */
VKM_BENCH(gemm_seg) {
    uint32_t m = k->experts * k->rank, n = k->c.C;
    *a = (vkm_args_gemm_seg){.m = m,
                             .n = n,
                             .kpa = k->rows,
                             .kpb = k->rows,
                             .n_seq = k->n_seq,
                             .rows_per_scale = k->rank,
                             .scale_stride = k->experts};
    vkm_kit_op16(k, &a->a, m, k->rows);
    vkm_kit_op16(k, &a->b, n, k->rows);
    vkm_kit_seqs(k, &a->seqs);
    vkm_kit_f32(k, &a->scale, (uint64_t)k->n_seq * k->experts);
    vkm_kit_f32(k, &a->c, (uint64_t)m * n);
    k->flops = 2.0 * m * n * k->rows;
}

/* ---- attention --------------------------------------------------------------------------------
 */

/* What the three kernels of sequences have in common, and the operations of `dots` products of
 * head_dim a query and key. */
#define SEQUENCES(dots)                                                                            \
    do {                                                                                           \
        const vkm_model_config *c = &k->c;                                                         \
        a->n_seq = k->n_seq;                                                                       \
        a->max_len = k->len;                                                                       \
        a->n_heads = c->H;                                                                         \
        a->n_kv = c->K;                                                                            \
        a->head_dim = c->D;                                                                        \
        a->scale = 0.125f;                                                                         \
        vkm_kit_bf16(k, &a->q, (uint64_t)k->rows * c->H * c->D);                                   \
        vkm_kit_bf16(k, &a->k, (uint64_t)k->rows * c->K * c->D);                                   \
        vkm_kit_bf16(k, &a->v, (uint64_t)k->rows * c->K * c->D);                                   \
        vkm_kit_f32(k, &a->m, (uint64_t)k->rows * c->H);                                           \
        vkm_kit_f32(k, &a->l, (uint64_t)k->rows * c->H);                                           \
        vkm_kit_seqs(k, &a->seqs);                                                                 \
        k->flops = 0.5 * k->rows * (k->len + 1.0) * c->H * (2.0 * (dots)*c->D + VKM_EXP_OPS);      \
    } while (0)

VKM_BENCH(attn_fwd) {
    SEQUENCES(2);
    a->n_rows = k->rows;
    vkm_kit_count(k, &a->prefix, 2ull * k->n_seq, 1, 1);
    vkm_kit_op16(k, &a->o, k->rows, k->c.H * k->c.D);
}

VKM_BENCH(attn_bwd_dq) {
    SEQUENCES(3);
    vkm_kit_bf16(k, &a->do_, (uint64_t)k->rows * k->c.H * k->c.D);
    vkm_kit_f32(k, &a->dr, (uint64_t)k->rows * k->c.H);
    vkm_kit_f32(k, &a->dq, (uint64_t)k->rows * k->c.H * k->c.D);
}

VKM_BENCH(attn_bwd_dkv) {
    SEQUENCES(4);
    vkm_kit_bf16(k, &a->do_, (uint64_t)k->rows * k->c.H * k->c.D);
    vkm_kit_f32(k, &a->dr, (uint64_t)k->rows * k->c.H);
    vkm_kit_f32(k, &a->dk, (uint64_t)k->rows * k->c.K * k->c.D);
    vkm_kit_op16(k, &a->dv, k->rows, k->c.K * k->c.D);
}

VKM_BENCH(attn_dr) {
    *a = (vkm_args_attn_dr){.n_rows = k->rows, .n_heads = k->c.H, .head_dim = k->c.D};
    vkm_kit_bf16(k, &a->do_, (uint64_t)k->rows * k->c.H * k->c.D);
    vkm_kit_op16(k, &a->o, k->rows, k->c.H * k->c.D);
    vkm_kit_f32(k, &a->dr, (uint64_t)k->rows * k->c.H);
}

/* Rows share a prompt of all keys but one, and have one of their own. */
static void decode_state(vkm_kit *k, vkm_tensor *t) {
    uint32_t(*x)[8] = (uint32_t(*)[8])vkm_kit_u32(k, t, 8ull * k->decoding);
    for (uint32_t i = 0; x && i < k->decoding; i++) x[i][1] = k->keys - 1, x[i][2] = i, x[i][3] = 1;
}

VKM_BENCH(attn_decode) {
    uint32_t q = k->c.H * k->c.D;
    uint64_t kv = (uint64_t)k->c.K * k->c.D;
    *a = (vkm_args_attn_decode){.n_rows = k->decoding,
                                .n_heads = k->c.H,
                                .n_kv = k->c.K,
                                .head_dim = k->c.D,
                                .max_keys = k->keys,
                                .scale = 0.125f};
    vkm_kit_bf16(k, &a->q, (uint64_t)k->decoding * q);
    vkm_kit_bf16(k, &a->prompt_k, (k->keys - 1) * kv);
    vkm_kit_bf16(k, &a->prompt_v, (k->keys - 1) * kv);
    vkm_kit_bf16(k, &a->own_k, k->decoding * kv);
    vkm_kit_bf16(k, &a->own_v, k->decoding * kv);
    decode_state(k, &a->state);
    vkm_kit_op16(k, &a->o, k->decoding, q);
    vkm_kit_f32(k, &a->scratch, (uint64_t)k->decoding * k->c.H * k->keys);
    k->flops = (double)k->decoding * k->keys * k->c.H * (4.0 * k->c.D + VKM_EXP_OPS);
    k->bytes = 4.0 * k->decoding * q + 4.0 * (double)kv * (k->keys - 1 + k->decoding);
}

static const vkm_bench_row rows[] = {
    {"gemm/1024", run_gemm, "", {CUBE, 1024}},
    VKM_BENCH_ROW(gemm, "-head", HEAD),
    VKM_BENCH_ROW(gemm, "-head-dx", HEAD_DX),
    VKM_BENCH_ROW(gemm, "-gate-64", GATE, 64),
    VKM_BENCH_ROW(gemm, "-down-64", DOWN, 64),
    VKM_BENCH_ROW(linear, "-gate", GATE),
    VKM_BENCH_ROW(linear, "-gate-base", GATE, 0, 1),
    VKM_BENCH_ROW(linear, "-gate-1", GATE, 1),
    VKM_BENCH_ROW(linear, "-gate-8", GATE, 8),
    VKM_BENCH_ROW(linear, "-gate-64", GATE, 64),
    VKM_BENCH_ROW(linear, "-o", O),
    VKM_BENCH_ROW(linear, "-down", DOWN),
    VKM_BENCH_ROW(linear_bf16, ""),
    VKM_BENCH_ROW(lora_down, ""),
    VKM_BENCH_ROW(lora_down, "-64", 0, 64),
    VKM_BENCH_ROW(gemm_seg, ""),
    VKM_BENCH_ROW(attn_fwd, ""),
    VKM_BENCH_ROW(attn_bwd_dq, ""),
    VKM_BENCH_ROW(attn_bwd_dkv, ""),
    VKM_BENCH_ROW(attn_dr, ""),
    VKM_BENCH_ROW(attn_decode, ""),
};
const vkm_bench_group vkm_bench_products = {rows, VKM_COUNTOF(rows)};
