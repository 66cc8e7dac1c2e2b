/* Owns the micro-batches of the policy's passes. */
#include "rl/policy.h"

#include <stdlib.h>
#include <string.h>

#include "base/phase.h"
#include "ops/grpo.h"
#include "ops/softmath.h"
#include "rl/optimizer.h"

static uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

/* Workspace limits that both decoding and micro-batches fit. */
static vkm_work_limits work_limits(const vkm_policy_limits *m) {
    uint32_t longest = vkm_seq_rows(m->max_prompt + m->max_new);
    uint32_t rows = larger(larger(m->micro_rows, longest), m->rollouts);
    return (vkm_work_limits){
        .rows = rows, .seqs = larger(rows / 16, m->rollouts) + 1, .trains = m->trains};
}

vkm_status vkm_policy_new(vkm_dev *dev, const char *model_folder, const vkm_policy_limits *max,
                          vkm_plan *dry, vkm_policy **out, vkm_err *err) {
    vkm_policy *p = vkm_calloc(1, sizeof *p, "the policy", err);
    if (!p) return err->status;
    p->dev = dev;
    vkm_work_limits w = work_limits(max);
    vkm_adapter_options a = {.n_experts = max->n_experts,
                             .rank = max->rank,
                             .seed = max->seed,
                             .adam_v_per_tensor = max->adam_v_per_tensor,
                             .trains = max->trains};
    vkm_gen_limits g = {.rows = max->rollouts,
                        .ids = max->ids,
                        .max_new = max->max_new,
                        .prompt_rows = max->prompts * vkm_seq_rows(max->max_prompt),
                        .max_keys = max->max_prompt + max->max_new};
    if (vkm_model_load(dev, model_folder, max->max_prompt + max->max_new, max->trains, dry,
                       &p->model, err))
        goto fail;
    w.keep = max->trains && vkm_work_may_keep(p->model, w.rows);
    w.logit_rows = vkm_work_logit_rows(p->model, w.rows, max->rollouts);
    if ((max->n_experts && vkm_adapter_new(dev, &p->model->dims, &a, dry, &p->adapter, err)) ||
        vkm_work_new(p->model, p->adapter, w, dry, &p->work, err) ||
        (max->max_new && vkm_gen_new(p->work, p->adapter, g, dry, &p->gen, err)) ||
        vkm_stream_new(dev, &p->s, err))
        goto fail;
    *out = p;
    if (!max->trains) return VKM_OK;
    vkm_plan *plan = dry ? dry : vkm_plan_new(dev);
    vkm_plan_add(plan, &p->logp_old, VKM_F32, w.rows, "loss");
    vkm_plan_add(plan, &p->logp_ref, VKM_F32, w.rows, "loss");
    vkm_plan_add(plan, &p->adv, VKM_F32, w.seqs, "loss");
    vkm_plan_add(plan, &p->weight, VKM_F32, w.seqs, "loss");
    vkm_plan_add(plan, &p->terms, VKM_F32, (uint64_t)VKM_TERM_WORDS * w.rows, "loss");
    if (!dry && vkm_plan_commit(plan, &p->mem, err)) goto fail;
    return VKM_OK;
fail:
    *out = NULL;
    vkm_policy_free(p);
    return err->status;
}

void vkm_policy_free(vkm_policy *p) {
    if (!p) return;
    vkm_mem_free(p->mem);
    vkm_stream_free(p->s);
    vkm_gen_free(p->gen);
    vkm_work_free(p->work);
    vkm_adapter_free(p->adapter);
    vkm_model_free(p->model);
    free(p);
}

static uint32_t n_completion(const vkm_example *x) {
    return x->seq.len - x->seq.comp0;
}

/* Whether x's rows of the prompt may be y's too. */
static int same_prompt(const vkm_example *x, const vkm_example *y) {
    return x->seq.comp0 == y->seq.comp0 && !memcmp(x->f, y->f, sizeof x->f) &&
           !memcmp(x->seq.tokens, y->seq.tokens, x->seq.comp0 * sizeof *x->seq.tokens);
}

/* Examples from i on, of n, that share a prompt. */
static uint32_t run_length(const vkm_example *x, uint32_t i, uint32_t n) {
    uint32_t k = 1;
    while (i + k < n && same_prompt(&x[i], &x[i + k])) k++;
    return k;
}

/* Tokens of x that may be a prefix: the prompt but for its last token, which predicts. */
static uint32_t prefix_of(const vkm_example *x) {
    return x->seq.comp0 - 1;
}

/* How many examples from `first` make one micro-batch: as many as the row limit takes, at least
 * one. reads: prompts are prefixes, held once where several in a row are the same. */
static uint32_t micro_batch(const vkm_policy *p, const vkm_example *x, uint32_t first, uint32_t n,
                            int reads) {
    uint32_t rows = 0, seqs = 0;
    VKM_BUG_ON(vkm_seq_rows(x[first].seq.len) > p->work->max.rows,
               "a sequence of %u tokens in a workspace of %u rows", x[first].seq.len,
               p->work->max.rows);
    for (uint32_t i = first, k; i < n; i += k) {
        k = reads ? run_length(x, i, n) : 1;
        uint32_t prefix = reads ? prefix_of(&x[i]) : 0;
        rows += prefix;
        seqs += prefix > 0;
        for (uint32_t j = i; j < i + k; j++) {
            rows += reads ? x[j].seq.len - prefix : vkm_seq_rows(x[j].seq.len);
            seqs++;
            if (rows > p->work->max.rows || seqs > p->work->max.seqs) return j - first;
        }
    }
    return n - first;
}

/* A (n,E) table of the examples, each row at byte `offset` of the example. */
static vkm_status upload_table(vkm_policy *p, vkm_tensor t, const vkm_example *x, uint32_t n,
                               size_t offset, uint32_t cols, vkm_err *err) {
    float *host = vkm_calloc((uint64_t)n * cols, sizeof *host, "a batch", err);
    if (!host) return err->status;
    for (uint32_t i = 0; i < n; i++)
        memcpy(host + (uint64_t)i * cols, (const char *)&x[i] + offset, cols * sizeof *host);
    vkm_status st = vkm_write(p->dev, vkm_view(t, 0, (uint64_t)n * cols), host, err);
    free(host);
    return st;
}

/* A batch as the workspace takes it: sequences (n_seq), those of the examples first, and the f of
 * each (n_seq, e). */
typedef struct layout {
    vkm_seq *seqs;
    float *f;
    uint32_t n_seq, e;
} layout;

static void add_seq(layout *l, vkm_seq q, const float *f) {
    memcpy(l->f + (uint64_t)l->n_seq * l->e, f, l->e * sizeof *f);
    l->seqs[l->n_seq++] = q;
}

/* Moves the examples' prompts into sequences of their own, one for each run of the same. */
static void split_prompts(layout *l, const vkm_example *x, uint32_t n) {
    for (uint32_t i = 0, k; i < n; i += k) {
        uint32_t prefix = prefix_of(&x[i]);
        k = run_length(x, i, n);
        if (!prefix) continue;
        add_seq(l, (vkm_seq){x[i].seq.tokens, prefix, prefix, 0}, x[i].f);
        for (uint32_t j = i; j < i + k; j++) l->seqs[j].prefix = l->n_seq;
    }
}

/* Example i becomes sequence i. reads: as for micro_batch; forward only. */
static vkm_status set_batch(vkm_policy *p, const vkm_example *x, uint32_t n, int reads,
                            vkm_err *err) {
    layout l = {.e = p->adapter ? p->adapter->n_experts : 0};
    l.seqs = vkm_calloc(2ull * n, sizeof *l.seqs, "a batch", err);
    l.f = vkm_calloc(2ull * n * VKM_MAX_EXPERTS, sizeof *l.f, "a batch", err);
    if (!l.seqs || !l.f) goto done;
    for (uint32_t i = 0; i < n; i++) add_seq(&l, x[i].seq, x[i].f);
    if (reads) split_prompts(&l, x, n);
    if (!vkm_work_set_batch(p->work, l.seqs, l.n_seq, err) && l.e)
        (void)!vkm_write(p->dev, vkm_view(p->work->f, 0, (uint64_t)l.n_seq * l.e), l.f, err);
done:
    free(l.f), free(l.seqs);
    return err->status;
}

/* Per-token arrays of the examples, gathered from or scattered to one device vector. */
static vkm_status upload_tokens(vkm_policy *p, vkm_tensor t, const vkm_example *x, uint32_t n,
                                size_t offset, vkm_err *err) {
    float *host = vkm_calloc(p->work->n_comp, sizeof *host, "a batch", err);
    if (!host) return err->status;
    for (uint32_t i = 0, at = 0; i < n; at += n_completion(&x[i]), i++) {
        const float *src;
        memcpy(&src, (const char *)&x[i] + offset, sizeof src);
        if (src) memcpy(host + at, src, n_completion(&x[i]) * sizeof *host);
    }
    vkm_status st = vkm_write(p->dev, vkm_view(t, 0, p->work->n_comp), host, err);
    free(host);
    return st;
}

static vkm_status download_tokens(vkm_policy *p, vkm_tensor t, vkm_example *x, uint32_t n,
                                  size_t offset, vkm_err *err) {
    float *host = vkm_calloc(p->work->n_comp, sizeof *host, "a batch", err);
    if (!host) return err->status;
    vkm_status st = vkm_read(p->dev, vkm_view(t, 0, p->work->n_comp), host, err);
    for (uint32_t i = 0, at = 0; i < n && !st; at += n_completion(&x[i]), i++) {
        float *dst;
        memcpy(&dst, (const char *)&x[i] + offset, sizeof dst);
        if (dst) memcpy(dst, host + at, n_completion(&x[i]) * sizeof *host);
    }
    free(host);
    return st;
}

static vkm_status download_rows(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) {
    if (download_tokens(p, p->work->logp, x, n, offsetof(vkm_example, logp), err))
        return err->status;
    return download_tokens(p, p->work->entropy, x, n, offsetof(vkm_example, entropy), err);
}

static vkm_status read_pooled(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) {
    if (!x->pooled) return VKM_OK;
    uint64_t width = (uint64_t)p->adapter->n_modules * p->adapter->rank;
    for (uint32_t i = 0; i < n; i++) {
        if (vkm_read(p->dev, vkm_view(p->work->pooled, i * width, width), x[i].pooled, err))
            return err->status;
    }
    return VKM_OK;
}

/* Experts of weight 0 add nothing: without an adapter the bits are the same. */
static int is_bare(const vkm_example *x, uint32_t n) {
    int bare = !x->pooled;
    for (uint32_t i = 0; i < n; i++)
        for (int e = 0; e < VKM_MAX_EXPERTS; e++) bare &= x[i].f[e] == 0;
    return bare;
}

static vkm_status read_micro_batch(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) {
    if (set_batch(p, x, n, 1, err)) return err->status;
    vkm_pass pass = {.s = p->s,
                     .w = p->work,
                     .adapter = is_bare(x, n) ? NULL : p->adapter,

                     .pool = x->pooled != NULL};
    vkm_tensor hidden = vkm_forward(&pass);
    if (x->logp || x->entropy) vkm_head_forward(&pass, hidden);
    if (vkm_stream_flush(p->s, err) || read_pooled(p, x, n, err)) return err->status;
    return x->logp || x->entropy ? download_rows(p, x, n, err) : VKM_OK;
}

vkm_status vkm_policy_read(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) {
    for (uint32_t first = 0, count; first < n && !err->status; first += count) {
        count = micro_batch(p, x, first, n, 1);
        (void)!read_micro_batch(p, x + first, count, err);
    }
    return err->status;
}

vkm_status vkm_policy_logits(vkm_policy *p, const vkm_example *x, vkm_logits_sink sink, void *user,
                             vkm_err *err) {
    uint32_t v = p->model->dims.V, most = p->work->max.logit_rows;
    float *host = vkm_calloc((uint64_t)most * v, sizeof *host, "logits", err);
    if (!host || set_batch(p, x, 1, 0, err)) goto done;
    vkm_pass pass = {.s = p->s, .w = p->work, .adapter = p->adapter};
    vkm_head_begin(&pass, vkm_forward(&pass));
    for (uint32_t row = 0; row < p->work->n_comp && !err->status; row += most) {
        uint32_t n = p->work->n_comp - row < most ? p->work->n_comp - row : most;
        vkm_head_rows(&pass, row, n);
        if (!vkm_stream_flush(p->s, err) &&
            !vkm_read(p->dev, vkm_view(p->work->logits, 0, (uint64_t)n * v), host, err))
            (void)!sink(user, host, n, err);
    }
done:
    free(host);
    return err->status;
}

/* dL/dlogp of the mean negative log-likelihood of each completion. */
static vkm_status upload_mean_nll(vkm_policy *p, const vkm_example *x, uint32_t n, vkm_err *err) {
    float *host = vkm_calloc(p->work->n_comp, sizeof *host, "a batch", err);
    if (!host) return err->status;
    for (uint32_t i = 0, at = 0; i < n; i++)
        for (uint32_t j = n_completion(&x[i]), len = j; j > 0; j--)
            host[at++] = -VKM_LOSS_SCALE * vkm_div(1.0f, (float)(int)len);
    vkm_status st = vkm_write(p->dev, vkm_view(p->work->coef, 0, p->work->n_comp), host, err);
    free(host);
    return st;
}

vkm_status vkm_policy_rank_gradients(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) {
    for (uint32_t first = 0, count; first < n; first += count) {
        vkm_example *b = x + first;
        count = micro_batch(p, x, first, n, 0);
        if (set_batch(p, b, count, 0, err) || upload_mean_nll(p, b, count, err) ||
            upload_table(p, p->work->xs, b, count, offsetof(vkm_example, f), p->adapter->n_experts,
                         err))
            return err->status;
        vkm_pass pass = {.s = p->s, .w = p->work, .adapter = p->adapter, .rank_grads = 1};
        vkm_backward(&pass, vkm_forward(&pass));
        if (vkm_stream_flush(p->s, err) || read_pooled(p, b, count, err)) return err->status;
        if ((b->logp || b->entropy) && download_rows(p, b, count, err)) return err->status;
    }
    return VKM_OK;
}

static void each_gradient(vkm_policy *p, void (*record)(vkm_stream *, vkm_tensor, vkm_tensor)) {
    for (uint32_t i = 0; i < p->adapter->n_modules; i++)
        for (int f = 0; f < 2; f++)
            record(p->s, p->adapter->modules[i].group_grad[f], p->adapter->modules[i].grad[f]);
}

static void record_zero(vkm_stream *s, vkm_tensor group, vkm_tensor total) {
    VKM_OP(s, zero, .y = group, .n = (uint32_t)group.n);
    VKM_OP(s, zero, .y = total, .n = (uint32_t)total.n);
}

vkm_status vkm_policy_zero_grad(vkm_policy *p, vkm_err *err) {
    each_gradient(p, record_zero);
    return vkm_stream_flush(p->s, err);
}

static vkm_status read_terms(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) {
    uint32_t n_comp = p->work->n_comp;
    float *terms = vkm_calloc((uint64_t)VKM_TERM_WORDS * n_comp, sizeof *terms, "a batch", err);
    if (!terms) return err->status;
    vkm_status st =
        vkm_read(p->dev, vkm_view(p->terms, 0, (uint64_t)VKM_TERM_WORDS * n_comp), terms, err);
    const float *t = terms;
    for (uint32_t i = 0; i < n && !st; i++) {
        x[i].policy_loss = x[i].kl = 0;
        x[i].n_clipped = 0;
        for (uint32_t j = n_completion(&x[i]); j > 0; j--, t += VKM_TERM_WORDS) {
            x[i].policy_loss += (double)t[VKM_TERM_POLICY];
            x[i].kl += (double)t[VKM_TERM_KL];
            x[i].n_clipped += t[VKM_TERM_CLIPPED] > 0;
        }
    }
    free(terms);
    return st;
}

/* The groups of examples [first, first + count) of n; a group may go on in the next batch. */
static uint32_t groups_of(const vkm_example *x, uint32_t first, uint32_t count, uint32_t n,
                          vkm_batch_group *out) {
    uint32_t n_groups = 0;
    for (uint32_t i = first; i < first + count; i++) {
        if (i == first || x[i].group != x[i - 1].group)
            out[n_groups++] = (vkm_batch_group){.first = i - first};
        out[n_groups - 1].n++;
        out[n_groups - 1].closes = i + 1 == n || x[i + 1].group != x[i].group;
    }
    return n_groups;
}

typedef struct grpo_of {
    const vkm_policy *policy;
    const vkm_loss_options *o;
} grpo_of;

static void record_grpo(const vkm_pass *pass, uint32_t row, uint32_t n) {
    const vkm_policy *p = ((const grpo_of *)pass->loss_arg)->policy;
    const vkm_loss_options *o = ((const grpo_of *)pass->loss_arg)->o;
    const vkm_work *w = p->work;
    VKM_OP(p->s, grpo_loss, .logp = vkm_view(w->logp, row, n),
           .logp_old = vkm_view(p->logp_old, row, n), .logp_ref = vkm_view(p->logp_ref, row, n),
           .adv = p->adv, .weight = p->weight, .tok_seq = vkm_view(w->comp_seq, row, n),
           .coef = vkm_view(w->coef, row, n),
           .terms =
               vkm_view(p->terms, (uint64_t)VKM_TERM_WORDS * row, (uint64_t)VKM_TERM_WORDS * n),
           .n = n, .importance = o->importance, .eps_low = o->eps_low, .eps_high = o->eps_high,
           .beta = o->beta, .loss_scale = VKM_LOSS_SCALE);
}

static vkm_status train_micro_batch(vkm_policy *p, vkm_example *x, uint32_t n,
                                    const vkm_batch_group *groups, uint32_t n_groups,
                                    const vkm_loss_options *o, vkm_err *err) {
    vkm_work *w = p->work;
    uint32_t e = p->adapter->n_experts;
    if (set_batch(p, x, n, 0, err) ||
        upload_table(p, w->g, x, n, offsetof(vkm_example, g), e, err) ||
        upload_table(p, w->xs, x, n, offsetof(vkm_example, xs), e, err) ||
        upload_table(p, p->adv, x, n, offsetof(vkm_example, advantage), 1, err) ||
        upload_table(p, p->weight, x, n, offsetof(vkm_example, weight), 1, err) ||
        upload_tokens(p, p->logp_old, x, n, offsetof(vkm_example, logp_old), err) ||
        (o->beta > 0 && /* else it is not read */
         upload_tokens(p, p->logp_ref, x, n, offsetof(vkm_example, logp_ref), err)))
        return err->status;
    const grpo_of loss = {p, o};
    vkm_pass pass = {.s = p->s,
                     .w = w,
                     .adapter = p->adapter,
                     .groups = groups,
                     .n_groups = n_groups,
                     .loss = record_grpo,
                     .loss_arg = &loss};
    (void)vkm_phase_go(VKM_PHASE_forward);
    vkm_tensor hidden = vkm_forward(&pass);
    if (vkm_stream_flush(p->s, err)) return err->status;
    (void)vkm_phase_go(VKM_PHASE_backward);
    vkm_backward(&pass, hidden);
    if (vkm_stream_flush(p->s, err) || download_rows(p, x, n, err) || read_terms(p, x, n, err))
        return err->status;
    float df[64 * VKM_MAX_EXPERTS];
    for (uint32_t i = 0; i < n; i += 64) {
        uint32_t count = n - i < 64 ? n - i : 64;
        if (vkm_read(p->dev, vkm_view(w->df, (uint64_t)i * e, (uint64_t)count * e), df, err))
            return err->status;
        for (uint32_t j = 0; j < count; j++) memcpy(x[i + j].df, df + j * e, e * sizeof *df);
    }
    return VKM_OK;
}

vkm_status vkm_policy_train(vkm_policy *p, vkm_example *x, uint32_t n, const vkm_loss_options *o,
                            vkm_err *err) {
    vkm_batch_group *groups = vkm_calloc(n, sizeof *groups, "a step", err);
    vkm_phase was = vkm_phase_go(VKM_PHASE_forward);
    for (uint32_t first = 0, count; groups && first < n && !err->status; first += count) {
        count = micro_batch(p, x, first, n, 0);
        uint32_t n_groups = groups_of(x, first, count, n, groups);
        (void)!train_micro_batch(p, x + first, count, groups, n_groups, o, err);
    }
    (void)vkm_phase_go(was);
    free(groups);
    return err->status;
}
