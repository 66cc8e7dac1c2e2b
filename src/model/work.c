/* Owns the workspace: its memory plan and the layout of a batch. */
#include <stdlib.h>

#include "model/work_impl.h"
#include "ops/tiles.h"

static void plan_acts(vkm_work *w, vkm_layer_acts *a, vkm_plan *p) {
    const vkm_model_config *d = &w->model->dims;
    uint64_t t = w->max.rows;
    uint32_t hd = d->H * d->D, kd = d->K * d->D;
    const char *c = "activations";
    vkm_plan_add(p, &a->n1, VKM_BF16, vkm_op_size(t, d->C), c);
    vkm_plan_add(p, &a->rstd1, VKM_F32, t, c);
    vkm_plan_add(p, &a->q, VKM_F32, t * hd, c);
    vkm_plan_add(p, &a->k, VKM_F32, t * kd, c);
    vkm_plan_add(p, &a->rstdq, VKM_F32, t * d->H, c);
    vkm_plan_add(p, &a->rstdk, VKM_F32, t * d->K, c);
    vkm_plan_add(p, &a->qr, VKM_BF16, t * hd, c);
    vkm_plan_add(p, &a->kr, VKM_BF16, t * kd, c);
    vkm_plan_add(p, &a->v, VKM_BF16, t * kd, c);
    vkm_plan_add(p, &a->o, VKM_BF16, vkm_op_size(t, hd), c);
    vkm_plan_add(p, &a->m, VKM_F32, t * d->H, c);
    vkm_plan_add(p, &a->l, VKM_F32, t * d->H, c);
    vkm_plan_add(p, &a->xmid, VKM_F32, t * d->C, c);
    vkm_plan_add(p, &a->n2, VKM_BF16, vkm_op_size(t, d->C), c);
    vkm_plan_add(p, &a->rstd2, VKM_F32, t, c);
    vkm_plan_add(p, &a->gate, VKM_F32, t * d->F, c);
    vkm_plan_add(p, &a->up, VKM_F32, t * d->F, c);
    vkm_plan_add(p, &a->act, VKM_BF16, vkm_op_size(t, d->F), c);
    for (vkm_linear_id i = 0; w->n_experts && i < VKM_N_LINEARS; i++)
        if (vkm_lora_group_of(i)->first == i)
            vkm_plan_add(p, &a->uh[i], VKM_BF16, vkm_op_size(t, vkm_uh_length(w, i)), c);
}

uint32_t vkm_uh_length(const vkm_work *w, vkm_linear_id id) {
    return vkm_lora_group_of(id)->n * w->n_experts * vkm_lora_kper(w->rank);
}

vkm_tensor vkm_uh_of(const vkm_work *w, uint32_t layer, vkm_linear_id id, uint32_t t) {
    const vkm_lora_group *g = vkm_lora_group_of(id);
    uint32_t mine = w->n_experts * vkm_lora_kper(w->rank), all = g->n * mine;
    uint64_t last = (vkm_round_up(t, 16) - 16) * all; /* first element of the last panel */
    return vkm_view(vkm_acts_of(w, layer)->uh[g->first], 16ull * (id - g->first) * mine,
                    last + 16ull * mine);
}

static void plan_grads(vkm_work *w, vkm_plan *p) {
    const vkm_model_config *d = &w->model->dims;
    vkm_layer_grads *g = &w->grads;
    uint64_t t = w->max.rows;
    uint32_t hd = d->H * d->D, kd = d->K * d->D, er = w->n_experts * w->rank;
    uint32_t kper = vkm_lora_kper(w->rank);
    uint32_t widest = d->C > d->F ? d->C : d->F;
    if (hd > widest) widest = hd;
    const char *c = "backward";
    vkm_plan_add(p, &g->dx, VKM_F32, t * d->C, c);
    vkm_plan_add(p, &g->dn, VKM_F32, t * d->C, c);
    vkm_plan_add(p, &g->dx16, VKM_BF16, vkm_op_size(t, d->C), c);
    vkm_plan_add(p, &g->dact, VKM_F32, t * d->F, c);
    vkm_plan_add(p, &g->dgate, VKM_BF16, vkm_op_size(t, d->F), c);
    vkm_plan_add(p, &g->dup, VKM_BF16, vkm_op_size(t, d->F), c);
    vkm_plan_add(p, &g->dout, VKM_BF16, t * hd, c);
    vkm_plan_add(p, &g->dr, VKM_F32, t * d->H, c);
    vkm_plan_add(p, &g->dq, VKM_F32, t * hd, c);
    vkm_plan_add(p, &g->dk, VKM_F32, t * kd, c);
    vkm_plan_add(p, &g->dqn, VKM_F32, t * hd, c);
    vkm_plan_add(p, &g->dkn, VKM_F32, t * kd, c);
    vkm_plan_add(p, &g->dq16, VKM_BF16, vkm_op_size(t, hd), c);
    vkm_plan_add(p, &g->dk16, VKM_BF16, vkm_op_size(t, kd), c);
    vkm_plan_add(p, &g->dv16, VKM_BF16, vkm_op_size(t, kd), c);
    vkm_plan_add(p, &g->t, VKM_F32, t * w->n_experts * kper, c);
    vkm_plan_add(p, &g->pz, VKM_BF16, vkm_op_size(t, w->n_experts * kper), c);
    vkm_plan_add(p, &g->pt, VKM_BF16, vkm_op_size(er, (uint32_t)t), c);
    vkm_plan_add(p, &g->ht, VKM_BF16, vkm_op_size(er, (uint32_t)t), c);
    vkm_plan_add(p, &g->df_tok, VKM_F32, t * w->n_experts, c);
    vkm_plan_add(p, &g->in_t, VKM_BF16, vkm_op_size(widest, (uint32_t)t), c);
    vkm_plan_add(p, &g->dy_t, VKM_BF16, vkm_op_size(widest, (uint32_t)t), c);
}

static void plan_head(vkm_work *w, vkm_plan *p) {
    const vkm_model_config *d = &w->model->dims;
    uint64_t n = w->max.rows, c = w->max.logit_rows, nb = (d->V + 255) / 256;
    vkm_plan_add(p, &w->xc, VKM_F32, n * d->C, "output head");
    vkm_plan_add(p, &w->nc, VKM_BF16, vkm_op_size(n, d->C), "output head");
    vkm_plan_add(p, &w->rstdc, VKM_F32, n, "output head");
    vkm_plan_add(p, &w->logits, VKM_F32, c * d->V, "output head");
    vkm_plan_add(p, &w->mb, VKM_F32, c * nb, "output head");
    vkm_plan_add(p, &w->lb, VKM_F32, c * nb, "output head");
    vkm_plan_add(p, &w->sb, VKM_F32, c * nb, "output head");
    vkm_tensor *per_token[] = {&w->m, &w->l, &w->logp, &w->entropy, &w->coef};
    for (size_t i = 0; i < VKM_COUNTOF(per_token); i++)
        vkm_plan_add(p, per_token[i], VKM_F32, n, "output head");
    if (!w->max.trains) return;
    vkm_plan_add(p, &w->dlogits, VKM_BF16, vkm_op_size(c, d->V), "output head");
    vkm_plan_add(p, &w->dnc, VKM_F32, n * d->C, "output head");
    vkm_plan_add(p, &w->dxc, VKM_F32, n * d->C, "output head");
}

uint32_t vkm_work_parts(const vkm_work *w, vkm_linear_id id, uint32_t t, uint32_t *n,
                        uint64_t *at) {
    const vkm_lora_group *g = vkm_lora_group_of(id);
    uint32_t d_in = 0, d_out, columns = 0, before = 0;
    for (uint32_t i = 0; i < g->n; i++) {
        vkm_linear_dims(&w->model->dims, (vkm_linear_id)(g->first + i), &d_in, &d_out);
        if (g->first + i < id) before += d_out;
        columns += d_out;
    }
    uint32_t k = vkm_op_kp(d_in), k_part = vkm_tile_k_part(w->model->dev, t, columns, k);
    *n = k_part ? (k + k_part - 1) / k_part : 0;
    *at = (uint64_t)*n * t * before;
    return k_part;
}

/* Elements of w->parts: the most that a decode step of so many rows makes at one time. */
static uint64_t parts_length(const vkm_work *w) {
    uint64_t most = 0, at;
    for (uint32_t t = 1; t <= w->max.seqs; t++)
        for (uint32_t i = 0; i < VKM_N_LINEARS; i++) {
            uint32_t d_in, d_out, n;
            vkm_linear_dims(&w->model->dims, (vkm_linear_id)i, &d_in, &d_out);
            (void)vkm_work_parts(w, (vkm_linear_id)i, t, &n, &at);
            if (at + (uint64_t)n * t * d_out > most) most = at + (uint64_t)n * t * d_out;
        }
    return most;
}

static void plan_work(vkm_work *w, vkm_plan *p) {
    const vkm_model_config *d = &w->model->dims;
    const char *acts = "activations";
    uint64_t t = w->max.rows, b = w->max.seqs, e = w->n_experts ? w->n_experts : 1;
    vkm_tensor *per_row[] = {&w->tokens,    &w->pos,     &w->row_seq,
                             &w->comp_rows, &w->targets, &w->comp_seq};
    for (size_t i = 0; i < VKM_COUNTOF(per_row); i++)
        vkm_plan_add(p, per_row[i], VKM_U32, t, "batch");
    vkm_plan_add(p, &w->seqs, VKM_U32, 4 * b, "batch");
    vkm_plan_add(p, &w->prefix, VKM_U32, 2 * b, "batch");
    vkm_tensor *per_seq[] = {&w->f, &w->xs, &w->g, &w->df};
    for (size_t i = 0; i < VKM_COUNTOF(per_seq); i++)
        vkm_plan_add(p, per_seq[i], VKM_F32, b * e, "batch");
    uint64_t pooled = b * w->model->dims.L * VKM_N_LINEARS * (w->rank ? w->rank : 1);
    vkm_plan_add(p, &w->pooled, VKM_F32, pooled, "batch");
    uint32_t n_streams = w->max.trains ? d->L + 1 : 2;
    uint32_t half = w->n_experts * vkm_lora_kper(w->rank) / 2;
    for (uint32_t i = 0; i < n_streams; i++) vkm_plan_add(p, &w->x[i], VKM_F32, t * d->C, acts);
    if (half) vkm_plan_add(p, &w->h, VKM_F32, t * VKM_MAX_LORA_GROUP * half, acts);
    uint64_t parts = parts_length(w);
    if (parts) vkm_plan_add(p, &w->parts, VKM_F32, parts, acts);
    for (uint32_t i = 0; i < (w->max.keep ? d->L : 1); i++) plan_acts(w, &w->acts[i], p);
    if (w->max.trains) plan_grads(w, p);
    plan_head(w, p);
    if (w->max.weights) vkm_work_plan_weights(w, p);
}

int vkm_work_may_keep(const vkm_model *model, uint32_t rows) {
    const vkm_model_config *d = &model->dims;
    uint64_t row = 16ull * d->L * (d->C + d->H * d->D + d->F); /* bytes, about */
    uint64_t budget = vkm_dev_budget(model->dev);
    return row * rows <= (budget ? budget / 4 : 1ull << 30);
}

uint32_t vkm_work_logit_rows(const vkm_model *model, uint32_t rows, uint32_t least) {
    enum { MOST_LOGITS = 1 << 25 }; /* 128 MiB */
    uint32_t n = MOST_LOGITS / model->dims.V;
    if (n > rows) n = rows;
    return n > least ? n : least;
}

vkm_status vkm_work_new(const vkm_model *model, const vkm_adapter *adapter, vkm_work_limits max,
                        vkm_plan *dry, vkm_work **out, vkm_err *err) {
    vkm_work *w = vkm_calloc(1, sizeof *w, "a workspace", err);
    if (!w) return err->status;
    w->model = model;
    w->n_experts = adapter ? adapter->n_experts : 0;
    w->rank = adapter ? adapter->rank : 0;
    w->max = max;
    w->max.rows = (uint32_t)vkm_round_up(max.rows, 16);
    w->max.logit_rows = (uint32_t)vkm_round_up(max.logit_rows, 16);
    w->x = vkm_calloc(model->dims.L + 1, sizeof *w->x, "a workspace", err);
    w->host = vkm_calloc(w->max.rows, sizeof *w->host, "a workspace", err);
    w->max_chunks = w->max.rows / (w->max.weights ? 256 : w->max.logit_rows) + w->max.seqs + 1;
    w->chunks = vkm_calloc(w->max_chunks, sizeof *w->chunks, "a workspace", err);
    w->acts = vkm_calloc(max.keep ? model->dims.L : 1, sizeof *w->acts, "a workspace", err);
    if (!w->x || !w->host || !w->chunks || !w->acts || (max.weights && vkm_work_new_lists(w, err)))
        goto fail;
    vkm_plan *p = dry ? dry : vkm_plan_new(model->dev);
    plan_work(w, p);
    if (!dry && vkm_plan_commit(p, &w->mem, err)) goto fail;
    *out = w;
    return VKM_OK;
fail:
    vkm_work_free(w);
    return err->status;
}

void vkm_work_free(vkm_work *w) {
    if (!w) return;
    vkm_mem_free(w->mem);
    free(w->lists.count);
    free(w->lists.next);
    free(w->chunks);
    free(w->acts);
    free(w->host);
    free(w->x);
    free(w);
}

/* A sequence's place: its first row, its rows with padding, the tokens before its own rows. */
typedef struct place {
    uint32_t row0, rows, skip;
} place;

typedef uint32_t (*row_value)(const vkm_seq *seq, uint32_t i_seq, place at, uint32_t i);

/* Of own row i (past the end: of the pad), or of completion token i. */
static uint32_t row_token(const vkm_seq *q, uint32_t i_seq, place at, uint32_t i) {
    (void)i_seq;
    return at.skip + i < q->len ? q->tokens[at.skip + i] : 0;
}
static uint32_t row_pos(const vkm_seq *q, uint32_t i_seq, place at, uint32_t i) {
    (void)i_seq;
    return at.skip + i < q->len ? at.skip + i : 0;
}
static uint32_t row_owner(const vkm_seq *q, uint32_t i_seq, place at, uint32_t i) {
    return at.skip + i < q->len ? i_seq : UINT32_MAX;
}
static uint32_t comp_row(const vkm_seq *q, uint32_t i_seq, place at, uint32_t i) {
    (void)q, (void)i_seq;
    return at.row0 + (i - 1 - at.skip);
}
static uint32_t comp_target(const vkm_seq *q, uint32_t i_seq, place at, uint32_t i) {
    (void)i_seq, (void)at;
    return q->tokens[i];
}
static uint32_t comp_owner(const vkm_seq *q, uint32_t i_seq, place at, uint32_t i) {
    (void)q, (void)at, (void)i;
    return i_seq;
}

/* The place of the first prefix in the batch; n_seq when there is none. */
static uint32_t first_prefix(const vkm_seq *seqs, uint32_t n_seq) {
    uint32_t first = n_seq;
    for (uint32_t b = 0; b < n_seq; b++)
        if (seqs[b].prefix && seqs[b].prefix - 1 < first) first = seqs[b].prefix - 1;
    return first;
}

static void check_prefix(const vkm_seq *seqs, uint32_t n_seq, uint32_t n_read, uint32_t b) {
    const vkm_seq *q = &seqs[b], *p = q->prefix ? &seqs[q->prefix - 1] : NULL;
    VKM_BUG_ON(q->comp0 == 0 || q->comp0 > q->len, "completion at %u of %u", q->comp0, q->len);
    VKM_BUG_ON(b >= n_read && (p || q->comp0 != q->len), "sequence %u among the prefixes", b);
    VKM_BUG_ON(p && (q->prefix > n_seq || p->len != q->comp0 - 1), "sequence %u behind sequence %u",
               b, q->prefix - 1);
}

/* Where each sequence lies; the largest count of own rows goes to w->max_len. */
static vkm_status set_places(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq, place *out,
                             vkm_err *err) {
    uint32_t *table = vkm_calloc(n_seq, 6 * sizeof *table, "a batch", err), row0 = 0;
    if (!table) return err->status;
    uint32_t *prefixes = table + 4ull * n_seq;
    w->n_seq = n_seq;
    w->n_read_seq = first_prefix(seqs, n_seq);
    w->has_prefix = w->n_read_seq < n_seq;
    w->max_len = 0;
    for (uint32_t b = 0; b < n_seq; b++) {
        const vkm_seq *q = &seqs[b];
        uint32_t own = vkm_seq_own(q), rows = w->has_prefix ? own : vkm_seq_rows(own);
        check_prefix(seqs, n_seq, w->n_read_seq, b);
        VKM_BUG_ON(row0 + rows > w->max.rows, "%u rows in a workspace of %u", row0 + rows,
                   w->max.rows);
        out[b] = (place){row0, rows, q->prefix ? q->comp0 - 1 : 0};
        const uint32_t of[4] = {row0, own, q->comp0 - out[b].skip, q->len - q->comp0};
        for (int i = 0; i < 4; i++) table[4 * b + (uint32_t)i] = of[i];
        if (own > w->max_len) w->max_len = own;
        row0 += rows;
        if (b < w->n_read_seq) w->n_read_rows = row0;
    }
    for (uint32_t b = 0; b < n_seq; b++) {
        prefixes[2 * b] = seqs[b].prefix ? out[seqs[b].prefix - 1].row0 : 0;
        prefixes[2 * b + 1] = out[b].skip;
    }
    if (!vkm_write(w->model->dev, vkm_view(w->seqs, 0, 4ull * n_seq), table, err))
        (void)!vkm_write(w->model->dev, vkm_view(w->prefix, 0, 2ull * n_seq), prefixes, err);
    free(table);
    return err->status;
}

static vkm_status set_rows(vkm_work *w, const vkm_seq *seqs, const place *at, vkm_err *err) {
    const struct {
        const vkm_tensor *dst;
        row_value value;
        int completion; /* over completion tokens, else over all rows */
    } columns[] = {{&w->tokens, row_token, 0},    {&w->pos, row_pos, 0},
                   {&w->row_seq, row_owner, 0},   {&w->comp_rows, comp_row, 1},
                   {&w->targets, comp_target, 1}, {&w->comp_seq, comp_owner, 1}};
    for (size_t c = 0; c < VKM_COUNTOF(columns); c++) {
        uint32_t n = 0;
        for (uint32_t b = 0; b < w->n_seq; b++) {
            const vkm_seq *q = &seqs[b];
            uint32_t first = columns[c].completion ? q->comp0 : 0;
            uint32_t last = columns[c].completion ? q->len : at[b].rows;
            for (uint32_t i = first; i < last; i++) w->host[n++] = columns[c].value(q, b, at[b], i);
        }
        *(columns[c].completion ? &w->n_comp : &w->n_rows) = n;
        if (vkm_write(w->model->dev, vkm_view(*columns[c].dst, 0, n), w->host, err))
            return err->status;
    }
    return VKM_OK;
}

vkm_status vkm_work_set_batch(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq, vkm_err *err) {
    VKM_BUG_ON(n_seq > w->max.seqs, "%u sequences in a workspace of %u", n_seq, w->max.seqs);
    place *at = vkm_calloc(n_seq, sizeof *at, "a batch", err);
    if (at && !set_places(w, seqs, n_seq, at, err)) (void)!set_rows(w, seqs, at, err);
    free(at);
    if (err->status) return err->status;
    if (w->max.weights) return vkm_work_set_lists(w, seqs, n_seq, err);
    w->n_chunks = 0;
    for (uint32_t row = 0; row < w->n_comp; row += w->max.logit_rows)
        w->chunks[w->n_chunks++] = (vkm_head_chunk){
            .row = row,
            .n = w->n_comp - row < w->max.logit_rows ? w->n_comp - row : w->max.logit_rows};
    return VKM_OK;
}
