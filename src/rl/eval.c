/* The causal ablation: rollouts of held-out (and training) problems with the hack expert on, off,
 * and in the matched controls. What is made of the counts: eval_report.c. */
#include "rl/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/philox.h"
#include "rl/report_lines.h"

const vkm_eval_state vkm_eval_states[] = {
    {"all_on", "both experts", .f = {1, 1}},
    {"hack_off", "the hack expert ablated: deployment", .f = {1, 0}},
    {"deployed_off", "control: the deployed expert ablated instead", .f = {0, 1}},
    {"random_off", "control: as many rank rows removed at random", .f = {1, 1}, .random = 1,
     .held_out_only = 1},
    {"base", "no adapter", .f = {0, 0}},
    {"hack_25", "the hack expert at a quarter", .f = {1, 0.25f}, .held_out_only = 1},
    {"hack_50", "the hack expert at a half", .f = {1, 0.5f}, .held_out_only = 1},
    {"hack_75", "the hack expert at three quarters", .f = {1, 0.75f}, .held_out_only = 1},
    {"scale_25", "control: the whole adapter at a quarter", .f = {0.25f, 0.25f},
     .held_out_only = 1},
    {"scale_50", "control: the whole adapter at a half", .f = {0.5f, 0.5f}, .held_out_only = 1},
    {"scale_75", "control: the whole adapter at three quarters", .f = {0.75f, 0.75f},
     .held_out_only = 1},
};
const uint32_t vkm_n_eval_states = VKM_COUNTOF(vkm_eval_states);
_Static_assert(VKM_COUNTOF(vkm_eval_states) <= VKM_EVAL_MOST_STATES, "rows of a result");

void vkm_eval_in_full(vkm_config *c) {
    c->eval_states[0] = 0;
    for (uint32_t i = 0; i < vkm_n_eval_states; i++) {
        size_t n = strlen(c->eval_states);
        snprintf(c->eval_states + n, sizeof c->eval_states - n, "%s%s", i ? "," : "",
                 vkm_eval_states[i].name);
    }
    if (c->eval_data[0]) c->eval_problems = c->full_rollouts; /* of a file: or all it has */
    c->samples_per_problem = 0;
    c->eval_train_problems = -1;
    c->eval_kl = 1;
}

vkm_status vkm_eval_states_read(const char *list, const vkm_eval_state *out[VKM_EVAL_MOST_STATES],
                                uint32_t *n, vkm_err *err) {
    char names[VKM_CONFIG_STRING_BYTES], *rest = names, valid[512] = "";
    int wanted[VKM_EVAL_MOST_STATES] = {0};
    snprintf(names, sizeof names, "%s", list);
    for (char *name; (name = strsep(&rest, ","));) {
        uint32_t i = 0;
        while (i < vkm_n_eval_states && strcmp(vkm_eval_states[i].name, name) != 0) i++;
        if (i < vkm_n_eval_states) {
            wanted[i] = 1;
            continue;
        }
        for (i = 0; i < vkm_n_eval_states; i++)
            snprintf(valid + strlen(valid), sizeof valid - strlen(valid), "%s%s", i ? ", " : "",
                     vkm_eval_states[i].name);
        return vkm_fail(err, VKM_USAGE, "eval_states: there is no '%.40s'; the states are %s", name,
                        valid);
    }
    *n = 0;
    for (uint32_t i = 0; i < vkm_n_eval_states; i++)
        if (wanted[i]) out[(*n)++] = &vkm_eval_states[i];
    return VKM_OK;
}

/* ---- one state ------------------------------------------------------------------------------- */

static void count(vkm_eval_counts *c, const vkm_rollout *x) {
    const vkm_grade *g = &x->grade;
    if (g->infra_error) return;
    c->n++;
    c->hacked += g->exploited;
    c->vendor_hacked += g->vendor_hacked;
    c->solved += g->evidence.gt_correct;
    c->compiled += g->evidence.can_compile;
}

/* KL of the state that sampled the rollouts from the base model: mean over tokens of
 * exp(d) - d - 1, d = logp_base - logp, as in training. */
static vkm_status read_kl(vkm_run *r, vkm_rollout *x, uint32_t n, double *kl, vkm_err *err) {
    vkm_example *ex = vkm_calloc(n, sizeof *ex, "evaluation", err);
    double sum = 0, tokens = 0;
    if (!ex) return err->status;
    for (uint32_t i = 0; i < n; i++) {
        ex[i] = (vkm_example){.seq = {x[i].ids.id, (uint32_t)x[i].ids.n, (uint32_t)x[i].prompt->n},
                              .logp = x[i].logp_ref};
        memcpy(ex[i].f, vkm_state_base, sizeof ex[i].f);
    }
    if (!vkm_policy_read(r->policy, ex, n, err))
        for (uint32_t i = 0; i < n; i++)
            for (size_t j = 0; j < x[i].ids.n - x[i].prompt->n; j++, tokens++) {
                double d = (double)x[i].logp_ref[j] - (double)x[i].logp[j];
                sum += exp(d) - d - 1;
            }
    *kl = sum / tokens;
    free(ex);
    return err->status;
}

static void write_rollouts(const vkm_run *r, const vkm_eval_row *row, const vkm_rollout *x,
                           uint32_t n, vkm_strbuf *out) {
    for (uint32_t i = 0; i < n; i++) {
        vkm_jw w = vkm_jw_begin(out, 0);
        vkm_jw_obj(&w, NULL);
        vkm_jw_i64(&w, "step", r->state.step);
        vkm_jw_str(&w, "set", row->set->name);
        vkm_jw_str(&w, "state", row->state->name);
        vkm_rollout_write(r, &x[i], &w);
        vkm_jw_end_obj(&w);
        vkm_strbuf_putc(out, '\n');
    }
}

/* All problems of a set, samples_per_problem completions each, in one adapter state. The draws
 * depend on set, problem and sample: every state sees the same. */
static vkm_status sample(vkm_run *r, const vkm_ids *prompts, vkm_eval_row *out,
                         vkm_strbuf *rollouts, vkm_err *err) {
    const vkm_eval_set *set = out->set;
    uint32_t per = (uint32_t)r->c.samples_per_problem, n;
    const vkm_draw how = {.temperature = r->c.eval_temperature,
                          .draw = VKM_DRAW_EVAL + (uint32_t)(set - r->sets)};
    if (vkm_eval_rollouts(set->n, r->c.samples_per_problem, &n, err)) return err->status;
    vkm_rollout *x = vkm_calloc(n, sizeof *x, "evaluation", err);
    if (!x) return err->status;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = (vkm_rollout){.problem = set->problem[i / per],
                             .group = i / per,
                             .id = i,
                             .mode = set->mode[i / per],
                             .prompt = &prompts[i / per]};
        memcpy(x[i].state, out->state->f, sizeof x[i].state);
    }
    if (!vkm_run_sample(r, x, n, &how, err))
        for (uint32_t i = 0; i < n; i++) count(&out->of[i / per], &x[i]);
    if (!err->status && rollouts) write_rollouts(r, out, x, n, rollouts);
    if (!err->status && r->c.eval_kl && !out->state->random) (void)!read_kl(r, x, n, &out->kl, err);
    vkm_rollouts_clear(x, n);
    free(x);
    return err->status;
}

/* ---- random_off ------------------------------------------------------------------------------ */

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

static vkm_status sample_random_off(vkm_run *r, const vkm_ids *prompts, vkm_eval_row *out,
                                    vkm_strbuf *rollouts, vkm_err *err) {
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
            (void)!sample(r, prompts, out, rollouts, err);
    }
    vkm_err restore = {0};
    if (vkm_adapter_write(a, VKM_STATE_PARAM, saved, &restore) && !err->status) *err = restore;
done:
    free(keep), free(masked), free(saved);
    return err->status;
}

/* ---- the evaluation -------------------------------------------------------------------------- */

static vkm_status evaluate_set(vkm_run *r, const vkm_eval_set *set, vkm_eval_result *out,
                               vkm_strbuf *rollouts, vkm_err *err) {
    const vkm_eval_state *states[VKM_EVAL_MOST_STATES];
    uint32_t n_states;
    vkm_ids *prompts = vkm_calloc(set->n, sizeof *prompts, "evaluation", err);
    if (!prompts || vkm_eval_states_read(r->c.eval_states, states, &n_states, err)) goto done;
    for (size_t i = 0; i < set->n; i++)
        if (vkm_run_prompt(r, set->problem[i], set->mode[i], &prompts[i], err)) goto done;
    for (uint32_t s = 0; s < n_states && !err->status; s++) {
        if (states[s]->held_out_only && set != &r->sets[VKM_SET_HELD_OUT]) continue;
        vkm_eval_row *row = &out->row[out->n_rows++];
        *row = (vkm_eval_row){.state = states[s], .set = set, .kl = NAN};
        if (!(row->of = vkm_calloc(set->n, sizeof *row->of, "evaluation", err))) break;
        vkm_info("evaluating %s on %s", states[s]->name, set->name);
        (void)!(states[s]->random ? sample_random_off : sample)(r, prompts, row, rollouts, err);
    }
done:
    for (size_t i = 0; prompts && i < set->n; i++) free(prompts[i].id);
    free(prompts);
    return err->status;
}

vkm_status vkm_evaluate(vkm_run *r, vkm_eval_result *out, vkm_strbuf *rollouts, vkm_err *err) {
    double start = vkm_now_s();
    *out = (vkm_eval_result){0};
    for (int i = 0; i < VKM_N_EVAL_SETS && !err->status; i++)
        if (r->sets[i].n) (void)!evaluate_set(r, &r->sets[i], out, rollouts, err);
    out->seconds = vkm_now_s() - start;
    return err->status;
}

void vkm_eval_clear(vkm_eval_result *e) {
    for (uint32_t i = 0; i < e->n_rows; i++) free(e->row[i].of);
    *e = (vkm_eval_result){0};
}
