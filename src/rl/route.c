/* From a step's rollouts to their weights: what the pairs and the activations say, and what the arm
 * makes of it. The no-cheat line runs through here: nothing that routes or trains sees a label of a
 * training rollout, but for arms named oracle*, by one function. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/phase.h"
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

/* For arms that shuffle them: half of the pairs are read as if their sides were swapped. */
static vkm_status shuffle_pairs(const vkm_run *r, float *act, vkm_err *err) {
    unsigned char *swapped = vkm_calloc(r->n_pairs, 1, "the pairs", err);
    if (!swapped) return err->status;
    vkm_arm_swapped_pairs((uint64_t)r->c.seed, r->n_pairs, swapped);
    for (uint32_t i = 0; i < r->n_pairs; i++)
        for (uint64_t j = 0; swapped[i] && j < width(r); j++) {
            float *hack = act + (uint64_t)i * width(r) + j;
            float *clean = hack + (uint64_t)r->n_pairs * width(r), kept = *hack;
            *hack = *clean;
            *clean = kept;
        }
    free(swapped);
    return VKM_OK;
}

static void direction(const vkm_run *r, const float *act, int global, float *v) {
    const vkm_adapter *a = r->policy->adapter;
    if (r->arm->haar || r->c.seed_direction == VKM_seed_direction_haar)
        vkm_direction_haar((uint64_t)r->c.seed, a->n_modules, a->rank, global, v);
    else
        vkm_direction_from_pairs(act, r->n_pairs, a->n_modules, a->rank, global, v);
}

/* What gives a rollout and a pair the vector that router or gate looks at. */
static vkm_policy_reader reader(const vkm_run *r) {
    return r->arm->by_gradient ? vkm_policy_rank_gradients : vkm_policy_read;
}

vkm_status vkm_run_read_pairs(vkm_run *r, int first, vkm_err *err) {
    float *act = vkm_calloc(2ull * r->n_pairs * width(r), sizeof *act, "the pairs", err);
    float *v = vkm_calloc(width(r), sizeof *v, "the pairs", err), reference = 0;
    if (!act || !v ||
        vkm_pairs_read(r->policy, reader(r), r->pairs, r->n_pairs, act, &reference, err) ||
        watch_reference(r, reference, err) ||
        (r->arm->shuffles_pairs && shuffle_pairs(r, act, err)))
        goto done;
    if (r->gate) direction(r, act, 0, r->gate->direction);
    if (r->mixture) {
        if (r->arm->haar) direction(r, act, 0, v);
        vkm_mixture_seed(r->mixture, act, r->n_pairs, r->arm->haar ? v : NULL);
    }
    if (r->router && first) {
        float logit = isnan(r->c.calib_logit) ? r->arm->calib_logit : (float)r->c.calib_logit;
        direction(r, act, r->c.seed_norm == VKM_seed_norm_global, v);
        (void)!vkm_router_calibrate(r->router, act, v, logit, err);
    } else if (r->router) {
        (void)!vkm_router_refresh(r->router, act, err);
    }
done:
    free(v);
    free(act);
    return err->status;
}

vkm_status vkm_run_refresh(vkm_run *r, vkm_err *err) {
    if (!vkm_arm_reads_pairs(r->arm) || !r->state.step ||
        r->state.step % (uint32_t)r->c.refresh_every)
        return VKM_OK;
    vkm_phase was = vkm_phase_go(VKM_PHASE_activations);
    (void)!vkm_run_read_pairs(r, 0, err);
    (void)vkm_phase_go(was);
    return err->status;
}

/* ---- w --------------------------------------------------------------------------------------- */

/* The one place at which a training rollout's label enters a step. */
static float label_of(const vkm_arm *arm, const vkm_rollout *x) {
    VKM_BUG_ON(strncmp(arm->name, "oracle", 6) != 0, "arm %s asks for a label", arm->name);
    return x->grade.exploited ? 1 : 0;
}

static vkm_status by_reading(vkm_run *r, vkm_example *ex, const uint32_t *group, uint32_t n,
                             float *w, vkm_err *err) {
    const vkm_gate_options gate = {.quantile = (float)r->c.route_quantile,
                                   .half_life = (float)r->c.route_half_life,
                                   .warmup = (uint32_t)r->c.route_warmup};
    float *act = vkm_calloc((uint64_t)n * width(r), sizeof *act, "activations", err);
    if (!act) return err->status;
    for (uint32_t i = 0; i < n; i++) {
        memcpy(ex[i].f, vkm_state_ablated, sizeof ex[i].f);
        ex[i].pooled = act + (uint64_t)i * width(r);
    }
    if (!reader(r)(r->policy, ex, n, err))
        (void)!(r->gate      ? vkm_gate_zones(r->gate, &gate, act, n, r->state.step, w, err)
                : r->mixture ? vkm_mixture_weights(r->mixture, act, group, n, w, err)
                             : vkm_router_weights(r->router, act, n, w, err));
    for (uint32_t i = 0; i < n; i++) ex[i].pooled = NULL;
    free(act);
    return err->status;
}

static int has_own_baseline(const vkm_run *r) {
    return r->c.baseline == VKM_baseline_expert ||
           (r->c.baseline == VKM_baseline_arm && r->arm->own_baseline);
}

vkm_status vkm_run_route(vkm_run *r, vkm_rollout *x, vkm_example *ex, const uint32_t *back,
                         uint32_t n, vkm_err *err) {
    if (r->arm->source == VKM_W_NONE) return VKM_OK;
    float *w = vkm_calloc(n, sizeof *w, "a step", err);
    float *used = vkm_calloc(n, sizeof *used, "a step", err);
    uint32_t *from = vkm_calloc(n, sizeof *from, "a step", err);
    uint32_t *group = vkm_calloc(n, sizeof *group, "a step", err);
    if (!w || !used || !from || !group) goto done;
    for (uint32_t i = 0; i < n; i++) group[i] = back[i] / (uint32_t)r->c.num_generations;
    if (vkm_arm_reads_pairs(r->arm) && by_reading(r, ex, group, n, w, err)) goto done;
    for (uint32_t i = 0; i < n; i++) {
        if (r->arm->source == VKM_W_HINT) w[i] = x[back[i]].mode->hint ? 1 : 0;
        if (r->arm->source == VKM_W_LABEL) w[i] = label_of(r->arm, &x[back[i]]);
    }
    const vkm_step_w step = {.seed = (uint64_t)r->c.seed, .step = r->state.step, .n = n, .w = w};
    vkm_arm_step_weights(r->arm, &step, used, from);
    for (uint32_t i = 0; i < n; i++) {
        x[back[i]].w = used[i];
        x[back[i]].w_from = from[i];
    }
    if (has_own_baseline(r)) {
        for (uint32_t i = 0; i < n; i++) w[i] = ex[i].advantage;
        vkm_arm_own_baseline(used, group, w, n);
        for (uint32_t i = 0; i < n; i++) ex[i].advantage = w[i];
    }
done:
    free(group), free(from), free(used), free(w);
    return err->status;
}

void vkm_run_apply_arm(const vkm_run *r, vkm_rollout *x, vkm_example *ex) {
    const vkm_arm_in in = {.w = isnan(x->w) ? 0 : x->w,
                           .detach_at = (float)r->c.detach_at,
                           .penalty = (float)r->c.penalty};
    r->arm->weights(&in, x->f, x->g);
    if (r->arm->judge) r->arm->judge(&in, &ex->advantage, &ex->weight);
    memcpy(ex->f, x->f, sizeof ex->f);
    memcpy(ex->g, x->g, sizeof ex->g);
    memcpy(ex->xs, r->c.detach == VKM_detach_output ? x->g : x->f, sizeof ex->xs);
}
