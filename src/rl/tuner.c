/* Owns the model that is fine-tuned, its micro-batches and its updates. */
#include "rl/tuner.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/softmath.h"
#include "rl/arms.h"

/* ---- opening --------------------------------------------------------------------------------- */

static vkm_work_limits work_limits(const vkm_tuner *t, const vkm_config *c, uint32_t longest) {
    enum { MOST_ROWS = 65520 }; /* loops over the rows of a token: some drivers end them there */
    uint64_t step = (uint64_t)(c->per_device_train_batch_size * c->gradient_accumulation_steps);
    uint64_t rows = (uint64_t)c->micro_batch_tokens, most = step * vkm_seq_rows(longest);
    if (rows > most) rows = most;
    if (rows > MOST_ROWS) rows = MOST_ROWS;
    if (rows < vkm_seq_rows(longest)) rows = vkm_seq_rows(longest);
    uint64_t seqs = rows / 16 < step ? rows / 16 : step;
    return (vkm_work_limits){
        .rows = (uint32_t)rows,
        .seqs = (uint32_t)seqs,
        .logit_rows = vkm_work_logit_rows(t->model, (uint32_t)rows, VKM_WEIGHT_LOGIT_ROWS),
        .trains = 1,
        .keep = vkm_work_may_keep(t->model, (uint32_t)rows),
        .weights = c->sft_train == VKM_sft_train_weights};
}

static vkm_status new_list(vkm_tuner *t, uint32_t n, vkm_err *err) {
    t->n = n;
    t->tensors = vkm_calloc(n, sizeof *t->tensors, "the optimizer", err);
    t->names = vkm_calloc(n, sizeof *t->names, "the optimizer", err);
    return err->status;
}

static vkm_status list_weights(vkm_tuner *t, vkm_err *err) {
    if (new_list(t, t->weights->n, err)) return err->status;
    for (uint32_t i = 0; i < t->n; i++) {
        const vkm_weight *w = &t->weights->w[i];
        t->tensors[i] =
            (vkm_trainable){w->param, w->grad, w->adam_m, w->adam_v, .no_decay = w->is.rows == 0};
        snprintf(t->names[i], sizeof t->names[i], "%s", w->is.name);
    }
    return VKM_OK;
}

static vkm_status list_factors(vkm_tuner *t, vkm_err *err) {
    const vkm_adapter *a = t->adapter;
    if (new_list(t, 2 * a->n_modules, err)) return err->status;
    for (uint32_t i = 0; i < t->n; i++) {
        const vkm_module *m = &a->modules[i / 2];
        t->tensors[i] =
            (vkm_trainable){m->param[i % 2], m->grad[i % 2], m->adam_m[i % 2], m->adam_v[i % 2]};
        vkm_factor_name(i / 2, (int)(i % 2), t->names[i]);
    }
    return VKM_OK;
}

/* f, g and xs are the same for every sequence of the run. */
static vkm_status set_state(vkm_tuner *t, const float *state, vkm_err *err) {
    uint64_t n = (uint64_t)t->work->max.seqs * t->adapter->n_experts;
    const vkm_tensor *tables[] = {&t->work->f, &t->work->g, &t->work->xs};
    float *host = vkm_calloc(n, sizeof *host, "the adapter's state", err);
    if (!host) return err->status;
    for (uint64_t i = 0; i < n; i++) host[i] = state[i % t->adapter->n_experts];
    for (size_t i = 0; i < VKM_COUNTOF(tables) && !err->status; i++)
        (void)!vkm_write(t->dev, vkm_view(*tables[i], 0, n), host, err);
    free(host);
    return err->status;
}

vkm_status vkm_tuner_new(vkm_dev *dev, const vkm_config *c, uint32_t longest, vkm_plan *dry,
                         vkm_tuner **out, vkm_err *err) {
    int weights = c->sft_train == VKM_sft_train_weights;
    vkm_tuner *t = vkm_calloc(1, sizeof *t, "the tuner", err);
    *out = NULL;
    if (!t) return err->status;
    t->dev = dev;
    if (vkm_model_load(dev, c->model, longest, 1, dry, &t->model, err)) goto fail;
    if (weights &&
        (vkm_weights_new(t->model, c->model, dry, &t->weights, err) || list_weights(t, err)))
        goto fail;
    const vkm_adapter_options a = {.n_experts = VKM_MAX_EXPERTS,
                                   .rank = (uint32_t)c->lora_rank,
                                   .seed = (uint64_t)c->seed,
                                   .adam_v_per_tensor = c->adam_v == VKM_adam_v_tensor,
                                   .trains = 1};
    if (!weights &&
        (vkm_adapter_new(dev, &t->model->dims, &a, dry, &t->adapter, err) || list_factors(t, err)))
        goto fail;
    if (vkm_work_new(t->model, t->adapter, work_limits(t, c, longest), dry, &t->work, err) ||
        vkm_optimizer_new(dev, t->tensors, t->n, dry, &t->opt, err) ||
        vkm_stream_new(dev, &t->s, err))
        goto fail;
    const float *state = c->sft_train == VKM_sft_train_both ? vkm_state_full : vkm_state_ablated;
    if (t->adapter && !dry && set_state(t, state, err)) goto fail;
    *out = t;
    return VKM_OK;
fail:
    vkm_tuner_free(t);
    return err->status;
}

void vkm_tuner_free(vkm_tuner *t) {
    if (!t) return;
    vkm_stream_free(t->s);
    vkm_optimizer_free(t->opt);
    vkm_work_free(t->work);
    vkm_adapter_free(t->adapter);
    vkm_weights_free(t->weights);
    vkm_model_free(t->model);
    free(t->tensors);
    free(t->names);
    free(t);
}

/* ---- gradient -------------------------------------------------------------------------------- */

/* Sequences from `first` on that make one micro-batch. */
static uint32_t micro_batch(const vkm_tuner *t, const vkm_seq *seqs, uint32_t n) {
    uint32_t i = 0;
    for (uint64_t rows = 0; i < n && i < t->work->max.seqs; i++) {
        rows += vkm_seq_rows(seqs[i].len);
        if (rows > t->work->max.rows) break;
    }
    VKM_BUG_ON(i == 0, "a sequence of %u tokens in a workspace of %u rows", seqs[0].len,
               t->work->max.rows);
    return i;
}

/* What the loss needs of each completion token: its log-probability, entropy, and exponential sum.
 */
static vkm_status add_sums(vkm_tuner *t, vkm_tuner_sums *sums, vkm_err *err) {
    uint32_t n = t->work->n_comp;
    float *logp = vkm_calloc(3ull * n, sizeof *logp, "a batch", err);
    if (!logp) return err->status;
    float *entropy = logp + n, *l = entropy + n;
    if (!vkm_read(t->dev, vkm_view(t->work->logp, 0, n), logp, err) &&
        !vkm_read(t->dev, vkm_view(t->work->entropy, 0, n), entropy, err) &&
        !vkm_read(t->dev, vkm_view(t->work->l, 0, n), l, err))
        for (uint32_t i = 0; i < n; i++) {
            sums->nll -= (double)logp[i];
            sums->entropy += (double)entropy[i];
            /* log p = (x - M) - log L: the target's logit is the largest where x - M is 0 */
            sums->n_correct += logp[i] >= -vkm_log(l[i]);
        }
    free(logp);
    return err->status;
}

/* last: of the step, which is one group. */
static vkm_status train_micro_batch(vkm_tuner *t, const vkm_seq *seqs, uint32_t n, int last,
                                    float coef, vkm_tuner_sums *sums, vkm_err *err) {
    const vkm_batch_group group = {.n = n, .closes = last};
    vkm_pass pass = {.s = t->s,
                     .w = t->work,
                     .adapter = t->adapter,
                     .weights = t->weights,
                     .groups = &group,
                     .n_groups = 1};
    if (vkm_work_set_batch(t->work, seqs, n, err)) return err->status;
    float *host = vkm_calloc(t->work->n_comp, sizeof *host, "a batch", err);
    if (!host) return err->status;
    for (uint32_t i = 0; i < t->work->n_comp; i++) host[i] = coef;
    vkm_status st = vkm_write(t->dev, vkm_view(t->work->coef, 0, t->work->n_comp), host, err);
    free(host);
    if (st) return st;
    vkm_backward(&pass, vkm_forward(&pass));
    return vkm_stream_flush(t->s, err) ? err->status : add_sums(t, sums, err);
}

static void zero_grad(vkm_tuner *t) {
    if (t->weights) vkm_weights_zero_grad(t->s, t->weights);
    for (uint32_t i = 0; t->adapter && i < t->n; i++) {
        const vkm_module *m = &t->adapter->modules[i / 2];
        uint32_t n = (uint32_t)m->grad[i % 2].n;
        VKM_OP(t->s, zero, .y = m->group_grad[i % 2], .n = n);
        VKM_OP(t->s, zero, .y = m->grad[i % 2], .n = n);
    }
}

vkm_status vkm_tuner_gradient(vkm_tuner *t, const vkm_seq *seqs, uint32_t n, vkm_tuner_sums *out,
                              vkm_err *err) {
    *out = (vkm_tuner_sums){0};
    for (uint32_t i = 0; i < n; i++) {
        out->n_tokens += seqs[i].len - seqs[i].comp0;
        out->n_sequence_tokens += seqs[i].len;
    }
    VKM_BUG_ON(out->n_tokens == 0 || out->n_tokens > INT32_MAX, "%llu completion tokens",
               (unsigned long long)out->n_tokens);
    float coef = -VKM_LOSS_SCALE * vkm_div(1.0f, (float)(int)out->n_tokens);
    zero_grad(t);
    for (uint32_t first = 0, count; first < n; first += count) {
        count = micro_batch(t, seqs + first, n - first);
        if (train_micro_batch(t, seqs + first, count, first + count == n, coef, out, err))
            return err->status;
    }
    if (t->weights) vkm_weights_close_grad(t->s, t->weights);
    return vkm_stream_flush(t->s, err);
}

/* ---- update ---------------------------------------------------------------------------------- */

static void record_refresh(vkm_tuner *t) {
    if (t->weights) vkm_weights_refresh(t->s, t->weights);
    if (t->adapter) vkm_adapter_refresh(t->s, t->adapter);
}

vkm_status vkm_tuner_refresh(vkm_tuner *t, vkm_err *err) {
    record_refresh(t);
    return vkm_stream_flush(t->s, err);
}

vkm_status vkm_tuner_update(vkm_tuner *t, const vkm_adam_rates *r, float *norm, int *finite,
                            vkm_err *err) {
    if (vkm_optimizer_norm(t->opt, t->s, r->max_norm, norm, finite, err)) return err->status;
    if (!*finite) return VKM_OK;
    vkm_optimizer_step(t->opt, t->s, r);
    return vkm_tuner_refresh(t, err);
}

vkm_status vkm_tuner_hash(const vkm_tuner *t, char hex[VKM_HASH_HEX], vkm_err *err) {
    enum { CHUNK = 1 << 20 };
    vkm_hash_state h;
    float *x = vkm_calloc(CHUNK, sizeof *x, "the weights' hash", err);
    if (!x) return err->status;
    vkm_hash_begin(&h);
    for (uint32_t i = 0; i < t->n; i++) {
        vkm_tensor p = t->tensors[i].param;
        for (uint64_t at = 0; at < p.n && !err->status; at += CHUNK) {
            uint64_t n = p.n - at < CHUNK ? p.n - at : CHUNK;
            if (!vkm_read(t->dev, vkm_view(p, at, n), x, err)) vkm_hash_add(&h, x, n * sizeof *x);
        }
    }
    if (!err->status) vkm_hash_hex(vkm_hash_now(&h), hex);
    free(x);
    return err->status;
}
