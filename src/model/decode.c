/* Owns generation: caches, the recorded decode graph, waves of rollouts and the dropping of
 * finished rows. */
#include "model/decode.h"

#include <stdlib.h>
#include <string.h>

#include "base/phase.h"

enum { TOKENS_A_LOOK = 8, MAX_EOS = 16 };

struct vkm_gen {
    vkm_work *w;
    const vkm_adapter *adapter;
    vkm_gen_limits max;
    vkm_stream *s;
    vkm_mem *mem;
    vkm_tensor *prompt_k, *prompt_v, *own_k, *own_v; /* per layer */
    vkm_tensor state, cache_rows, scratch, params, eos, tokens, logp;
    /* host mirrors */
    uint32_t *h_state;  /* (rows, 8) */
    uint32_t *h_tokens; /* (max_new) */
    float *h_logp;
    float *h_f;         /* (rows, E) */
    uint32_t *last_row; /* (rows): workspace row that holds the end of a rollout's prompt */
};

static void plan_gen(vkm_gen *g, vkm_plan *p) {
    const vkm_model_config *d = &g->w->model->dims;
    uint64_t kd = (uint64_t)d->K * d->D, own = (uint64_t)g->max.rows * g->max.max_new;
    for (uint32_t i = 0; i < d->L; i++) {
        vkm_plan_add(p, &g->prompt_k[i], VKM_BF16, g->max.prompt_rows * kd, "kv cache");
        vkm_plan_add(p, &g->prompt_v[i], VKM_BF16, g->max.prompt_rows * kd, "kv cache");
        vkm_plan_add(p, &g->own_k[i], VKM_BF16, own * kd, "kv cache");
        vkm_plan_add(p, &g->own_v[i], VKM_BF16, own * kd, "kv cache");
    }
    vkm_plan_add(p, &g->state, VKM_U32, (uint64_t)g->max.rows * VKM_ROW_WORDS, "decode");
    vkm_plan_add(p, &g->cache_rows, VKM_U32, g->max.rows, "decode");
    vkm_plan_add(p, &g->scratch, VKM_F32, (uint64_t)g->max.rows * d->H * g->max.max_keys, "decode");
    vkm_plan_add(p, &g->params, VKM_U32, VKM_SAMPLE_WORDS, "decode");
    vkm_plan_add(p, &g->eos, VKM_U32, MAX_EOS + 1, "decode");
    vkm_plan_add(p, &g->tokens, VKM_U32, (uint64_t)g->max.ids * g->max.max_new, "decode");
    vkm_plan_add(p, &g->logp, VKM_F32, (uint64_t)g->max.ids * g->max.max_new, "decode");
}

vkm_status vkm_gen_new(vkm_work *w, const vkm_adapter *adapter, vkm_gen_limits max, vkm_plan *dry,
                       vkm_gen **out, vkm_err *err) {
    VKM_BUG_ON(max.rows > w->max.seqs || max.rows > w->max.logit_rows || max.rows > w->max.rows,
               "%u decode rows in a workspace of %u sequences, %u logit rows", max.rows,
               w->max.seqs, w->max.logit_rows);
    uint32_t n_layers = w->model->dims.L;
    vkm_gen *g = vkm_calloc(1, sizeof *g, "generation", err);
    if (!g) return err->status;
    g->w = w;
    g->adapter = adapter;
    g->max = max;
    vkm_tensor **caches[] = {&g->prompt_k, &g->prompt_v, &g->own_k, &g->own_v};
    for (size_t i = 0; i < VKM_COUNTOF(caches); i++) {
        *caches[i] = vkm_calloc(n_layers, sizeof **caches[i], "generation", err);
        if (!*caches[i]) goto fail;
    }
    g->h_state = vkm_calloc(max.rows, VKM_ROW_WORDS * sizeof *g->h_state, "generation", err);
    g->h_tokens = vkm_calloc(max.max_new, sizeof *g->h_tokens, "generation", err);
    g->h_logp = vkm_calloc(max.max_new, sizeof *g->h_logp, "generation", err);
    g->h_f = vkm_calloc(max.rows, VKM_MAX_EXPERTS * sizeof *g->h_f, "generation", err);
    g->last_row = vkm_calloc(max.rows, sizeof *g->last_row, "generation", err);
    if (!g->h_state || !g->h_tokens || !g->h_logp || !g->h_f || !g->last_row) goto fail;
    vkm_plan *p = dry ? dry : vkm_plan_new(w->model->dev);
    plan_gen(g, p);
    if (!dry && vkm_plan_commit(p, &g->mem, err)) goto fail;
    if (vkm_stream_new(w->model->dev, &g->s, err)) goto fail;
    *out = g;
    return VKM_OK;
fail:
    vkm_gen_free(g);
    return err->status;
}

void vkm_gen_free(vkm_gen *g) {
    if (!g) return;
    vkm_stream_free(g->s);
    vkm_mem_free(g->mem);
    free(g->prompt_k), free(g->prompt_v), free(g->own_k), free(g->own_v);
    free(g->h_state), free(g->h_tokens), free(g->h_logp), free(g->h_f), free(g->last_row);
    free(g);
}

void vkm_decode_attention(const vkm_decode *d, vkm_stream *s, vkm_work *w, uint32_t layer) {
    const vkm_model_config *m = &w->model->dims;
    const vkm_layer_acts *a = vkm_acts_of(w, layer);
    VKM_OP(s, attn_decode, .q = a->qr, .prompt_k = d->prompt_k[layer],
           .prompt_v = d->prompt_v[layer], .own_k = d->own_k[layer], .own_v = d->own_v[layer],
           .state = d->state, .o = a->o, .scratch = d->scratch, .n_rows = w->n_rows,
           .n_heads = m->H, .n_kv = m->K, .head_dim = m->D, .max_keys = d->max_keys,
           .scale = vkm_attn_scale(m));
}

/* From the hidden rows w->comp_rows picks (n of them) to the next token of each. */
static void record_sample(vkm_gen *g, vkm_tensor x, uint32_t n) {
    vkm_work *w = g->w;
    const vkm_model *m = w->model;
    uint32_t c = m->dims.C, v = m->dims.V, kp = vkm_op_kp(c);
    VKM_OP(g->s, rmsnorm_fwd, .x = x, .gain = m->norm_final, .y = w->nc, .rstd = w->rstdc,
           .n_rows = n, .n_cols = c, .eps = (float)m->dims.norm_eps);
    VKM_OP(g->s, gemm, .a = w->nc, .b = m->head, .c = w->logits, .m = n, .n = v, .k = kp, .kpa = kp,
           .kpb = kp, .ldc = v);
    VKM_OP(g->s, lse_block, .logits = w->logits, .mb = w->mb, .lb = w->lb, .sb = w->sb, .n_rows = n,
           .n_vocab = v);
    VKM_OP(g->s, sample, .logits = w->logits, .mb = w->mb, .lb = w->lb, .params = g->params,
           .eos = g->eos, .state = g->state, .tokens = g->tokens, .logp = g->logp, .n_rows = n,
           .n_vocab = v, .max_new = g->max.max_new);
}

static int same_prefill(const vkm_gen_row *a, const vkm_gen_row *b) {
    return a->prompt == b->prompt && a->prompt_len == b->prompt_len &&
           memcmp(a->f, b->f, sizeof a->f) == 0;
}

/* Prompts [first, ...) of the wave as one batch that fits the workspace; each distinct (prompt,
 * state) once. Fills state columns of the rollouts it serves; returns how many. */
static vkm_status prefill_some(vkm_gen *g, const vkm_gen_row *rows, uint32_t first, uint32_t n,
                               uint32_t *cache_row, uint32_t *served, vkm_err *err) {
    vkm_work *w = g->w;
    const vkm_model_config *d = &w->model->dims;
    uint64_t kd = (uint64_t)d->K * d->D;
    uint32_t n_seq = 0, n_rows = 0, end = first;
    vkm_seq *seqs = vkm_calloc(n - first, sizeof *seqs, "a prefill", err);
    uint32_t experts = g->adapter ? g->adapter->n_experts : 0;
    float *f = vkm_calloc(n - first, VKM_MAX_EXPERTS * sizeof *f, "a prefill", err);
    vkm_tensor *kv = vkm_calloc(2ull * d->L, sizeof *kv, "a prefill", err);
    if (!seqs || !f || !kv) goto done;
    for (; end < n; end++) {
        const vkm_gen_row *r = &rows[end];
        if (end == first || !same_prefill(r, r - 1)) {
            if (n_rows + vkm_seq_rows(r->prompt_len) > w->max.rows) break;
            seqs[n_seq] = (vkm_seq){r->prompt, r->prompt_len, r->prompt_len};
            memcpy(f + (uint64_t)n_seq++ * experts, r->f, experts * sizeof *f);
            n_rows += vkm_seq_rows(r->prompt_len);
        }
        uint32_t row0 = n_rows - vkm_seq_rows(r->prompt_len);
        uint32_t *st = g->h_state + (uint64_t)end * VKM_ROW_WORDS;
        st[VKM_ROW_PROMPT0] = *cache_row + row0;
        st[VKM_ROW_PROMPT_LEN] = r->prompt_len;
        st[VKM_ROW_OWN0] = end * g->max.max_new;
        st[VKM_ROW_N_OWN] = st[VKM_ROW_TOKEN] = st[VKM_ROW_FINISHED] = st[VKM_ROW_SPARE] = 0;
        st[VKM_ROW_ROLLOUT] = r->id;
        g->last_row[end] = row0 + r->prompt_len - 1;
    }
    VKM_BUG_ON(end == first, "a prompt of %u tokens in a workspace of %u rows",
               rows[first].prompt_len, w->max.rows);
    VKM_BUG_ON(*cache_row + n_rows > g->max.prompt_rows, "prompt cache of %u rows is too small",
               g->max.prompt_rows);
    if (vkm_work_set_batch(w, seqs, n_seq, err)) goto done;
    if (experts && vkm_write(w->model->dev, vkm_view(w->f, 0, (uint64_t)n_seq * experts), f, err))
        goto done;
    for (uint32_t i = 0; i < d->L; i++) {
        kv[i] = vkm_view(g->prompt_k[i], *cache_row * kd, n_rows * kd);
        kv[d->L + i] = vkm_view(g->prompt_v[i], *cache_row * kd, n_rows * kd);
    }
    vkm_pass p = {.s = g->s, .w = w, .adapter = g->adapter, .k = kv, .v = kv + d->L};
    vkm_tensor x = vkm_forward(&p);
    uint32_t count = end - first;
    vkm_tensor state = g->state;
    if (vkm_write(w->model->dev, vkm_view(w->comp_rows, 0, count), g->last_row + first, err) ||
        vkm_write(w->model->dev, vkm_view(state, 0, (uint64_t)count * VKM_ROW_WORDS),
                  g->h_state + (uint64_t)first * VKM_ROW_WORDS, err))
        goto done;
    VKM_OP(g->s, gather_rows, .x = x, .rows = w->comp_rows, .y = w->xc, .n_rows = count,
           .n_cols = d->C);
    record_sample(g, w->xc, count);
    if (vkm_stream_flush(g->s, err) ||
        vkm_read(w->model->dev, vkm_view(state, 0, (uint64_t)count * VKM_ROW_WORDS),
                 g->h_state + (uint64_t)first * VKM_ROW_WORDS, err))
        goto done;
    *cache_row += n_rows;
    *served = count;
done:
    free(kv);
    free(f);
    free(seqs);
    return err->status;
}

/* One decode step over n rows, recorded to be run once a token. */
static vkm_status record_step(vkm_gen *g, uint32_t n, vkm_graph **out, vkm_err *err) {
    vkm_work *w = g->w;
    vkm_decode d = {.prompt_k = g->prompt_k,
                    .prompt_v = g->prompt_v,
                    .own_k = g->own_k,
                    .own_v = g->own_v,
                    .state = g->state,
                    .rows = g->cache_rows,
                    .scratch = g->scratch,
                    .max_keys = g->max.max_keys};
    vkm_pass p = {.s = g->s, .w = w, .adapter = g->adapter, .decode = &d};
    w->n_rows = w->n_seq = n;
    VKM_OP(g->s, decode_begin, .state = g->state, .tokens = w->tokens, .pos = w->pos,
           .rows = g->cache_rows, .n_rows = n);
    record_sample(g, vkm_forward(&p), n);
    return vkm_stream_take_graph(g->s, out, err);
}

/* The rows that are decoded, and who is told of them. */
typedef struct wave {
    uint32_t *rows; /* indices of the call's rows, those that go on first */
    vkm_gen_look look;
    vkm_gen_done done;
    void *user;
} wave;

/* Hands finished rows to the caller and closes the gaps; order is kept. */
static vkm_status drop_finished(vkm_gen *g, const wave *v, uint32_t *n_live, vkm_err *err) {
    vkm_dev *dev = g->w->model->dev;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < *n_live; i++) {
        uint32_t *st = g->h_state + (uint64_t)i * VKM_ROW_WORDS, n = st[VKM_ROW_N_OWN];
        uint64_t at = (uint64_t)st[VKM_ROW_ROLLOUT] * g->max.max_new;
        int ends = st[VKM_ROW_FINISHED] != 0;
        if ((ends || v->look) && vkm_read(dev, vkm_view(g->tokens, at, n), g->h_tokens, err))
            return err->status;
        if (v->look) {
            uint32_t cut = v->look(v->user, v->rows[i], g->h_tokens, n);
            ends |= cut != UINT32_MAX;
            if (cut < n) n = cut;
        }
        if (!ends) {
            memmove(g->h_state + (uint64_t)kept * VKM_ROW_WORDS, st, VKM_ROW_WORDS * sizeof *st);
            v->rows[kept++] = v->rows[i];
            continue;
        }
        if (vkm_read(dev, vkm_view(g->logp, at, n), g->h_logp, err) ||
            v->done(v->user, v->rows[i], g->h_tokens, g->h_logp, n, err))
            return err->status;
    }
    *n_live = kept;
    return VKM_OK;
}

/* Uploads what a set of n live rows needs: their state, and their adapter weights by row. */
static vkm_status upload_live(vkm_gen *g, const vkm_gen_row *all, const uint32_t *rows, uint32_t n,
                              vkm_err *err) {
    vkm_work *w = g->w;
    uint32_t experts = g->adapter ? g->adapter->n_experts : 0;
    if (vkm_write(w->model->dev, vkm_view(g->state, 0, (uint64_t)n * VKM_ROW_WORDS), g->h_state,
                  err))
        return err->status;
    for (uint32_t i = 0; i < n; i++) w->host[i] = i;
    if (vkm_write(w->model->dev, vkm_view(w->row_seq, 0, n), w->host, err)) return err->status;
    if (!experts) return VKM_OK;
    for (uint32_t i = 0; i < n; i++)
        memcpy(g->h_f + (uint64_t)i * experts, all[rows[i]].f, experts * sizeof *g->h_f);
    return vkm_write(w->model->dev, vkm_view(w->f, 0, (uint64_t)n * experts), g->h_f, err);
}

static vkm_status decode_wave(vkm_gen *g, const vkm_gen_row *all, const wave *v, uint32_t n_live,
                              vkm_err *err) {
    vkm_graph *graph = NULL;
    uint32_t recorded = 0;
    if (drop_finished(g, v, &n_live, err)) return err->status;
    while (n_live && !err->status) {
        if (n_live != recorded) {
            vkm_graph_free(graph);
            graph = NULL;
            if (upload_live(g, all, v->rows, n_live, err) || record_step(g, n_live, &graph, err))
                break;
            recorded = n_live;
        }
        if (vkm_graph_run(graph, TOKENS_A_LOOK, err) ||
            vkm_read(g->w->model->dev, vkm_view(g->state, 0, (uint64_t)n_live * VKM_ROW_WORDS),
                     g->h_state, err))
            break;
        (void)!drop_finished(g, v, &n_live, err);
    }
    vkm_graph_free(graph);
    return err->status;
}

/* How many of the rows from `first` fit one wave: row and prompt-cache limits. */
static uint32_t wave_size(const vkm_gen *g, const vkm_gen_row *rows, uint32_t first, uint32_t n) {
    uint32_t cache = 0, i = first;
    for (; i < n && i - first < g->max.rows; i++) {
        if (i == first || !same_prefill(&rows[i], &rows[i - 1]))
            cache += vkm_seq_rows(rows[i].prompt_len);
        if (cache > g->max.prompt_rows) break;
    }
    return i - first;
}

vkm_status vkm_generate(vkm_gen *g, const vkm_gen_row *rows, uint32_t n, const vkm_gen_options *how,
                        vkm_gen_done done, void *user, vkm_err *err) {
    uint32_t words[VKM_SAMPLE_WORDS], eos[MAX_EOS + 1] = {0};
    vkm_dev *dev = g->w->model->dev;
    VKM_BUG_ON(how->n_eos > MAX_EOS, "%u end tokens", how->n_eos);
    eos[0] = how->n_eos;
    for (uint32_t i = 0; i < how->n_eos; i++) eos[i + 1] = how->eos[i];
    if (vkm_sampling_words(&how->dist, how->seed, how->step, how->draw, words, err) ||
        vkm_write(dev, g->params, words, err) || vkm_write(dev, g->eos, eos, err))
        return err->status;
    uint32_t *live = vkm_calloc(g->max.rows, sizeof *live, "generation", err);
    if (!live) return err->status;
    const wave v = {live, how->look, done, user};
    for (uint32_t first = 0; first < n && !err->status;) {
        uint32_t count = wave_size(g, rows, first, n), cache_row = 0, served = 0;
        VKM_BUG_ON(count == 0, "a prompt of %u tokens in a cache of %u rows",
                   rows[first].prompt_len, g->max.prompt_rows);
        vkm_phase was = vkm_phase_go(VKM_PHASE_prefill);
        for (uint32_t at = 0; at < count && !err->status; at += served) {
            VKM_BUG_ON(rows[first + at].id >= g->max.ids, "row id %u of %u", rows[first + at].id,
                       g->max.ids);
            (void)!prefill_some(g, rows + first, at, count, &cache_row, &served, err);
        }
        for (uint32_t i = 0; i < count; i++) live[i] = first + i;
        (void)vkm_phase_go(VKM_PHASE_decode);
        if (!err->status) (void)!decode_wave(g, rows, &v, count, err);
        (void)vkm_phase_go(was);
        first += count;
    }
    free(live);
    return err->status;
}
