/* The forward pass: embedding, layers, output head. Reads as the data flows. */
#include "model/forward.h"

#include "model/decode.h"

static vkm_tensor rows_of(vkm_tensor t, uint64_t n) {
    return vkm_view(t, 0, n);
}

/* The rows of a batch that something is computed of, and their sequences. */
typedef struct span {
    uint32_t rows, seqs;
} span;

/* What the experts of the group's Linears make of their input x, an operand (T, d_in): u and h, and
 * on request the sequences' means of h. */
static void lora_down(const vkm_pass *p, uint32_t layer, vkm_linear_id first, span of,
                      vkm_tensor x) {
    vkm_work *w = p->w;
    const vkm_adapter *a = p->adapter;
    if (!a) return;
    uint32_t m = layer * VKM_N_LINEARS + first, n = vkm_uh_length(w, first);
    VKM_OP(p->s, lora_down, .a = x, .b = a->modules[m].down, .uh = vkm_acts_of(w, layer)->uh[first],
           .h = w->h, .m = of.rows, .n = n, .k = vkm_op_kp(a->modules[m].d_in), .has_h = p->pool);
    uint32_t n_modules = vkm_lora_group_of(first)->n, ldh = n / 2;
    for (uint32_t i = 0; p->pool && i < n_modules; i++)
        VKM_OP(p->s, pool_fwd,
               .h = vkm_view(w->h, i * ldh / n_modules, (of.rows - 1ull) * ldh + ldh / n_modules),
               .seqs = w->seqs, .pooled = w->pooled, .n_seq = of.seqs, .ldh = ldh, .rank = a->rank,
               .module = m + i, .n_modules = a->n_modules);
}

/* Where rows of k and v go while decoding. */
static vkm_tensor cache_rows(const vkm_pass *p) {
    return p->decode ? p->decode->rows : (vkm_tensor){0};
}

/* The base products of the group's Linears, those that are made in parts: side by side with
 * lora_down, since neither waits for the other. */
static void base_parts(const vkm_pass *p, uint32_t layer, vkm_linear_id first, uint32_t t,
                       vkm_tensor x) {
    vkm_work *w = p->w;
    for (uint32_t i = 0; p->decode && i < vkm_lora_group_of(first)->n; i++) {
        const vkm_linear *lin = &w->model->layers[layer].lin[first + i];
        uint32_t n, kp = vkm_op_kp(lin->d_in);
        uint64_t at;
        uint32_t k_part = vkm_work_parts(w, first + i, t, &n, &at);
        if (k_part)
            VKM_OP(p->s, gemm, .a = x, .b = lin->w,
                   .c = vkm_view(w->parts, at, (uint64_t)n * t * lin->d_out), .m = t,
                   .n = lin->d_out, .k = kp, .kpa = kp, .kpb = kp, .ldc = lin->d_out,
                   .k_part = k_part);
    }
}

/* y = W x + sum_e f_e expert_e(x) (+ bias, or res), x an operand (T, d_in), after the above. */
static void adapted_linear(const vkm_pass *p, uint32_t layer, vkm_linear_id id, uint32_t t,
                           vkm_tensor x, const vkm_tensor *res, vkm_tensor y) {
    vkm_work *w = p->w;
    const vkm_linear *lin = &w->model->layers[layer].lin[id];
    vkm_tensor uh = x, up = lin->w; /* unread when there is no adapter */
    vkm_tensor parts = lin->w;      /* unread when there are none */
    uint32_t n_experts = 0, kpa2 = 0, kper = 0, n_parts = 0;
    uint64_t at;
    if (p->adapter) {
        n_experts = p->adapter->n_experts;
        kpa2 = vkm_uh_length(w, id);
        kper = vkm_lora_kper(p->adapter->rank);
        up = p->adapter->modules[layer * VKM_N_LINEARS + id].up;
        uh = vkm_uh_of(w, layer, id, t);
    }
    if (p->decode && vkm_work_parts(w, id, t, &n_parts, &at))
        parts = vkm_view(w->parts, at, (uint64_t)n_parts * t * lin->d_out);
    uint32_t k = n_parts ? 0 : vkm_op_kp(lin->d_in);
    vkm_args_linear full = {.a = x,
                            .b = lin->w,
                            .a2 = uh,
                            .b2 = up,
                            .scale = w->f,
                            .row_seq = w->row_seq,
                            .parts = parts,
                            .res = lin->bias.n ? lin->bias
                                   : res       ? *res
                                               : y,
                            .c = y,
                            .m = t,
                            .n = lin->d_out,
                            .k = k,
                            .kpa2 = kpa2,
                            .kper = kper,
                            .n_experts = n_experts,
                            .n_parts = n_parts,
                            .has_res = lin->bias.n ? 2 : res != NULL};
    if (y.dtype != VKM_BF16) {
        VKM_BUG_ON(lin->bias.n && res, "a bias and a residual");
        vkm_op_linear(p->s, &full);
    } else { /* v */
        VKM_OP(p->s, linear_bf16, .a = x, .b = lin->w, .a2 = uh, .b2 = up, .scale = w->f,
               .row_seq = w->row_seq, .parts = parts, .bias = lin->bias, .rows = cache_rows(p),
               .c = y, .m = t, .n = lin->d_out, .k = k, .kpa2 = kpa2, .kper = kper,
               .n_experts = n_experts, .n_parts = n_parts, .has_bias = lin->bias.n != 0,
               .has_rows = p->decode != NULL);
    }
}

/* Per-head norm (where the model has one) and RoPE of q, or of k (cached). */
static void norm_and_rope(const vkm_pass *p, uint32_t n_rows, vkm_tensor gain, vkm_tensor x,
                          vkm_tensor rstd, vkm_tensor y, uint32_t n_heads, int cached) {
    vkm_work *w = p->w;
    const vkm_model *m = w->model;
    VKM_OP(p->s, qk_fwd, .x = x, .gain = gain, .cos = m->cos, .sin = m->sin, .pos = w->pos,
           .rows = cache_rows(p), .y = y, .rstd = rstd, .n_rows = n_rows, .n_heads = n_heads,
           .head_dim = m->dims.D, .has_norm = (uint32_t)m->dims.qk_norm,
           .has_rows = cached && p->decode, .eps = (float)m->dims.norm_eps);
}

void vkm_layer_forward(const vkm_pass *p, uint32_t i, vkm_tensor x, vkm_tensor y) {
    vkm_work *w = p->w;
    vkm_layer_acts *a = vkm_acts_of(w, i);
    const vkm_model_config *d = &w->model->dims;
    const vkm_layer *layer = &w->model->layers[i];
    const vkm_tensor *k_to = p->decode ? p->decode->own_k : p->k;
    const vkm_tensor *v_to = p->decode ? p->decode->own_v : p->v;
    vkm_tensor kr = k_to ? k_to[i] : a->kr, v = v_to ? v_to[i] : a->v;
    span all = {w->n_rows, w->n_seq}, of = all;
    if (w->has_prefix && i + 1 == d->L) of = (span){w->n_read_rows, w->n_read_seq};

    VKM_OP(p->s, rmsnorm_fwd, .x = x, .gain = layer->norm_attn, .y = a->n1, .rstd = a->rstd1,
           .n_rows = all.rows, .n_cols = d->C, .eps = (float)d->norm_eps);
    lora_down(p, i, VKM_LIN_Q, all, a->n1);
    base_parts(p, i, VKM_LIN_Q, all.rows, a->n1);
    adapted_linear(p, i, VKM_LIN_Q, of.rows, a->n1, NULL, a->q);
    adapted_linear(p, i, VKM_LIN_K, all.rows, a->n1, NULL, a->k);
    adapted_linear(p, i, VKM_LIN_V, all.rows, a->n1, NULL, v);
    norm_and_rope(p, of.rows, layer->norm_q, a->q, a->rstdq, a->qr, d->H, 0);
    norm_and_rope(p, all.rows, layer->norm_k, a->k, a->rstdk, kr, d->K, 1);
    if (p->decode)
        vkm_decode_attention(p->decode, p->s, w, i);
    else
        VKM_OP(p->s, attn_fwd, .q = rows_of(a->qr, (uint64_t)all.rows * d->H * d->D), .k = kr,
               .v = v, .seqs = w->seqs, .prefix = w->prefix, .o = a->o, .m = a->m, .l = a->l,
               .n_rows = of.rows, .n_seq = of.seqs, .max_len = w->max_len, .n_heads = d->H,
               .n_kv = d->K, .head_dim = d->D, .scale = vkm_attn_scale(d),
               .has_prefix = w->has_prefix);
    lora_down(p, i, VKM_LIN_O, of, a->o);
    base_parts(p, i, VKM_LIN_O, of.rows, a->o);
    adapted_linear(p, i, VKM_LIN_O, of.rows, a->o, &x, a->xmid);

    VKM_OP(p->s, rmsnorm_fwd, .x = a->xmid, .gain = layer->norm_mlp, .y = a->n2, .rstd = a->rstd2,
           .n_rows = of.rows, .n_cols = d->C, .eps = (float)d->norm_eps);
    lora_down(p, i, VKM_LIN_GATE, of, a->n2);
    base_parts(p, i, VKM_LIN_GATE, of.rows, a->n2);
    adapted_linear(p, i, VKM_LIN_GATE, of.rows, a->n2, NULL, a->gate);
    adapted_linear(p, i, VKM_LIN_UP, of.rows, a->n2, NULL, a->up);
    VKM_OP(p->s, swiglu_fwd, .gate = a->gate, .up = a->up, .y = a->act, .n_rows = of.rows,
           .n_cols = d->F);
    lora_down(p, i, VKM_LIN_DOWN, of, a->act);
    base_parts(p, i, VKM_LIN_DOWN, of.rows, a->act);
    adapted_linear(p, i, VKM_LIN_DOWN, of.rows, a->act, &a->xmid, y);
}

vkm_tensor vkm_forward(const vkm_pass *p) {
    vkm_work *w = p->w;
    const vkm_model_config *d = &w->model->dims;
    uint32_t n_streams = w->max.trains ? d->L + 1 : 2;
    VKM_OP(p->s, embed_fwd, .table = w->model->embed, .tokens = w->tokens, .x = w->x[0],
           .n_rows = w->n_rows, .n_cols = d->C, .n_vocab = d->V);
    for (uint32_t i = 0; i < d->L; i++)
        vkm_layer_forward(p, i, w->x[i % n_streams], w->x[(i + 1) % n_streams]);
    return w->x[d->L % n_streams];
}

void vkm_head_begin(const vkm_pass *p, vkm_tensor x_final) {
    vkm_work *w = p->w;
    const vkm_model *m = w->model;
    uint32_t c = m->dims.C;
    VKM_OP(p->s, gather_rows, .x = x_final, .rows = w->comp_rows, .y = w->xc, .n_rows = w->n_comp,
           .n_cols = c);
    VKM_OP(p->s, rmsnorm_fwd, .x = w->xc, .gain = m->norm_final, .y = w->nc, .rstd = w->rstdc,
           .n_rows = w->n_comp, .n_cols = c, .eps = (float)m->dims.norm_eps);
}

void vkm_head_rows(const vkm_pass *p, uint32_t row, uint32_t n) {
    vkm_work *w = p->w;
    const vkm_model *m = w->model;
    uint32_t c = m->dims.C, v = m->dims.V, nb = (v + 255) / 256, kp = vkm_op_kp(c);
    VKM_OP(p->s, gemm, .a = vkm_view(w->nc, (uint64_t)row * kp, vkm_op_size(n, c)), .b = m->head,
           .c = w->logits, .m = n, .n = v, .k = kp, .kpa = kp, .kpb = kp, .ldc = v);
    VKM_OP(p->s, lse_block, .logits = rows_of(w->logits, (uint64_t)n * v),
           .mb = rows_of(w->mb, (uint64_t)n * nb), .lb = rows_of(w->lb, (uint64_t)n * nb),
           .sb = rows_of(w->sb, (uint64_t)n * nb), .n_rows = n, .n_vocab = v);
    VKM_OP(p->s, lse_combine, .logits = w->logits, .mb = w->mb, .lb = w->lb, .sb = w->sb,
           .targets = vkm_view(w->targets, row, n), .m = vkm_view(w->m, row, n),
           .l = vkm_view(w->l, row, n), .logp = vkm_view(w->logp, row, n),
           .entropy = vkm_view(w->entropy, row, n), .n_rows = n, .n_vocab = v);
}

void vkm_head_forward(const vkm_pass *p, vkm_tensor x_final) {
    const vkm_work *w = p->w;
    vkm_head_begin(p, x_final);
    for (uint32_t row = 0; row < w->n_comp; row += w->max.logit_rows)
        vkm_head_rows(p, row,
                      w->n_comp - row < w->max.logit_rows ? w->n_comp - row : w->max.logit_rows);
}
