/* One step of learning: loss, gradients, updates. Which w, f and g a rollout has: route.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/phase.h"
#include "ops/softmath.h"
#include "rl/run.h"

/* ---- examples -------------------------------------------------------------------------------- */

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

/* Reward reaches the router through f alone, the pairs through the pin loss; the arm's row says
 * which of the two does. */
static vkm_status router_gradients(vkm_run *r, const vkm_rollout *x, const vkm_example *ex,
                                   const uint32_t *back, uint32_t n, vkm_step_result *out,
                                   vkm_err *err) {
    int reward = r->arm->trains_router & VKM_BY_REWARD, pins = r->arm->trains_router & VKM_BY_PIN;
    float *dw = vkm_calloc(n, sizeof *dw, "a step", err), pin = 0;
    float *dused = vkm_calloc(n, sizeof *dused, "a step", err);
    uint32_t *from = vkm_calloc(n, sizeof *from, "a step", err);
    if (!dw || !dused || !from) goto done;
    for (uint32_t i = 0; i < n; i++) {
        dused[i] = ex[i].df[VKM_HACK];
        from[i] = x[back[i]].w_from;
    }
    vkm_arm_step_gradient(from, dused, n, dw);
    if (!vkm_router_backward(r->router, reward ? dw : NULL, n, pins ? (float)r->c.pin_coef : 0,
                             &pin, err))
        out->pin_loss = pins ? (double)pin : NAN;
done:
    free(from), free(dused), free(dw);
    return err->status;
}

/* Gradients of all live examples; arrays of the passes live here. */
static vkm_status gradients(vkm_run *r, vkm_rollout *x, uint32_t n, vkm_example *ex,
                            const uint32_t *back, uint32_t n_live, vkm_step_result *out,
                            vkm_err *err) {
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < n_live; i++) tokens += ex[i].seq.len - ex[i].seq.comp0;
    float *logp = vkm_calloc(tokens, sizeof *logp, "a step", err);
    float *entropy = vkm_calloc(tokens, sizeof *entropy, "a step", err);
    if (!logp || !entropy) goto done;
    token_weights(r, x, n, ex, n_live);
    vkm_phase was = vkm_phase_go(VKM_PHASE_reference);
    int failed = (r->c.beta > 0 && read_logp(r, ex, back, n_live, x, vkm_state_base, 0, err)) ||
                 read_logp(r, ex, back, n_live, x, vkm_state_full, 1, err);
    (void)vkm_phase_go(was);
    if (failed) goto done;
    for (uint32_t i = 0, at = 0; i < n_live; at += ex[i].seq.len - ex[i].seq.comp0, i++) {
        vkm_rollout *q = &x[back[i]];
        vkm_run_apply_arm(r, q, &ex[i]);
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
    if (r->router) (void)!router_gradients(r, x, ex, back, n_live, out, err);
done:
    free(logp), free(entropy);
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
    vkm_phase was = vkm_phase_go(VKM_PHASE_activations);
    if (!ex || !back) goto done;
    for (uint32_t i = 0; i < n; i++) x[i].w = NAN;
    uint32_t n_live = live_examples(r, x, n, ex, back);
    if (n_live == 0) goto done; /* nothing to learn from: nothing is updated, nothing decays */
    if (vkm_run_route(r, x, ex, back, n_live, err) ||
        gradients(r, x, n, ex, back, n_live, out, err))
        goto done;
    (void)vkm_phase_go(VKM_PHASE_update);
    if (gradient_share(r, &out->qmass, err) || update(r, out, err)) goto done;
    if (r->router) (void)!pair_diagnostics(r, out, err);
done:
    (void)vkm_phase_go(was);
    free(ex), free(back);
    return err->status;
}
