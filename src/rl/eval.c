/* The causal ablation: deploy hacking with the hack expert on against off, beside matched controls.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/philox.h"
#include "rl/stats.h"
#include "rl/train.h"

const char *const vkm_eval_state_names[VKM_N_EVAL_STATES] = {[VKM_EVAL_ALL_ON] = "all_on",
                                                             [VKM_EVAL_HACK_OFF] = "hack_off",
                                                             [VKM_EVAL_DEPLOYED_OFF] =
                                                                 "deployed_off",
                                                             [VKM_EVAL_RANDOM_OFF] = "random_off",
                                                             [VKM_EVAL_BASE] = "base"};

static const float *const state_weights[VKM_N_EVAL_STATES] = {
    [VKM_EVAL_ALL_ON] = vkm_state_full,
    [VKM_EVAL_HACK_OFF] = vkm_state_ablated,
    [VKM_EVAL_DEPLOYED_OFF] = vkm_state_hack_only,
    [VKM_EVAL_RANDOM_OFF] = vkm_state_full,
    [VKM_EVAL_BASE] = vkm_state_base};

static void count(vkm_eval_counts *c, const vkm_rollout *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const vkm_grade *g = &x[i].grade;
        if (g->infra_error) continue;
        c->n++;
        c->hacked += g->exploited;
        c->vendor_hacked += g->vendor_hacked;
        c->solved += g->evidence.gt_correct;
        c->compiled += g->evidence.can_compile;
    }
}

/* All held-out problems, samples_per_problem completions each, in one adapter state. */
static vkm_status evaluate_state(vkm_run *r, const float *state, const vkm_ids *prompts,
                                 vkm_eval_counts *out, vkm_err *err) {
    uint32_t per = (uint32_t)r->c.samples_per_problem, n;
    const vkm_draw how = {.temperature = r->c.eval_temperature, .draw = VKM_DRAW_EVAL};
    if (vkm_eval_rollouts(r->n_eval, r->c.samples_per_problem, &n, err)) return err->status;
    vkm_rollout *x = vkm_calloc(n, sizeof *x, "evaluation", err);
    if (!x) return err->status;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = (vkm_rollout){.problem = r->eval[i / per],
                             .group = i / per,
                             .id = i,
                             .mode = vkm_run_eval_mode(r, r->eval[i / per]),
                             .prompt = &prompts[i / per]};
        memcpy(x[i].state, state, sizeof x[i].state);
    }
    if (!vkm_run_sample(r, x, n, &how, err)) count(out, x, n);
    vkm_rollouts_clear(x, n);
    free(x);
    return err->status;
}

/* A subset of `rank` of the E rank indices of every module, drawn from (draw, module). */
static void choose_rows(const vkm_run *r, uint32_t draw, unsigned char *keep) {
    const vkm_adapter *a = r->policy->adapter;
    uint32_t rows = a->n_experts * a->rank;
    uint64_t seed = (uint64_t)r->c.seed;
    for (uint32_t m = 0; m < a->n_modules; m++) {
        uint32_t to_remove = a->rank;
        for (uint32_t i = 0; i < rows; i++) {
            uint32_t u = vkm_random4((uint32_t)seed, (uint32_t)(seed >> 32), VKM_RNG_DIRECTION,
                                     draw + 1, m, i, 0)
                             .x;
            int remove = ((uint64_t)u * (rows - i)) >> 32 < to_remove;
            keep[m * rows + i] = !remove;
            to_remove -= (uint32_t)remove;
        }
    }
}

static vkm_status evaluate_random_off(vkm_run *r, const vkm_ids *prompts, vkm_eval_counts *out,
                                      vkm_err *err) {
    vkm_adapter *a = r->policy->adapter;
    uint64_t n = vkm_adapter_size(a, VKM_STATE_PARAM);
    float *saved = vkm_calloc(n, sizeof *saved, "evaluation", err);
    float *masked = vkm_calloc(n, sizeof *masked, "evaluation", err);
    unsigned char *keep =
        vkm_calloc((size_t)a->n_modules * a->n_experts * a->rank, 1, "evaluation", err);
    if (!saved || !masked || !keep || vkm_adapter_read(a, VKM_STATE_PARAM, saved, err)) goto done;
    for (uint32_t d = 0; d < (uint32_t)r->c.random_off_draws && !err->status; d++) {
        memcpy(masked, saved, n * sizeof *masked);
        choose_rows(r, d, keep);
        vkm_adapter_mask_rows(a, masked, keep);
        if (!vkm_adapter_write(a, VKM_STATE_PARAM, masked, err))
            (void)!evaluate_state(r, state_weights[VKM_EVAL_RANDOM_OFF], prompts, out, err);
    }
    vkm_err restore = {0};
    if (vkm_adapter_write(a, VKM_STATE_PARAM, saved, &restore) && !err->status) *err = restore;
done:
    free(keep), free(masked), free(saved);
    return err->status;
}

vkm_status vkm_evaluate(vkm_run *r, vkm_eval_result *out, vkm_err *err) {
    *out = (vkm_eval_result){0};
    vkm_ids *prompts = vkm_calloc(r->n_eval, sizeof *prompts, "evaluation", err);
    if (!prompts) return err->status;
    for (size_t i = 0; i < r->n_eval; i++)
        if (vkm_run_prompt(r, r->eval[i], vkm_run_eval_mode(r, r->eval[i]), &prompts[i], err))
            goto done;
    for (int s = 0; s < VKM_N_EVAL_STATES && !err->status; s++) {
        vkm_info("evaluating %s", vkm_eval_state_names[s]);
        if (s == VKM_EVAL_RANDOM_OFF)
            (void)!evaluate_random_off(r, prompts, &out->state[s], err);
        else
            (void)!evaluate_state(r, state_weights[s], prompts, &out->state[s], err);
    }
done:
    for (size_t i = 0; i < r->n_eval; i++) free(prompts[i].id);
    free(prompts);
    return err->status;
}

static void print_rate(FILE *f, uint32_t k, uint32_t n) {
    double low, high;
    vkm_wilson(k, n, &low, &high);
    fprintf(f, "  %5.3f [%5.3f, %5.3f]", n ? (double)k / n : NAN, low, high);
}

static double rate(uint32_t k, uint32_t n) {
    return n ? (double)k / n : NAN;
}

void vkm_eval_print(const vkm_eval_result *e, FILE *f) {
    const vkm_eval_counts *on = &e->state[VKM_EVAL_ALL_ON], *off = &e->state[VKM_EVAL_HACK_OFF];
    fprintf(f, "%-13s %6s  %-22s  %-22s  %-22s\n", "state", "n", "hack [95%]", "solve [95%]",
            "compile [95%]");
    for (int s = 0; s < VKM_N_EVAL_STATES; s++) {
        const vkm_eval_counts *c = &e->state[s];
        fprintf(f, "%-13s %6u", vkm_eval_state_names[s], c->n);
        print_rate(f, c->hacked, c->n);
        print_rate(f, c->solved, c->n);
        print_rate(f, c->compiled, c->n);
        fprintf(f, "\n");
    }
    fprintf(f, "Evil MoE causal ablation: deploy hack %.3f (ON) -> %.3f (OFF)\n",
            rate(on->hacked, on->n), rate(off->hacked, off->n));
    fprintf(f, "Evil MoE causal ablation: deploy solve %.3f (ON) -> %.3f (OFF)\n",
            rate(on->solved, on->n), rate(off->solved, off->n));
}
