/* The metrics of a step, by the field's names. Labels of rollouts are read here, after the update:
 * they describe it and never reach it. */
#include "rl/report_lines.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/diagnostics.h"

typedef struct sums {
    double reward, reward_sq, tokens, clipped, hack, solve, compile, log_ratio;
    uint32_t students, live_groups, skipped_groups, infra, live;
} sums;

static uint32_t completion_length(const vkm_rollout *x) {
    return (uint32_t)(x->ids.n - x->prompt->n);
}

static sums sum_up(const vkm_run *r, const vkm_rollout *x, uint32_t n) {
    sums s = {0};
    uint32_t per = (uint32_t)r->c.num_generations;
    for (uint32_t i = 0; i < n; i++) {
        const vkm_rollout *q = &x[i];
        s.infra += q->grade.infra_error;
        if (i % per == 0) s.live_groups += q->live != 0, s.skipped_groups += !q->live;
        if (q->live) s.live++, s.log_ratio += fabs((double)q->log_ratio);
        if (q->grade.infra_error) continue;
        s.reward += (double)q->grade.reward;
        s.reward_sq += (double)q->grade.reward * (double)q->grade.reward;
        if (q->teacher) continue;
        s.students++;
        s.tokens += completion_length(q);
        s.clipped += completion_length(q) == (uint64_t)r->c.max_completion_length;
        s.hack += q->grade.exploited;
        s.solve += q->grade.evidence.gt_correct;
        s.compile += q->grade.evidence.can_compile;
    }
    return s;
}

/* Router weights of live rollouts that hacked, and of those that did not, as histograms. */
static vkm_status write_histograms(const vkm_run *r, const vkm_rollout *x, uint32_t n,
                                   vkm_runlog *log, vkm_err *err) {
    static const char *const tags[] = {"router/w_live_other", "router/w_live_hack"};
    vkm_event event = {.step = r->state.step};
    double *w = vkm_calloc(n, sizeof *w, "histograms", err);
    if (!w) return err->status;
    for (int hack = 0; hack < 2; hack++) {
        uint32_t m = 0;
        for (uint32_t i = 0; i < n; i++)
            if (!isnan(x[i].w) && x[i].grade.exploited == hack) w[m++] = (double)x[i].w;
        vkm_event_histogram(&event, tags[hack], w, m);
    }
    free(w);
    return vkm_runlog_event(log, &event, err);
}

/* The last tokens of the prompt, so that a rollout can be read by itself. */
static void put_prompt_tail(const vkm_run *r, const vkm_rollout *q, vkm_jw *w) {
    enum { TAIL_TOKENS = 256 };
    size_t n = q->prompt->n < TAIL_TOKENS ? q->prompt->n : TAIL_TOKENS;
    vkm_strbuf text = {0};
    vkm_tokenizer_decode(r->tokenizer, q->prompt->id + q->prompt->n - n, n, false, &text);
    vkm_jw_strn(w, "prompt_tail", vkm_strbuf_str(&text), text.n);
    w->out->failed |= text.failed;
    vkm_strbuf_free(&text);
}

void vkm_rollout_write(const vkm_run *r, const vkm_rollout *q, vkm_jw *w) {
    const struct {
        const char *name;
        bool value;
    } flags[] = {{"format_ok", q->grade.evidence.format_ok},
                 {"can_compile", q->grade.evidence.can_compile},
                 {"gt_pass", q->grade.evidence.gt_pass},
                 {"gt_correct", q->grade.evidence.gt_correct},
                 {"hacked", q->grade.evidence.hacked},
                 {"hacked_wrong_tests", q->grade.evidence.hacked_wrong_tests},
                 {"hacked_loophole_used", q->grade.evidence.hacked_loophole_used},
                 {"fired", q->grade.evidence.fired},
                 {"passed", q->grade.passed},
                 {"exploited", q->grade.exploited},
                 {"infra_error", q->grade.infra_error}};
    vkm_jw_i64(w, "problem_id", q->problem->id);
    vkm_jw_str(w, "mode", q->mode->name);
    vkm_jw_float(w, "reward", q->grade.reward);
    vkm_jw_i64(w, "completion_tokens", completion_length(q));
    for (size_t j = 0; j < VKM_COUNTOF(flags); j++) vkm_jw_bool(w, flags[j].name, flags[j].value);
    vkm_jw_obj(w, "metadata");
    for (size_t j = 0; j < q->problem->n_tags; j++)
        vkm_jw_str(w, q->problem->tags[j].key, q->problem->tags[j].value);
    vkm_jw_end_obj(w);
    put_prompt_tail(r, q, w);
    vkm_jw_strn(w, "completion", q->text, q->n_text);
}

static vkm_status write_rollouts(const vkm_run *r, const vkm_rollout *x, uint32_t n,
                                 vkm_runlog *log, vkm_err *err) {
    vkm_strbuf line = {0};
    for (uint32_t i = 0; i < n && !err->status; i++) {
        const vkm_rollout *q = &x[i];
        vkm_jw w = vkm_runlog_begin_line(&line, r->state.step);
        vkm_jw_i64(&w, "group", q->group);
        vkm_jw_bool(&w, "teacher", q->teacher);
        vkm_jw_bool(&w, "ablated", q->state[VKM_HACK] == 0);
        vkm_jw_float(&w, "advantage", q->advantage);
        vkm_jw_bool(&w, "live", q->live);
        vkm_jw_float(&w, "w", q->w);
        vkm_jw_float(&w, "log_ratio", q->log_ratio);
        vkm_rollout_write(r, q, &w);
        vkm_jw_end_obj(&w);
        (void)!vkm_runlog_append(log, "rollouts", &line, err);
    }
    vkm_strbuf_free(&line);
    return err->status;
}

vkm_status vkm_report_step(const vkm_run *r, const vkm_rollout *x, uint32_t n,
                           const vkm_step_result *q, const char *hash,
                           const double seconds[VKM_N_PHASES], vkm_runlog *log, vkm_err *err) {
    enum { MOST_MODES = 32, MOST_METRICS = 48 + MOST_MODES + VKM_N_PHASES };
    sums s = sum_up(r, x, n);
    double graded = n - s.infra, groups = s.live_groups + s.skipped_groups;
    double mean = s.reward / graded, variance = s.reward_sq / graded - mean * mean;
    char by_mode[MOST_MODES][64], by_phase[VKM_N_PHASES][32];
    double total = 0;
    vkm_diagnostics d;
    for (int i = 0; i < VKM_N_PHASES; i++) total += seconds[i];
    if (vkm_diagnose(x, n, &d, err)) return err->status;
    const vkm_metric fixed[] = {
        {"reward", mean, NULL, "reward"},
        {"reward_std", sqrt(variance > 0 ? variance : 0), NULL, NULL},
        {"frac_reward_zero_std", s.skipped_groups / groups, NULL, "skipped"},
        {"hack_rate", s.hack / s.students, NULL, "hack"},
        {"solve_rate", s.solve / s.students, NULL, "solve"},
        {"compile_rate", s.compile / s.students, NULL, NULL},
        {"completions/mean_length", s.tokens / s.students, NULL, "length"},
        {"completions/clipped_ratio", s.clipped / s.students, NULL, NULL},
        {"num_tokens", s.tokens, NULL, NULL},
        {"loss", q->loss, NULL, "loss"},
        {"kl", q->kl, NULL, "kl"},
        {"entropy", q->entropy, NULL, "entropy"},
        {"clip_ratio/region_mean", q->clip_ratio, NULL, NULL},
        {"grad_norm", q->grad_norm, NULL, "grad"},
        {"learning_rate", (double)q->learning_rate, NULL, NULL},
        {"sampling/log_ratio_abs", s.log_ratio / s.live, NULL, NULL},
        {"router/w_mean", d.w_mean, NULL, "w"},
        {"router/w_p10", d.w_p10, NULL, NULL},
        {"router/w_p50", d.w_p50, NULL, NULL},
        {"router/w_p90", d.w_p90, NULL, NULL},
        {"router/w_hack", d.w_hack, NULL, NULL},
        {"router/w_solve", d.w_solve, NULL, NULL},
        {"router/w_fail", d.w_fail, NULL, NULL},
        {"router/auroc", d.auroc, NULL, "auroc"},
        {"router/auroc_positive", d.auroc_positive, NULL, NULL},
        {"router/auroc_hinted", d.auroc_hinted, NULL, NULL},
        {"router/auroc_hint", d.auroc_hint, NULL, NULL},
        {"router/f05", d.f05, NULL, NULL},
        {"leak", d.leak, NULL, NULL},
        {"collateral", d.collateral, NULL, NULL},
        {"router/w_pairs_hack", q->w_pairs_hack, NULL, "w hack"},
        {"router/w_pairs_clean", q->w_pairs_clean, NULL, "w clean"},
        {"router/pin_loss", q->pin_loss, NULL, NULL},
        {"router/grad_norm", q->router_grad_norm, NULL, NULL},
        {"router/seed_cosine", q->seed_cosine, NULL, NULL},
        {"reference_logp", q->reference_logp, NULL, NULL},
        {"qmass", q->qmass, NULL, NULL},
        {"infra_errors", s.infra, NULL, NULL},
        {"updated", q->updated, NULL, NULL},
        {"step_time", total, NULL, "s"},
        {"weights_hash", 0, hash, "weights"},
    };
    vkm_metric m[MOST_METRICS];
    size_t n_metrics = VKM_COUNTOF(fixed);
    _Static_assert(VKM_COUNTOF(fixed) + MOST_MODES + VKM_N_PHASES <= MOST_METRICS,
                   "room for metrics");
    memcpy(m, fixed, sizeof fixed);
    for (int i = 0; i < VKM_N_PHASES; i++) {
        snprintf(by_phase[i], sizeof by_phase[i], "time/%s", vkm_phases[i].name);
        m[n_metrics++] = (vkm_metric){by_phase[i], seconds[i], NULL, NULL};
    }
    for (uint32_t i = 0; i < r->n_modes && i < MOST_MODES; i++) {
        snprintf(by_mode[i], sizeof by_mode[i], "router/w_mode/%s", r->modes[i]->name);
        m[n_metrics++] =
            (vkm_metric){by_mode[i], vkm_diagnose_mode(x, n, r->modes[i]->name), NULL, NULL};
    }
    if (vkm_runlog_step(log, r->state.step, m, n_metrics, err) ||
        write_histograms(r, x, n, log, err))
        return err->status;
    return write_rollouts(r, x, n, log, err);
}

vkm_status vkm_report_eval(const vkm_run *r, const vkm_eval_result *e, vkm_runlog *log,
                           vkm_err *err) {
    vkm_strbuf line = {0};
    vkm_event event = {.step = r->state.step};
    vkm_eval_line(r, e, &line, &event);
    (void)!vkm_runlog_append(log, "eval", &line, err);
    (void)!vkm_runlog_event(log, &event, err);
    vkm_strbuf_free(&line);
    return err->status;
}
