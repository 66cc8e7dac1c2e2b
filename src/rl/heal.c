/* What may stand before and behind the steps of a run: a begin at another run's ablated adapter,
 * and the retain-heal. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/softmath.h"
#include "rl/adapter_run.h"
#include "rl/run.h"

/* ---- relearning ------------------------------------------------------------------------------ */

/* A0 and B0 follow from seed, rank and model: an adapter's update means nothing without them. */
static vkm_status same_init(const vkm_config *from, const vkm_config *now, vkm_err *err) {
    if (from->seed != now->seed || from->lora_rank != now->lora_rank)
        return vkm_fail(
            err, VKM_USAGE,
            "from_ablated: that run has seed %lld and lora_rank %lld, this one %lld and "
            "%lld; the adapter's init follows from them: set them alike",
            (long long)from->seed, (long long)from->lora_rank, (long long)now->seed,
            (long long)now->lora_rank);
    if (strcmp(from->model, now->model) != 0)
        return vkm_fail(err, VKM_USAGE,
                        "from_ablated: that run trains model '%.200s', this one '%.200s'; set "
                        "model alike",
                        from->model, now->model);
    return VKM_OK;
}

static void reset_hack_rows(const vkm_adapter *a, float *params) {
    uint32_t rows = a->n_experts * a->rank;
    unsigned char *keep = calloc((size_t)a->n_modules * rows, 1);
    VKM_BUG_ON(!keep, "no memory for %u modules' rows", a->n_modules);
    for (uint32_t i = 0; i < a->n_modules * rows; i++) keep[i] = i % rows / a->rank != VKM_HACK;
    vkm_adapter_mask_rows(a, params, keep);
    free(keep);
}

vkm_status vkm_run_from_ablated(vkm_run *r, vkm_err *err) {
    vkm_adapter *a = r->policy->adapter;
    vkm_adapter_run *from = vkm_calloc(1, sizeof *from, "a config", err);
    float *params = NULL;
    if (!from) return err->status;
    if (vkm_adapter_run_find(r->c.from_ablated, "latest", from, err)) {
        vkm_fail_in(err, "from_ablated");
        goto done;
    }
    if (same_init(&from->c, &r->c, err) || vkm_adapter_run_read(from, a, &params, err)) goto done;
    reset_hack_rows(a, params);
    if (!vkm_adapter_write(a, VKM_STATE_PARAM, params, err))
        vkm_info("begins at step %u of %s, its hack expert reset", from->step, r->c.from_ablated);
done:
    free(params), free(from);
    return err->status;
}

/* ---- retain-heal ----------------------------------------------------------------------------- */

/* Clean sides [first, first + n) of the pairs as one group of examples in the deployed state, whose
 * loss is the mean of -log p over the batch's completion tokens: advantage 1, weight 1 / tokens. */
static void clean_examples(const vkm_run *r, uint32_t first, uint32_t n, vkm_example *ex) {
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < n; i++) {
        const vkm_pair_ids *p = &r->pairs[first + i];
        const vkm_ids *side = &p->side[1];
        ex[i] = (vkm_example){.seq = {side->id, (uint32_t)side->n, p->comp0}, .advantage = 1};
        memcpy(ex[i].f, vkm_state_ablated, sizeof ex[i].f);
        memcpy(ex[i].g, vkm_state_ablated, sizeof ex[i].g);
        memcpy(ex[i].xs, vkm_state_ablated, sizeof ex[i].xs);
        tokens += ex[i].seq.len - ex[i].seq.comp0;
    }
    for (uint32_t i = 0; i < n; i++) ex[i].weight = vkm_div(1.0f, (float)(int)tokens);
}

static vkm_status heal_step(vkm_run *r, vkm_example *ex, uint32_t n, uint32_t t, vkm_err *err) {
    const vkm_loss_options nll = {.importance = VKM_importance_none};
    const vkm_adam_rates rates = {.lr = (float)r->c.retain_heal,
                                  .beta1 = (float)r->c.adam_beta1,
                                  .beta2 = (float)r->c.adam_beta2,
                                  .epsilon = (float)r->c.adam_epsilon,
                                  .max_norm = (float)r->c.max_grad_norm,
                                  .t = t};
    double sums[VKM_MAX_EXPERTS];
    float norm;
    int finite;
    if (vkm_policy_zero_grad(r->policy, err) || vkm_policy_train(r->policy, ex, n, &nll, err) ||
        vkm_optimizer_part_sums(r->opt, r->policy->s, VKM_MAX_EXPERTS, sums, err) ||
        vkm_optimizer_norm(r->opt, r->policy->s, rates.max_norm, &norm, &finite, err))
        return err->status;
    VKM_BUG_ON(sums[VKM_HACK] != 0, "the retain-heal reached the hack expert: %g", sums[VKM_HACK]);
    if (!finite)
        return vkm_fail(
            err, VKM_FAILED,
            "retain_heal: the gradient is not finite; the last checkpoint is untouched");
    vkm_optimizer_step(r->opt, r->policy->s, &rates);
    vkm_adapter_refresh(r->policy->s, r->policy->adapter);
    return vkm_stream_flush(r->policy->s, err);
}

/* Moments of the run would move both experts on: the heal has its own, from zero. */
static vkm_status zero_moments(vkm_run *r, vkm_err *err) {
    static const vkm_adapter_state which[] = {VKM_STATE_ADAM_M, VKM_STATE_ADAM_V};
    for (size_t i = 0; i < VKM_COUNTOF(which); i++) {
        uint64_t n = vkm_adapter_size(r->policy->adapter, which[i]);
        float *zeros = vkm_calloc(n, sizeof *zeros, "the optimizer", err);
        if (!zeros || vkm_adapter_write(r->policy->adapter, which[i], zeros, err)) {
            free(zeros);
            return err->status;
        }
        free(zeros);
    }
    return VKM_OK;
}

vkm_status vkm_run_heal(vkm_run *r, vkm_err *err) {
    enum { BATCH = 8 };
    vkm_example ex[BATCH];
    uint32_t t = 0;
    if (zero_moments(r, err)) return err->status;
    for (uint32_t first = 0; first < r->n_pairs && !err->status; first += BATCH) {
        uint32_t n = r->n_pairs - first < BATCH ? r->n_pairs - first : BATCH;
        clean_examples(r, first, n, ex);
        (void)!heal_step(r, ex, n, t++, err);
    }
    if (err->status) return err->status;
    r->state.healed = 1;
    vkm_info("retain-heal: %u steps on the clean sides of %u pairs", t, r->n_pairs);
    return VKM_OK;
}
