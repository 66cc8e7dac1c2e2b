/* The backward pass, layer by layer from the saved inputs; each layer's forward is recomputed where
 * its activations were not kept.
 * Gradients with respect to the adapter's factors go to the group sums, those of the weights (where
 * the pass has any) to the step's sums: for each weight the sequences of the batch add in ascending
 * order, so a batch may be cut between any two. */
#include "model/forward.h"

/* The low-rank path: t = [v | z], its operands, and the gradient of each row's expert factors. */
static void experts_bwd(const vkm_pass *p, uint32_t layer, vkm_linear_id id, vkm_tensor dy) {
    vkm_work *w = p->w;
    vkm_layer_grads *g = &w->grads;
    const vkm_adapter *a = p->adapter;
    const vkm_module *mod = &a->modules[layer * VKM_N_LINEARS + id];
    uint32_t stack = vkm_lora_stack(a), kp = vkm_op_kp(mod->d_out), t = w->n_rows;
    uint32_t kpu = vkm_uh_length(w, id);
    vkm_tensor uh = vkm_uh_of(w, layer, id, t);
    VKM_OP(p->s, gemm, .a = dy, .b = mod->back, .c = g->t, .m = t, .n = stack, .k = kp, .kpa = kp,
           .kpb = kp, .ldc = stack);
    if (p->rank_grads)
        VKM_OP(p->s, rank_grad, .t = g->t, .uh = uh, .seqs = w->seqs, .pooled = w->pooled,
               .n_rows = t, .kpu = kpu, .n_seq = w->n_seq, .n_experts = a->n_experts,
               .rank = a->rank, .module = layer * VKM_N_LINEARS + id, .n_modules = a->n_modules);
    VKM_OP(p->s, lora_mid, .t = g->t, .uh = uh, .row_seq = w->row_seq, .pz = g->pz, .pt = g->pt,
           .ht = g->ht, .df = g->df_tok, .n_rows = t, .kpu = kpu, .n_experts = a->n_experts,
           .rank = a->rank);
    VKM_OP(p->s, seq_sum, .x = g->df_tok, .seqs = w->seqs, .acc = w->df, .n_seq = w->n_seq,
           .n_cols = a->n_experts);
}

/* Gradient of one factor, c += sum over sequences of g a b^T: group by group, each summed on its
 * own before it enters the step's sum, so that no cut into batches changes a bit. */
static void factor_grad(const vkm_pass *p, const vkm_module *mod, int factor, vkm_tensor a,
                        vkm_tensor b, uint32_t n) {
    vkm_work *w = p->w;
    uint32_t e = p->adapter->n_experts, rank = p->adapter->rank, t = w->n_rows;
    vkm_tensor sum = mod->group_grad[factor];
    for (uint32_t i = 0; i < p->n_groups; i++) {
        const vkm_batch_group *g = &p->groups[i];
        VKM_OP(p->s, gemm_seg, .a = a, .b = b,
               .seqs = vkm_view(w->seqs, 4ull * g->first, 4ull * g->n),
               .scale = vkm_view(w->g, (uint64_t)g->first * e, (uint64_t)g->n * e), .c = sum,
               .m = e * rank, .n = n, .kpa = t, .kpb = t, .n_seq = g->n, .rows_per_scale = rank,
               .scale_stride = e);
        if (g->closes)
            VKM_OP(p->s, accumulate, .group = sum, .total = mod->grad[factor],
                   .n = (uint32_t)sum.n);
    }
}

/* dx = W^T dy + sum_e xs_e (dA_e^T (v+z) + A0_e^T z) (+ res), dy an operand (T, d_out), after
 * experts_bwd. */
static void input_grad(const vkm_pass *p, uint32_t layer, vkm_linear_id id, vkm_tensor dy,
                       const vkm_tensor *res, vkm_tensor dx) {
    const vkm_work *w = p->w;
    const vkm_adapter *a = p->adapter;
    const vkm_linear *lin = &w->model->layers[layer].lin[id];
    uint32_t n_experts = a ? a->n_experts : 0, kper = a ? vkm_lora_kper(a->rank) : 0;
    uint32_t kpa2 = n_experts * kper;
    uint32_t kp = vkm_op_kp(lin->d_out), t = w->n_rows;
    vkm_tensor pz = dy, back_x = lin->wt; /* unread without an adapter */
    if (a) {
        pz = w->grads.pz;
        back_x = a->modules[layer * VKM_N_LINEARS + id].back_x;
    }
    if (dx.dtype == VKM_BF16)
        VKM_OP(p->s, linear_bf16, .a = dy, .b = lin->wt, .a2 = pz, .b2 = back_x, .scale = w->xs,
               .row_seq = w->row_seq, .c = dx, .m = t, .n = lin->d_in, .k = kp, .kpa2 = kpa2,
               .kper = kper, .n_experts = n_experts);
    else
        VKM_OP(p->s, linear, .a = dy, .b = lin->wt, .a2 = pz, .b2 = back_x, .scale = w->xs,
               .row_seq = w->row_seq, .res = res ? *res : dx, .c = dx, .m = t, .n = lin->d_in,
               .k = kp, .kpa2 = kpa2, .kper = kper, .n_experts = n_experts, .has_res = res != NULL);
}

/* From dy, an operand (T, d_out): adds to the gradients of the module's factors, of the weight and
 * to w->df, and writes dx, the input's gradient, onto which it adds res where there is one; NULL:
 * nobody asks. x is the Linear's input operand; NULL: that of the call before. */
static void adapted_linear_bwd(const vkm_pass *p, uint32_t layer, vkm_linear_id id,
                               const vkm_tensor *x, vkm_tensor dy, const vkm_tensor *res,
                               const vkm_tensor *dx) {
    vkm_work *w = p->w;
    vkm_layer_grads *g = &w->grads;
    const vkm_adapter *a = p->adapter;
    const vkm_linear *lin = &w->model->layers[layer].lin[id];
    uint32_t t = w->n_rows;
    vkm_tensor in_t = vkm_view(g->in_t, 0, vkm_op_size(lin->d_in, t));
    vkm_tensor dy_t = vkm_view(g->dy_t, 0, vkm_op_size(lin->d_out, t));

    if (a) experts_bwd(p, layer, id, dy);
    if (dx) input_grad(p, layer, id, dy, res, *dx);
    if (x)
        VKM_OP(p->s, pack_transpose, .x = *x, .row_seq = w->row_seq, .y = in_t, .n_rows = t,
               .n_cols = lin->d_in, .has_seq = 1);
    VKM_OP(p->s, pack_transpose, .x = dy, .row_seq = w->row_seq, .y = dy_t, .n_rows = t,
           .n_cols = lin->d_out, .has_seq = 1);
    if (a) {
        const vkm_module *mod = &a->modules[layer * VKM_N_LINEARS + id];
        uint32_t er = a->n_experts * a->rank;
        factor_grad(p, mod, 0, vkm_view(g->pt, 0, vkm_op_size(er, t)), in_t, lin->d_in);
        factor_grad(p, mod, 1, vkm_view(g->ht, 0, vkm_op_size(er, t)), dy_t, lin->d_out);
    }
    if (p->weights)
        VKM_OP(p->s, gemm_seg, .a = dy_t, .b = in_t, .seqs = w->seqs, .scale = w->xs,
               .c = vkm_weight_of(p->weights, layer, id)->grad, .m = lin->d_out, .n = lin->d_in,
               .kpa = t, .kpb = t, .n_seq = w->n_seq);
}

/* Adds the gradient of a gain of n_cols, over the blocks of token rows or of completion tokens. */
static void gain_grad(const vkm_pass *p, uint32_t layer, uint32_t role, vkm_tensor dy, vkm_tensor x,
                      vkm_tensor rstd, uint32_t n_heads, uint32_t n_cols) {
    if (!p->weights) return;
    const vkm_weight_lists *l = &p->w->lists;
    int completion = role == VKM_ROLE_NORM_FINAL;
    uint32_t n_blocks = completion ? l->n_comp_blocks : l->n_blocks;
    VKM_OP(p->s, norm_dgain, .dy = dy, .x = x, .rstd = rstd,
           .blocks = completion ? l->comp_blocks : l->blocks, .part = l->part, .n_blocks = n_blocks,
           .n_heads = n_heads, .head_dim = n_cols);
    VKM_OP(p->s, add_rows, .x = l->part, .y = vkm_weight_of(p->weights, layer, role)->grad,
           .n_rows = n_blocks * n_heads, .n_cols = n_cols);
}

/* Gradient of RoPE and the per-head norm: dq or dk (T, heads D) fp32 to the Linear's dy operand. */
static void norm_and_rope_bwd(const vkm_pass *p, uint32_t layer, vkm_role role, vkm_tensor gain,
                              vkm_tensor x, vkm_tensor rstd, vkm_tensor dy, vkm_tensor dnormed,
                              vkm_tensor dx16, uint32_t n_heads) {
    vkm_work *w = p->w;
    const vkm_model *m = w->model;
    VKM_OP(p->s, rope_bwd, .dy = dy, .cos = m->cos, .sin = m->sin, .pos = w->pos, .dx = dnormed,
           .n_rows = w->n_rows, .n_heads = n_heads, .head_dim = m->dims.D);
    if (m->dims.qk_norm) gain_grad(p, layer, role, dnormed, x, rstd, n_heads, m->dims.D);
    if (m->dims.qk_norm)
        VKM_OP(p->s, headnorm_bwd, .dy = dnormed, .x = x, .gain = gain, .rstd = rstd, .dx = dx16,
               .n_rows = w->n_rows, .n_heads = n_heads, .head_dim = m->dims.D);
    else
        VKM_OP(p->s, pack_f32, .x = dnormed, .y = dx16, .n_rows = w->n_rows,
               .n_cols = n_heads * m->dims.D, .ldx = n_heads * m->dims.D);
}

static void pack_residual(const vkm_pass *p) {
    vkm_work *w = p->w;
    uint32_t c = w->model->dims.C;
    VKM_OP(p->s, pack_f32, .x = w->grads.dx, .y = w->grads.dx16, .n_rows = w->n_rows, .n_cols = c,
           .ldx = c);
}

static void attention_bwd(const vkm_pass *p, uint32_t i) {
    vkm_work *w = p->w;
    vkm_layer_acts *a = vkm_acts_of(w, i);
    vkm_layer_grads *g = &w->grads;
    const vkm_model_config *d = &w->model->dims;
    float scale = vkm_attn_scale(d);
    vkm_tensor q = vkm_view(a->qr, 0, (uint64_t)w->n_rows * d->H * d->D);
    VKM_OP(p->s, attn_dr, .do_ = g->dout, .o = a->o, .dr = g->dr, .n_rows = w->n_rows,
           .n_heads = d->H, .head_dim = d->D);
    VKM_OP(p->s, attn_bwd_dq, .q = q, .k = a->kr, .v = a->v, .do_ = g->dout, .m = a->m, .l = a->l,
           .dr = g->dr, .seqs = w->seqs, .dq = g->dq, .n_seq = w->n_seq, .max_len = w->max_len,
           .n_heads = d->H, .n_kv = d->K, .head_dim = d->D, .scale = scale);
    VKM_OP(p->s, attn_bwd_dkv, .q = q, .k = a->kr, .v = a->v, .do_ = g->dout, .m = a->m, .l = a->l,
           .dr = g->dr, .seqs = w->seqs, .dk = g->dk, .dv = g->dv16, .n_seq = w->n_seq,
           .max_len = w->max_len, .n_heads = d->H, .n_kv = d->K, .head_dim = d->D, .scale = scale);
    const vkm_layer *layer = &w->model->layers[i];
    norm_and_rope_bwd(p, i, VKM_ROLE_NORM_Q, layer->norm_q, a->q, a->rstdq, g->dq, g->dqn, g->dq16,
                      d->H);
    norm_and_rope_bwd(p, i, VKM_ROLE_NORM_K, layer->norm_k, a->k, a->rstdk, g->dk, g->dkn, g->dk16,
                      d->K);
}

/* g->dx enters as the gradient of the layer's output and leaves as that of its input, where
 * anything below has gradients. */
static void layer_bwd(const vkm_pass *p, uint32_t i) {
    vkm_work *w = p->w;
    vkm_layer_acts *a = vkm_acts_of(w, i);
    vkm_layer_grads *g = &w->grads;
    const vkm_model_config *d = &w->model->dims;
    const vkm_layer *layer = &w->model->layers[i];
    vkm_pass again = *p;
    again.pool = 0;
    if (!w->max.keep) vkm_layer_forward(&again, i, w->x[i], w->x[i + 1]);

    pack_residual(p);
    adapted_linear_bwd(p, i, VKM_LIN_DOWN, &a->act, g->dx16, NULL, &g->dact);
    VKM_OP(p->s, swiglu_bwd, .gate = a->gate, .up = a->up, .dy = g->dact, .dgate = g->dgate,
           .dup = g->dup, .n_rows = w->n_rows, .n_cols = d->F);
    adapted_linear_bwd(p, i, VKM_LIN_GATE, &a->n2, g->dgate, NULL, &g->dn);
    adapted_linear_bwd(p, i, VKM_LIN_UP, NULL, g->dup, &g->dn, &g->dn);
    gain_grad(p, i, VKM_ROLE_NORM_MLP, g->dn, a->xmid, a->rstd2, 1, d->C);
    VKM_OP(p->s, rmsnorm_bwd, .dy = g->dn, .x = a->xmid, .gain = layer->norm_mlp, .rstd = a->rstd2,
           .dx = g->dx, .n_rows = w->n_rows, .n_cols = d->C, .accumulate = 1);

    pack_residual(p);
    adapted_linear_bwd(p, i, VKM_LIN_O, &a->o, g->dx16, NULL, &g->dout);
    attention_bwd(p, i);
    const vkm_tensor *dn = i > 0 || p->weights ? &g->dn : NULL;
    adapted_linear_bwd(p, i, VKM_LIN_Q, &a->n1, g->dq16, NULL, dn);
    adapted_linear_bwd(p, i, VKM_LIN_K, NULL, g->dk16, dn, dn);
    adapted_linear_bwd(p, i, VKM_LIN_V, NULL, g->dv16, dn, dn);
    if (!dn) return; /* below are frozen embeddings */
    gain_grad(p, i, VKM_ROLE_NORM_ATTN, g->dn, w->x[i], a->rstd1, 1, d->C);
    VKM_OP(p->s, rmsnorm_bwd, .dy = g->dn, .x = w->x[i], .gain = layer->norm_attn, .rstd = a->rstd1,
           .dx = g->dx, .n_rows = w->n_rows, .n_cols = d->C, .accumulate = 1);
}

/* Adds dlogits^T nc of a chunk to the head's gradient, block after block. */
static void head_grad(const vkm_pass *p, const vkm_head_chunk *chunk) {
    vkm_work *w = p->w;
    const vkm_weight_lists *l = &w->lists;
    uint32_t c = w->model->dims.C, v = w->model->dims.V, n = chunk->n, k = chunk->n_map;
    vkm_tensor map = vkm_view(l->map, chunk->map0, k);
    vkm_tensor nc = vkm_view(w->nc, (uint64_t)chunk->row * vkm_op_kp(c), vkm_op_size(n, c));
    VKM_OP(p->s, pack_transpose_rows, .x = w->dlogits, .map = map, .y = l->dlogits_t, .n_rows = n,
           .n_cols = v, .n_out = k);
    VKM_OP(p->s, pack_transpose_rows, .x = nc, .map = map, .y = l->nc_t, .n_rows = n, .n_cols = c,
           .n_out = k);
    VKM_OP(p->s, gemm_seg, .a = l->dlogits_t, .b = l->nc_t,
           .seqs = vkm_view(l->segs, 4ull * chunk->seg0, 4ull * chunk->n_segs), .scale = w->xs,
           .c = p->weights->head_grad, .m = v, .n = c, .kpa = k, .kpb = k, .n_seq = chunk->n_segs);
}

/* From the last hidden states to g->dx. */
static void head(const vkm_pass *p, vkm_tensor x_final) {
    vkm_work *w = p->w;
    const vkm_model *m = w->model;
    uint32_t c = m->dims.C, v = m->dims.V, kv = vkm_op_kp(v);
    vkm_head_begin(p, x_final);
    for (uint32_t i = 0; i < w->n_chunks; i++) {
        uint32_t row = w->chunks[i].row, n = w->chunks[i].n;
        vkm_head_rows(p, row, n);
        if (p->loss) p->loss(p, row, n);
        VKM_OP(p->s, logits_bwd, .logits = w->logits, .targets = vkm_view(w->targets, row, n),
               .m = vkm_view(w->m, row, n), .l = vkm_view(w->l, row, n),
               .coef = vkm_view(w->coef, row, n), .d = w->dlogits, .n_rows = n, .n_vocab = v);
        VKM_OP(p->s, gemm, .a = w->dlogits, .b = m->head_t,
               .c = vkm_view(w->dnc, (uint64_t)row * c, (uint64_t)n * c), .m = n, .n = c, .k = kv,
               .kpa = kv, .kpb = kv, .ldc = c);
        if (p->weights) head_grad(p, &w->chunks[i]);
    }
    gain_grad(p, 0, VKM_ROLE_NORM_FINAL, w->dnc, w->xc, w->rstdc, 1, c);
    VKM_OP(p->s, rmsnorm_bwd, .dy = w->dnc, .x = w->xc, .gain = m->norm_final, .rstd = w->rstdc,
           .dx = w->dxc, .n_rows = w->n_comp, .n_cols = c, .accumulate = 0);
    VKM_OP(p->s, zero, .y = w->grads.dx, .n = w->n_rows * c);
    VKM_OP(p->s, scatter_rows, .x = w->dxc, .rows = w->comp_rows, .y = w->grads.dx,
           .n_rows = w->n_comp, .n_cols = c);
}

void vkm_backward(const vkm_pass *p, vkm_tensor x_final) {
    vkm_work *w = p->w;
    const vkm_model_config *d = &w->model->dims;
    const vkm_weight_lists *l = &w->lists;
    VKM_BUG_ON(w->has_prefix, "gradients of shared rows");
    VKM_BUG_ON(p->weights && !w->max.weights, "a workspace without room for weight gradients");
    if (p->adapter) VKM_OP(p->s, zero, .y = w->df, .n = w->n_seq * p->adapter->n_experts);
    head(p, x_final);
    for (uint32_t i = d->L; i-- > 0;) layer_bwd(p, i);
    if (p->weights)
        VKM_OP(p->s, embed_bwd, .dx = w->grads.dx, .ids = l->ids, .rows = l->id_rows,
               .grad = vkm_weight_of(p->weights, 0, VKM_ROLE_EMBED)->grad, .n_ids = l->n_ids,
               .n_cols = d->C, .n_vocab = d->V);
}
