/* One step of learning: activations, router weights, arms, loss, gradients, updates. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/softmath.h"
#include "rl/run.h"

static uint32_t width(const vkm_run *r) {
    return r->policy->adapter->n_modules * r->policy->adapter->rank;
}

/* ---- pairs ----------------------------------------------------------------------------------- */

/* Far below its best, the policy has broken down: warn at 3 nats, stop after two readings at 5. */
static vkm_status watch_reference(vkm_run *r, float logp, vkm_err *err) {
    r->state.reference_logp = logp;
    if (logp > r->state.best_reference_logp) r->state.best_reference_logp = logp;
    float below = r->state.best_reference_logp - logp;
    r->state.n_far = below >= 5 ? r->state.n_far + 1 : 0;
    if (below >= 3)
        vkm_warn("the clean completions of the pairs are %.1f nats a token below their best",
                 (double)below);
    if (r->state.n_far >= 2)
        return vkm_fail(err, VKM_FAILED,
                        "stopped: the policy has broken down (clean completions %.1f nats below "
                        "their best); resume an earlier checkpoint with a lower learning_rate",
                        (double)below);
    return VKM_OK;
}

vkm_status vkm_run_read_pairs(vkm_run *r, int calibrate, vkm_err *err) {
    const vkm_adapter *a = r->policy->adapter;
    float *act = vkm_calloc(2ull * r->n_pairs * width(r), sizeof *act, "the pairs", err);
    float *v = vkm_calloc(width(r), sizeof *v, "the pairs", err), reference = 0;
    if (!act || !v ||
        vkm_pairs_activations(r->policy, r->pairs, r->n_pairs, act, &reference, err) ||
        watch_reference(r, reference, err))
        goto done;
    if (!calibrate) {
        (void)!vkm_router_refresh(r->router, act, err);
        goto done;
    }
    int global = r->c.seed_norm == VKM_seed_norm_global;
    if (r->c.seed_direction == VKM_seed_direction_haar)
        vkm_direction_haar((uint64_t)r->c.seed, a->n_modules, a->rank, global, v);
    else
        vkm_direction_from_pairs(act, r->n_pairs, a->n_modules, a->rank, global, v);
    float logit = isnan(r->c.calib_logit) ? r->arm->calib_logit : (float)r->c.calib_logit;
    (void)!vkm_router_calibrate(r->router, act, v, logit, err);
done:
    free(v);
    free(act);
    return err->status;
}

/* ---- routing --------------------------------------------------------------------------------- */

/* Live rollouts as examples; back[i] is the rollout of example i. */
static uint32_t live_examples(const vkm_run *r, vkm_rollout *x, uint32_t n, vkm_example *out,
                              uint32_t *back) {
    uint32_t live = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!x[i].live) continue;
        back[live] = i;
        out[live++] =
            (vkm_example){.seq = {x[i].ids.id, (uint32_t)x[i].ids.n, (uint32_t)x[i].prompt->n},
                          .group = x[i].group,
                          .advantage = x[i].advantage};
    }
    (void)r;
    return live;
}

static vkm_status route(vkm_run *r, vkm_example *ex, uint32_t n, float *w, vkm_err *err) {
    float *act = vkm_calloc((uint64_t)n * width(r), sizeof *act, "activations", err);
    if (!act) return err->status;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(ex[i].f, vkm_state_ablated, sizeof ex[i].f);
        ex[i].pooled = act + (uint64_t)i * width(r);
    }
    if (!vkm_policy_read(r->policy, ex, n, err))
        (void)!vkm_router_weights(r->router, act, n, w, err);
    for (uint32_t i = 0; i < n; i++) ex[i].pooled = NULL;
    free(act);
    return err->status;
}

/* The weight of a completion token of each example in the loss. */
static void token_weights(const vkm_run *r, const vkm_rollout *x, uint32_t n, vkm_example *ex,
                          uint32_t n_live) {
    float rollouts = (float)(int)n; /* skipped groups count in every denominator */
    double tokens = 0;
    for (uint32_t i = 0; i < n; i++) tokens += (double)(x[i].ids.n - x[i].prompt->n);
    for (uint32_t i = 0; i < n_live; i++) {
        float len = (float)(int)(ex[i].seq.len - ex[i].seq.comp0), denominator = 1;
        switch (r->c.loss_type) {
        case VKM_loss_type_dr_grpo:
            denominator = rollouts * (float)(int)r->c.max_completion_length;
            break;
        case VKM_loss_type_grpo:
            denominator = rollouts * len;
            break;
        case VKM_loss_type_dapo:
        case VKM_loss_type_bnpo:
            denominator = (float)tokens;
            break;
        }
        ex[i].weight = vkm_div(1.0f, denominator);
    }
}

static void apply_arm(const vkm_run *r, vkm_rollout *x, vkm_example *ex) {
    vkm_arm_in in = {.w = isnan(x->w) ? 0 : x->w,
                     .detach_at = (float)r->c.detach_at,
                     .label = r->arm->uses_label ? (float)x->grade.exploited : NAN};
    r->arm->weights(&in, x->f, x->g);
    memcpy(ex->f, x->f, sizeof ex->f);
    memcpy(ex->g, x->g, sizeof ex->g);
    memcpy(ex->xs, r->c.detach == VKM_detach_output ? x->g : x->f, sizeof ex->xs);
}

/* No-gradient log-probabilities in one adapter state, into the rollouts' own arrays. */
static vkm_status read_logp(vkm_run *r, vkm_example *ex, const uint32_t *back, uint32_t n,
                            vkm_rollout *x, const float *state, int teachers_only, vkm_err *err) {
    uint32_t m = 0;
    vkm_example *some = vkm_calloc(n, sizeof *some, "a pass", err);
    if (!some) return err->status;
    for (uint32_t i = 0; i < n; i++) {
        vkm_rollout *q = &x[back[i]];
        if (teachers_only && !q->teacher) continue;
        some[m] = ex[i];
        memcpy(some[m].f, state, sizeof some[m].f);
        some[m++].logp = teachers_only ? q->logp : q->logp_ref;
    }
    vkm_status st = vkm_policy_read(r->policy, some, m, err);
    free(some);
    return st;
}

/* ---- updates --------------------------------------------------------------------------------- */

static vkm_adam_rates rates(const vkm_run *r, double lr, double decay, double max_norm) {
    return (vkm_adam_rates){.lr = vkm_lr_factor(&r->c, r->state.step) * (float)lr,
                            .beta1 = (float)r->c.adam_beta1,
                            .beta2 = (float)r->c.adam_beta2,
                            .epsilon = (float)r->c.adam_epsilon,
                            .weight_decay = (float)decay,
                            .max_norm = (float)max_norm,
                            .t = r->state.n_updates};
}

/* |g_hack| / (|g_dep| + |g_hack|) over the adapter. */
static vkm_status gradient_share(vkm_run *r, double *qmass, vkm_err *err) {
    double sum[VKM_MAX_EXPERTS];
    VKM_BUG_ON(r->policy->adapter->n_experts != VKM_MAX_EXPERTS, "both experts' blocks are read");
    if (vkm_optimizer_part_sums(r->opt, r->policy->s, VKM_MAX_EXPERTS, sum, err))
        return err->status;
    double dep = sqrt(sum[VKM_DEPLOYED]), hack = sqrt(sum[VKM_HACK]);
    *qmass = hack / (dep + hack);
    return VKM_OK;
}

static vkm_status update(vkm_run *r, vkm_step_result *out, vkm_err *err) {
    vkm_adam_rates a = rates(r, r->c.learning_rate, r->c.weight_decay, r->c.max_grad_norm);
    vkm_adam_rates b = rates(r, r->c.router_learning_rate, 0, r->c.router_max_grad_norm);
    int finite, router_finite = 1;
    float norm, router_norm = 0;
    if (vkm_optimizer_norm(r->opt, r->policy->s, a.max_norm, &norm, &finite, err))
        return err->status;
    if (r->router && vkm_optimizer_norm(r->router_opt, r->policy->s, b.max_norm, &router_norm,
                                        &router_finite, err))
        return err->status;
    out->grad_norm = (double)norm;
    out->router_grad_norm = r->router ? (double)router_norm : NAN;
    out->learning_rate = a.lr;
    if (!finite || !router_finite || !isfinite(out->loss)) {
        vkm_warn("step %u: loss or gradient is not finite; nothing is updated", r->state.step + 1);
        if (++r->state.n_skipped >= 3)
            return vkm_fail(err, VKM_FAILED,
                            "stopped: loss or gradient was not finite in three steps running; the "
                            "last checkpoint is untouched; lower learning_rate");
        return VKM_OK;
    }
    r->state.n_skipped = 0;
    vkm_optimizer_step(r->opt, r->policy->s, &a);
    if (r->router) vkm_optimizer_step(r->router_opt, r->policy->s, &b);
    vkm_adapter_refresh(r->policy->s, r->policy->adapter);
    if (vkm_stream_flush(r->policy->s, err)) return err->status;
    r->state.n_updates++;
    out->updated = 1;
    return VKM_OK;
}

static vkm_status pair_diagnostics(vkm_run *r, vkm_step_result *out, vkm_err *err) {
    float *w = vkm_calloc(2ull * r->n_pairs, sizeof *w, "the pairs", err);
    if (!w) return err->status;
    out->w_pairs_hack = out->w_pairs_clean = 0;
    if (!vkm_router_pair_weights(r->router, w, err))
        for (uint32_t i = 0; i < r->n_pairs; i++) {
            out->w_pairs_hack += (double)w[i] / r->n_pairs;
            out->w_pairs_clean += (double)w[r->n_pairs + i] / r->n_pairs;
        }
    free(w);
    out->reference_logp = (double)r->state.reference_logp;
    return err->status ? err->status : vkm_router_seed_cosine(r->router, &out->seed_cosine, err);
}

static void sum_up(const vkm_run *r, vkm_rollout *x, const uint32_t *back, const vkm_example *ex,
                   uint32_t n, vkm_step_result *out) {
    double tokens = 0, clipped = 0;
    out->loss = out->kl = out->entropy = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len = ex[i].seq.len - ex[i].seq.comp0;
        vkm_rollout *q = &x[back[i]];
        double ratio = 0;
        out->loss += ex[i].policy_loss + r->c.beta * ex[i].kl;
        for (uint32_t j = 0; j < len; j++) {
            out->entropy += (double)ex[i].entropy[j];
            double d = (double)q->logp_ref[j] - (double)ex[i].logp[j];
            out->kl += r->c.beta > 0 ? exp(d) - d - 1 : NAN; /* without a weight it is not read */
            ratio += (double)ex[i].logp[j] - (double)q->logp[j];
        }
        q->log_ratio = (float)(ratio / len);
        tokens += len;
        clipped += ex[i].n_clipped;
    }
    out->entropy /= tokens;
    out->kl /= tokens;
    out->clip_ratio = clipped / tokens;
}

/* Gradients of all live examples; arrays of the passes live here. */
static vkm_status gradients(vkm_run *r, vkm_rollout *x, uint32_t n, vkm_example *ex,
                            const uint32_t *back, uint32_t n_live, vkm_step_result *out,
                            vkm_err *err) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < n_live; i++) tokens += ex[i].seq.len - ex[i].seq.comp0;
    float *logp = vkm_calloc(tokens, sizeof *logp, "a step", err);
    float *entropy = vkm_calloc(tokens, sizeof *entropy, "a step", err);
    float *dw = vkm_calloc(n_live, sizeof *dw, "a step", err);
    if (!logp || !entropy || !dw) goto done;
    token_weights(r, x, n, ex, n_live);
    if ((r->c.beta > 0 && read_logp(r, ex, back, n_live, x, vkm_state_base, 0, err)) ||
        read_logp(r, ex, back, n_live, x, vkm_state_full, 1, err))
        goto done;
    for (uint32_t i = 0, at = 0; i < n_live; at += ex[i].seq.len - ex[i].seq.comp0, i++) {
        vkm_rollout *q = &x[back[i]];
        apply_arm(r, q, &ex[i]);
        ex[i].logp_old = q->logp;
        ex[i].logp_ref = r->c.beta > 0 ? q->logp_ref : NULL;
        ex[i].logp = logp + at;
        ex[i].entropy = entropy + at;
    }
    double cap = r->c.importance_cap;
    double high = isnan(r->c.epsilon_high) ? r->c.epsilon : r->c.epsilon_high;
    int truncated = r->c.importance == VKM_importance_truncated;
    vkm_loss_options o = {.importance = (uint32_t)r->c.importance,
                          .eps_low = (float)(truncated ? 1 - 1 / cap : r->c.epsilon),
                          .eps_high = (float)(truncated ? cap - 1 : high),
                          .beta = (float)r->c.beta};
    if (vkm_policy_zero_grad(r->policy, err) || vkm_policy_train(r->policy, ex, n_live, &o, err))
        goto done;
    sum_up(r, x, back, ex, n_live, out);
    if (!r->router) goto done;
    float pin = 0;
    for (uint32_t i = 0; i < n_live; i++) dw[i] = ex[i].df[VKM_HACK];
    if (!vkm_router_backward(r->router, r->arm->reward_to_router ? dw : NULL, n_live,
                             (float)r->c.pin_coef, &pin, err))
        out->pin_loss = (double)pin;
done:
    free(logp), free(entropy), free(dw);
    return err->status;
}

vkm_status vkm_run_learn(vkm_run *r, vkm_rollout *x, uint32_t n, vkm_step_result *out,
                         vkm_err *err) {
    *out = (vkm_step_result){.loss = NAN,
                             .kl = NAN,
                             .entropy = NAN,
                             .grad_norm = NAN,
                             .router_grad_norm = NAN,
                             .pin_loss = NAN,
                             .clip_ratio = NAN,
                             .w_pairs_hack = NAN,
                             .w_pairs_clean = NAN,
                             .qmass = NAN,
                             .seed_cosine = NAN,
                             .reference_logp = NAN};
    vkm_example *ex = vkm_calloc(n, sizeof *ex, "a step", err);
    uint32_t *back = vkm_calloc(n, sizeof *back, "a step", err);
    float *w = vkm_calloc(n, sizeof *w, "a step", err);
    if (!ex || !back || !w) goto done;
    for (uint32_t i = 0; i < n; i++) x[i].w = NAN;
    uint32_t n_live = live_examples(r, x, n, ex, back);
    if (r->router) {
        if (r->state.step && r->state.step % (uint32_t)r->c.refresh_every == 0 &&
            vkm_run_read_pairs(r, 0, err))
            goto done;
        if (n_live && route(r, ex, n_live, w, err)) goto done;
        for (uint32_t i = 0; i < n_live; i++) x[back[i]].w = w[i];
    }
    if (n_live == 0) goto done; /* nothing to learn from: nothing is updated, nothing decays */
    if (gradients(r, x, n, ex, back, n_live, out, err) || gradient_share(r, &out->qmass, err) ||
        update(r, out, err))
        goto done;
    if (r->router) (void)!pair_diagnostics(r, out, err);
done:
    free(ex), free(back), free(w);
    return err->status;
}
