/* Bench rows of the kernels that are neither products nor attention. */
#include "cli/bench_kit.h"
#include "model/model.h"
#include "ops/grpo.h"
#include "ops/lmhead.h"
#include "ops/norm.h"
#include "ops/optim.h"
#include "ops/router.h"

/* Elements of a training batch's activations, hidden and of all heads. */
static uint64_t hidden(const vkm_kit *k) {
    return (uint64_t)k->rows * k->c.C;
}
static uint64_t heads(const vkm_kit *k) {
    return (uint64_t)k->rows * k->c.H * k->c.D;
}

/* ---- storage formats --------------------------------------------------------------------------
 */

VKM_BENCH(pack_f32) {
    *a = (vkm_args_pack_f32){.n_rows = k->rows, .n_cols = k->c.C, .ldx = k->c.C};
    vkm_kit_f32(k, &a->x, hidden(k));
    vkm_kit_op16(k, &a->y, k->rows, k->c.C);
}

VKM_BENCH(pack_transpose) {
    *a = (vkm_args_pack_transpose){.n_rows = k->rows, .n_cols = k->c.F, .has_seq = 1};
    vkm_kit_op16(k, &a->x, k->rows, k->c.F);
    vkm_kit_count(k, &a->row_seq, k->rows, k->len, k->n_seq);
    vkm_kit_op16(k, &a->y, k->c.F, k->rows);
}

VKM_BENCH(pack_transpose_rows) {
    uint32_t n = k->rows / 2;
    *a = (vkm_args_pack_transpose_rows){.n_rows = n, .n_cols = k->c.C, .n_out = n};
    vkm_kit_op16(k, &a->x, n, k->c.C);
    vkm_kit_count(k, &a->map, n, 1, n);
    vkm_kit_op16(k, &a->y, k->c.C, n);
}

VKM_BENCH(round_bf16) {
    a->n = (uint32_t)hidden(k);
    vkm_kit_f32(k, &a->x, a->n);
    vkm_kit_f32(k, &a->y, a->n);
}

/* ---- norms, RoPE ------------------------------------------------------------------------------
 */

VKM_BENCH(rmsnorm_fwd) {
    *a = (vkm_args_rmsnorm_fwd){.n_rows = k->rows, .n_cols = k->c.C, .eps = 1e-6f};
    vkm_kit_f32(k, &a->x, hidden(k));
    vkm_kit_f32(k, &a->gain, k->c.C);
    vkm_kit_op16(k, &a->y, k->rows, k->c.C);
    vkm_kit_f32(k, &a->rstd, k->rows);
}

VKM_BENCH(rmsnorm_bwd) {
    *a = (vkm_args_rmsnorm_bwd){.n_rows = k->rows, .n_cols = k->c.C, .accumulate = 1};
    vkm_kit_f32(k, &a->dy, hidden(k));
    vkm_kit_f32(k, &a->x, hidden(k));
    vkm_kit_f32(k, &a->gain, k->c.C);
    vkm_kit_f32(k, &a->rstd, k->rows);
    vkm_kit_f32(k, &a->dx, hidden(k));
}

VKM_BENCH(headnorm_bwd) {
    *a = (vkm_args_headnorm_bwd){.n_rows = k->rows, .n_heads = k->c.H, .head_dim = k->c.D};
    vkm_kit_f32(k, &a->dy, heads(k));
    vkm_kit_f32(k, &a->x, heads(k));
    vkm_kit_f32(k, &a->gain, k->c.D);
    vkm_kit_f32(k, &a->rstd, (uint64_t)k->rows * k->c.H);
    vkm_kit_op16(k, &a->dx, k->rows, k->c.H * k->c.D);
}

/* Whole blocks of rows, whatever sequence they belong to. */
VKM_BENCH(norm_dgain) {
    uint32_t n = k->rows / VKM_GRAD_BLOCK;
    *a = (vkm_args_norm_dgain){.n_blocks = n, .n_heads = 1, .head_dim = k->c.C};
    vkm_kit_f32(k, &a->dy, hidden(k));
    vkm_kit_f32(k, &a->x, hidden(k));
    vkm_kit_f32(k, &a->rstd, k->rows);
    uint32_t(*x)[2] = (uint32_t(*)[2])vkm_kit_u32(k, &a->blocks, 2ull * n);
    for (uint32_t i = 0; x && i < n; i++) x[i][0] = i * VKM_GRAD_BLOCK, x[i][1] = VKM_GRAD_BLOCK;
    vkm_kit_f32(k, &a->part, (uint64_t)n * k->c.C);
}

VKM_BENCH(add_rows) {
    *a = (vkm_args_add_rows){.n_rows = k->rows / VKM_GRAD_BLOCK, .n_cols = k->c.C};
    vkm_kit_f32(k, &a->x, (uint64_t)a->n_rows * k->c.C);
    vkm_kit_f32(k, &a->y, k->c.C);
}

VKM_BENCH(qk_fwd) {
    *a = (vkm_args_qk_fwd){
        .n_rows = k->rows, .n_heads = k->c.H, .head_dim = k->c.D, .has_norm = 1, .eps = 1e-6f};
    vkm_kit_f32(k, &a->x, heads(k));
    vkm_kit_f32(k, &a->gain, k->c.D);
    vkm_kit_f32(k, &a->cos, (uint64_t)k->len * k->c.D / 2);
    vkm_kit_f32(k, &a->sin, (uint64_t)k->len * k->c.D / 2);
    vkm_kit_count(k, &a->pos, k->rows, 1, k->len);
    vkm_kit_count(k, &a->rows, 1, 1, 1);
    vkm_kit_bf16(k, &a->y, heads(k));
    vkm_kit_f32(k, &a->rstd, (uint64_t)k->rows * k->c.H);
}

VKM_BENCH(rope_bwd) {
    *a = (vkm_args_rope_bwd){.n_rows = k->rows, .n_heads = k->c.H, .head_dim = k->c.D};
    vkm_kit_f32(k, &a->dy, heads(k));
    vkm_kit_f32(k, &a->cos, (uint64_t)k->len * k->c.D / 2);
    vkm_kit_f32(k, &a->sin, (uint64_t)k->len * k->c.D / 2);
    vkm_kit_count(k, &a->pos, k->rows, 1, k->len);
    vkm_kit_f32(k, &a->dx, heads(k));
}

/* ---- SwiGLU, embedding, rows ------------------------------------------------------------------
 */

VKM_BENCH(swiglu_fwd) {
    uint64_t n = (uint64_t)k->rows * k->c.F;
    *a = (vkm_args_swiglu_fwd){.n_rows = k->rows, .n_cols = k->c.F};
    vkm_kit_f32(k, &a->gate, n);
    vkm_kit_f32(k, &a->up, n);
    vkm_kit_op16(k, &a->y, k->rows, k->c.F);
    k->flops = (double)n * (VKM_EXP_OPS + 3);
}

VKM_BENCH(swiglu_bwd) {
    uint64_t n = (uint64_t)k->rows * k->c.F;
    *a = (vkm_args_swiglu_bwd){.n_rows = k->rows, .n_cols = k->c.F};
    vkm_kit_f32(k, &a->gate, n);
    vkm_kit_f32(k, &a->up, n);
    vkm_kit_f32(k, &a->dy, n);
    vkm_kit_op16(k, &a->dgate, k->rows, k->c.F);
    vkm_kit_op16(k, &a->dup, k->rows, k->c.F);
    k->flops = (double)n * (VKM_EXP_OPS + 9);
}

VKM_BENCH(embed_fwd) {
    *a = (vkm_args_embed_fwd){.n_rows = k->rows, .n_cols = k->c.C, .n_vocab = k->c.V};
    vkm_kit_op16(k, &a->table, k->c.V, k->c.C);
    vkm_kit_count(k, &a->tokens, k->rows, 1, k->c.V);
    vkm_kit_f32(k, &a->x, hidden(k));
    k->bytes = 6.0 * (double)hidden(k);
}

/* Tokens that occur twice each. */
VKM_BENCH(embed_bwd) {
    uint32_t each = (k->rows + k->c.V - 1) / k->c.V, ids;
    if (each < 2) each = 2;
    ids = k->rows / each;
    *a = (vkm_args_embed_bwd){.n_ids = ids, .n_cols = k->c.C, .n_vocab = k->c.V};
    vkm_kit_f32(k, &a->dx, hidden(k));
    uint32_t(*x)[3] = (uint32_t(*)[3])vkm_kit_u32(k, &a->ids, 3ull * ids);
    for (uint32_t i = 0; x && i < ids; i++) x[i][0] = i, x[i][1] = i * each, x[i][2] = each;
    vkm_kit_count(k, &a->rows, k->rows, 1, k->rows);
    vkm_kit_f32(k, &a->grad, (uint64_t)k->c.V * k->c.C);
    k->bytes = 4.0 * ids * (each + 2.0) * k->c.C;
}

VKM_BENCH(scatter_rows) {
    *a = (vkm_args_scatter_rows){.n_rows = k->rows / 2, .n_cols = k->c.C};
    vkm_kit_f32(k, &a->x, (uint64_t)a->n_rows * k->c.C);
    vkm_kit_count(k, &a->rows, a->n_rows, 1, a->n_rows);
    vkm_kit_f32(k, &a->y, (uint64_t)a->n_rows * k->c.C);
    k->bytes = 8.0 * a->n_rows * k->c.C;
}

/* ---- the adapter ------------------------------------------------------------------------------
 */

VKM_BENCH(lora_mid) {
    uint32_t er = k->experts * k->rank, stack = k->experts * k->kper;
    *a = (vkm_args_lora_mid){
        .n_rows = k->rows, .kpu = stack, .n_experts = k->experts, .rank = k->rank};
    vkm_kit_f32(k, &a->t, (uint64_t)k->rows * stack);
    vkm_kit_op16(k, &a->uh, k->rows, stack);
    vkm_kit_count(k, &a->row_seq, k->rows, k->len, k->n_seq);
    vkm_kit_op16(k, &a->pz, k->rows, stack);
    vkm_kit_op16(k, &a->pt, er, k->rows);
    vkm_kit_op16(k, &a->ht, er, k->rows);
    vkm_kit_f32(k, &a->df, (uint64_t)k->rows * k->experts);
}

VKM_BENCH(lora_pack) {
    uint64_t n = (uint64_t)k->experts * k->rank * k->c.C;
    *a = (vkm_args_lora_pack){.n_experts = k->experts, .rank = k->rank, .n_cols = k->c.C};
    vkm_kit_f32(k, &a->p0, n);
    vkm_kit_f32(k, &a->p1, n);
    vkm_kit_op16(k, &a->y, k->experts * k->kper, k->c.C);
}

VKM_BENCH(lora_pack_t) {
    uint64_t n = (uint64_t)k->experts * k->rank * k->c.F;
    *a = (vkm_args_lora_pack_t){.n_cols = k->c.F, .n_experts = k->experts, .rank = k->rank};
    vkm_kit_f32(k, &a->p0, n);
    vkm_kit_f32(k, &a->p1, n);
    vkm_kit_op16(k, &a->y, k->c.F, k->experts * k->kper);
}

VKM_BENCH(seq_sum) {
    *a = (vkm_args_seq_sum){.n_seq = k->n_seq, .n_cols = k->experts};
    vkm_kit_f32(k, &a->x, (uint64_t)k->rows * k->experts);
    vkm_kit_seqs(k, &a->seqs);
    vkm_kit_f32(k, &a->acc, (uint64_t)k->n_seq * k->experts);
}

VKM_BENCH(rank_grad) {
    *a = (vkm_args_rank_grad){.n_rows = k->rows,
                              .kpu = k->experts * k->kper,
                              .n_seq = k->n_seq,
                              .n_experts = k->experts,
                              .rank = k->rank,
                              .n_modules = 1};
    vkm_kit_f32(k, &a->t, (uint64_t)k->rows * k->experts * k->kper);
    vkm_kit_op16(k, &a->uh, k->rows, k->experts * k->kper);
    vkm_kit_seqs(k, &a->seqs);
    vkm_kit_f32(k, &a->pooled, (uint64_t)k->n_seq * k->rank);
    k->bytes = 6.0 * k->rows * k->rank; /* one stack of all */
}

VKM_BENCH(pool_fwd) {
    *a = (vkm_args_pool_fwd){
        .n_seq = k->n_seq, .ldh = k->experts * k->rank, .rank = k->rank, .n_modules = 1};
    vkm_kit_f32(k, &a->h, (uint64_t)k->rows * a->ldh);
    vkm_kit_seqs(k, &a->seqs);
    vkm_kit_f32(k, &a->pooled, (uint64_t)k->n_seq * k->rank);
    k->bytes = 2.0 * k->rows * k->rank; /* completion rows, the deployed expert's columns */
}

/* ---- output head: rows that decode, or a chunk of completion rows -------------------------------
 */

static void logits_and_blocks(vkm_kit *k, vkm_tensor *logits, vkm_tensor *mb, vkm_tensor *lb,
                              vkm_tensor *sb) {
    uint64_t blocks = (uint64_t)k->decoding * vkm_n_blocks(k->c.V);
    vkm_kit_f32(k, logits, (uint64_t)k->decoding * k->c.V);
    vkm_kit_f32(k, mb, blocks);
    vkm_kit_f32(k, lb, blocks);
    if (sb) vkm_kit_f32(k, sb, blocks);
}

VKM_BENCH(lse_block) {
    *a = (vkm_args_lse_block){.n_rows = k->decoding, .n_vocab = k->c.V};
    logits_and_blocks(k, &a->logits, &a->mb, &a->lb, &a->sb);
    k->flops = (double)k->decoding * k->c.V * (VKM_EXP_OPS + 4);
}

VKM_BENCH(lse_combine) {
    *a = (vkm_args_lse_combine){.n_rows = k->decoding, .n_vocab = k->c.V};
    logits_and_blocks(k, &a->logits, &a->mb, &a->lb, &a->sb);
    vkm_kit_count(k, &a->targets, k->decoding, 1, k->c.V);
    vkm_kit_f32(k, &a->m, k->decoding);
    vkm_kit_f32(k, &a->l, k->decoding);
    vkm_kit_f32(k, &a->logp, k->decoding);
    vkm_kit_f32(k, &a->entropy, k->decoding);
    uint64_t blocks = (uint64_t)k->decoding * vkm_n_blocks(k->c.V);
    k->bytes = 12.0 * (double)blocks; /* of the logits, the targets' */
    k->flops = (double)blocks * (VKM_EXP_OPS + 4);
}

VKM_BENCH(logits_bwd) {
    *a = (vkm_args_logits_bwd){.n_rows = k->decoding, .n_vocab = k->c.V};
    vkm_kit_f32(k, &a->logits, (uint64_t)k->decoding * k->c.V);
    vkm_kit_count(k, &a->targets, k->decoding, 1, k->c.V);
    vkm_kit_f32(k, &a->m, k->decoding);
    vkm_kit_f32(k, &a->l, k->decoding);
    vkm_kit_f32(k, &a->coef, k->decoding);
    vkm_kit_op16(k, &a->d, k->decoding, k->c.V);
    k->flops = (double)k->decoding * k->c.V * (VKM_EXP_OPS + 3);
}

VKM_BENCH(decode_begin) {
    a->n_rows = k->decoding;
    vkm_kit_count(k, &a->state, (uint64_t)k->decoding * VKM_ROW_WORDS, 1, 1);
    vkm_kit_count(k, &a->tokens, k->decoding, 1, 1);
    vkm_kit_count(k, &a->pos, k->decoding, 1, 1);
    vkm_kit_count(k, &a->rows, k->decoding, 1, 1);
}

/* Every row draws its first token of many, over and over. */
VKM_BENCH(sample) {
    const vkm_sampling plain = {.temperature = 1, .top_p = 1};
    *a = (vkm_args_sample){.n_rows = k->decoding, .n_vocab = k->c.V, .max_new = 1u << 20};
    logits_and_blocks(k, &a->logits, &a->mb, &a->lb, NULL);
    uint32_t *words = vkm_kit_u32(k, &a->params, VKM_SAMPLE_WORDS);
    if (words) (void)!vkm_sampling_words(&plain, 1, 0, 0, words, k->err);
    vkm_kit_count(k, &a->eos, 1, 1, 1);
    vkm_kit_count(k, &a->state, (uint64_t)k->decoding * VKM_ROW_WORDS, 1, 1);
    vkm_kit_count(k, &a->tokens, a->max_new, 1, 1);
    vkm_kit_f32(k, &a->logp, a->max_new);
    k->bytes = 4.0 * k->decoding * (k->c.V + 2.0 * vkm_n_blocks(k->c.V));
    k->flops = (double)k->decoding * k->c.V * VKM_EXP_OPS;
}

/* ---- router, policy loss, optimizer -------------------------------------------------------------
 */

enum { ROUTED = 64 }; /* rows of pooled activations */

static uint32_t pooled(const vkm_kit *k) {
    return k->c.L * VKM_N_LINEARS * k->rank;
}

VKM_BENCH(router_fwd) {
    *a = (vkm_args_router_fwd){.n_rows = ROUTED, .n_cols = pooled(k)};
    vkm_kit_f32(k, &a->a, (uint64_t)ROUTED * a->n_cols);
    vkm_kit_f32(k, &a->mu, a->n_cols);
    vkm_kit_f32(k, &a->u, a->n_cols);
    vkm_kit_f32(k, &a->cal, VKM_CAL_WORDS);
    vkm_kit_f32(k, &a->s, ROUTED);
    vkm_kit_f32(k, &a->z, ROUTED);
    vkm_kit_f32(k, &a->w, ROUTED);
    vkm_kit_f32(k, &a->inv, 2 * ROUTED);
}

VKM_BENCH(router_bwd) {
    *a = (vkm_args_router_bwd){.n_rows = ROUTED, .n_cols = pooled(k)};
    vkm_kit_f32(k, &a->a, (uint64_t)ROUTED * a->n_cols);
    vkm_kit_f32(k, &a->mu, a->n_cols);
    vkm_kit_f32(k, &a->u, a->n_cols);
    vkm_kit_f32(k, &a->cal, VKM_CAL_WORDS);
    vkm_kit_f32(k, &a->s, ROUTED);
    vkm_kit_f32(k, &a->inv, 2 * ROUTED);
    vkm_kit_f32(k, &a->dz, ROUTED);
    vkm_kit_f32(k, &a->du, a->n_cols);
    vkm_kit_f32(k, &a->db, 1);
}

VKM_BENCH(router_dz) {
    a->n = ROUTED;
    vkm_kit_f32(k, &a->w, ROUTED);
    vkm_kit_f32(k, &a->dw, ROUTED);
    vkm_kit_f32(k, &a->dz, ROUTED);
}

VKM_BENCH(pin_loss) {
    *a = (vkm_args_pin_loss){.n_pairs = ROUTED, .coef = 0.3f, .scale = 0x1p24f};
    vkm_kit_f32(k, &a->z, 2 * ROUTED);
    vkm_kit_f32(k, &a->w, 2 * ROUTED);
    vkm_kit_f32(k, &a->loss, 1);
    vkm_kit_f32(k, &a->dz, 2 * ROUTED);
}

VKM_BENCH(grpo_loss) {
    uint32_t n = k->rows / 2;
    *a = (vkm_args_grpo_loss){.n = n,
                              .importance = VKM_IMPORTANCE_CLIP,
                              .eps_low = 0.2f,
                              .eps_high = 0.2f,
                              .beta = 1e-3f,
                              .loss_scale = 0x1p24f};
    vkm_kit_f32(k, &a->logp, n);
    vkm_kit_f32(k, &a->logp_old, n);
    vkm_kit_f32(k, &a->logp_ref, n);
    vkm_kit_f32(k, &a->adv, k->n_seq);
    vkm_kit_f32(k, &a->weight, k->n_seq);
    vkm_kit_count(k, &a->tok_seq, n, k->len / 2, k->n_seq);
    vkm_kit_f32(k, &a->coef, n);
    vkm_kit_f32(k, &a->terms, (uint64_t)n * VKM_TERM_WORDS);
}

/* Parameters of module gate's factor B. */
static uint32_t factor(const vkm_kit *k) {
    return k->experts * k->rank * k->c.F;
}

VKM_BENCH(sumsq) {
    a->n = factor(k);
    vkm_kit_f32(k, &a->x, a->n);
    vkm_kit_f32(k, &a->y, vkm_n_sum_blocks(a->n));
}

VKM_BENCH(sum5) {
    a->n = vkm_n_sum_blocks(factor(k));
    vkm_kit_f32(k, &a->x, a->n);
    vkm_kit_f32(k, &a->y, 1);
}

VKM_BENCH(clip_coef) {
    *a =
        (vkm_args_clip_coef){.n = k->c.L * VKM_N_LINEARS * 2, .max_norm = 1, .inv_scale = 0x1p-24f};
    vkm_kit_f32(k, &a->sums, a->n);
    vkm_kit_f32(k, &a->clip, VKM_CLIP_WORDS);
}

VKM_BENCH(adamw) {
    *a = (vkm_args_adamw){.n = factor(k),
                          .v_stride = 1,
                          .lr = 7e-5f,
                          .b1 = 0.9f,
                          .b2 = 0.99f,
                          .eps = 1e-8f,
                          .wd = 0.1f,
                          .bias1 = 10,
                          .bias2 = 100,
                          .inv_scale = 0x1p-24f};
    vkm_kit_f32(k, &a->p, a->n);
    vkm_kit_f32(k, &a->g, a->n);
    vkm_kit_f32(k, &a->m, a->n);
    vkm_kit_f32(k, &a->v, a->n);
    vkm_kit_f32(k, &a->clip, VKM_CLIP_WORDS);
}

VKM_BENCH(adam_tensor_v) {
    *a = (vkm_args_adam_tensor_v){.n = factor(k), .b2 = 0.99f, .inv_scale = 0x1p-24f};
    vkm_kit_f32(k, &a->sum, 1);
    vkm_kit_f32(k, &a->clip, VKM_CLIP_WORDS);
    vkm_kit_f32(k, &a->v, 1);
}

VKM_BENCH(accumulate) {
    a->n = factor(k);
    vkm_kit_f32(k, &a->group, a->n);
    vkm_kit_f32(k, &a->total, a->n);
}

#define ROW(kernel) VKM_BENCH_ROW(kernel, ""),
static const vkm_bench_row rows[] = {
    ROW(pack_f32) ROW(pack_transpose) ROW(pack_transpose_rows) ROW(round_bf16) ROW(rmsnorm_fwd)
        ROW(rmsnorm_bwd) ROW(headnorm_bwd) ROW(norm_dgain) ROW(add_rows) ROW(qk_fwd) ROW(rope_bwd)
            ROW(swiglu_fwd) ROW(swiglu_bwd) ROW(embed_fwd) ROW(embed_bwd) ROW(scatter_rows)
                ROW(lora_mid) ROW(lora_pack) ROW(lora_pack_t) ROW(seq_sum) ROW(rank_grad)
                    ROW(pool_fwd) ROW(lse_block) ROW(lse_combine) ROW(logits_bwd) ROW(decode_begin)
                        ROW(sample) ROW(router_fwd) ROW(router_bwd) ROW(router_dz) ROW(pin_loss)
                            ROW(grpo_loss) ROW(sumsq) ROW(sum5) ROW(clip_coef) ROW(adamw)
                                ROW(adam_tensor_v) ROW(accumulate)};
const vkm_bench_group vkm_bench_kernels = {rows, VKM_COUNTOF(rows)};
