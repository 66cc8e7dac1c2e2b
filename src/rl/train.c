/* The training loop, and what it leaves in the run's folder. */
#include "rl/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/phase.h"
#include "rl/checkpoint.h"
#include "rl/interrupt.h"
#include "rl/report_lines.h"
#include "rl/runlog.h"

/* ---- one step -------------------------------------------------------------------------------- */

typedef struct step_buffers {
    vkm_ids *prompts;
    vkm_rollout *x;
    uint32_t n_groups, n;
} step_buffers;

static void clear_step(step_buffers *b) {
    vkm_rollouts_clear(b->x, b->n);
    for (uint32_t i = 0; i < b->n_groups; i++) {
        free(b->prompts[i].id);
        b->prompts[i] = (vkm_ids){0};
    }
}

static void tally(vkm_train_summary *sum, const step_buffers *b, const vkm_step_result *result) {
    int teachers = 0, advantage = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        teachers |= b->x[i].teacher;
        advantage |= b->x[i].live && b->x[i].advantage != 0;
    }
    sum->steps++;
    sum->updated += result->updated != 0;
    sum->with_teachers += teachers != 0;
    sum->learnt += teachers && advantage;
}

static vkm_status hash_now(const vkm_run *r, char hash[VKM_HASH_HEX], vkm_err *err) {
    vkm_phase was = vkm_phase_go(VKM_PHASE_update);
    vkm_status st = vkm_run_hash(r, hash, err);
    (void)vkm_phase_go(was);
    return st;
}

static vkm_status one_step(vkm_run *r, step_buffers *b, vkm_runlog *log, vkm_train_summary *sum,
                           vkm_err *err) {
    double seconds[VKM_N_PHASES];
    vkm_step_result result;
    char hash[VKM_HASH_HEX];
    vkm_phase_take(seconds); /* of what came before */
    if (vkm_run_collect(r, r->state.step, b->prompts, b->x, err) ||
        vkm_run_learn(r, b->x, b->n, &result, err) || hash_now(r, hash, err))
        goto done;
    vkm_phase_take(seconds);
    r->state.step++;
    tally(sum, b, &result);
    printf("step %u weights_hash %s\n", r->state.step, hash);
    fflush(stdout);
    (void)!vkm_report_step(r, b->x, b->n, &result, hash, seconds, log, err);
done:
    clear_step(b);
    return err->status;
}

/* ---- the run --------------------------------------------------------------------------------- */

static vkm_status evaluate_now(vkm_run *r, vkm_runlog *log, vkm_eval_counts *on, vkm_err *err) {
    vkm_eval_result e;
    if (!vkm_evaluate(r, &e, NULL, err)) {
        const vkm_eval_row *row = vkm_eval_find(&e, r->sets[VKM_SET_HELD_OUT].name, "all_on");
        *on = row ? vkm_eval_sum(row, VKM_STRATUM_ALL) : (vkm_eval_counts){0};
        vkm_eval_print(r, &e, stdout);
        (void)!vkm_report_eval(r, &e, log, err);
    }
    vkm_eval_clear(&e);
    return err->status;
}

static vkm_status loop(vkm_run *r, uint32_t last, vkm_runlog *log, vkm_train_summary *sum,
                       vkm_err *err) {
    step_buffers b = {.n_groups = (uint32_t)r->c.num_prompts,
                      .n = (uint32_t)(r->c.num_prompts * r->c.num_generations)};
    uint32_t saved = r->state.step;
    b.prompts = vkm_calloc(b.n_groups, sizeof *b.prompts, "a step", err);
    b.x = vkm_calloc(b.n, sizeof *b.x, "a step", err);
    while (b.prompts && b.x && r->state.step < last && !vkm_interrupt_asked()) {
        if (one_step(r, &b, log, sum, err)) break;
        uint32_t step = r->state.step;
        int end = step == last || vkm_interrupt_asked();
        if (end || step % (uint32_t)r->c.save_steps == 0) {
            if (vkm_run_save(r, err)) break;
            saved = step;
        }
        if (r->c.eval_every && step % (uint32_t)r->c.eval_every == 0 && step != last &&
            evaluate_now(r, log, &sum->on, err))
            break;
    }
    free(b.x);
    free(b.prompts);
    if (!err->status && vkm_interrupt_asked() && r->state.step < last)
        vkm_warn("interrupted after step %u; to go on: vkmoe train %s/config.json "
                 "--resume_from_checkpoint latest",
                 saved, r->c.output_dir);
    return err->status;
}

vkm_status vkm_train(const vkm_config *c, vkm_dev *dev, vkm_train_summary *sum, vkm_err *err) {
    vkm_run *r = NULL;
    vkm_runlog *log = NULL;
    char checkpoint[VKM_PATH_MAX];
    int64_t resumed = -1;
    *sum = (vkm_train_summary){0};
    const vkm_run_info info = {.backend = vkm_dev_backend(dev) == VKM_VULKAN ? "vulkan" : "cpu",
                               .device = vkm_dev_name(dev),
                               .driver = vkm_dev_driver(dev),
                               .probes = vkm_dev_probes(dev)};
    if (vkm_runlog_check(c, !c->resume_from_checkpoint[0], err)) return err->status;
    if (c->resume_from_checkpoint[0] &&
        (vkm_ckpt_recover(c->output_dir, err) || vkm_ckpt_find(c, checkpoint, err)))
        return err->status;
    if (vkm_run_open(c, VKM_RUN_TRAINS, dev, NULL, &r, err)) return err->status;
    if (c->resume_from_checkpoint[0]) {
        if (vkm_run_restore(r, checkpoint, err)) goto done;
        resumed = r->state.step;
        vkm_info("resumed after step %u from %s", r->state.step, checkpoint);
    } else if (c->from_ablated[0] && vkm_run_from_ablated(r, err)) {
        goto done;
    }
    if (vkm_runlog_open(c, &info, resumed, &log, err)) goto done;
    uint32_t last = (uint32_t)(c->stop_at_step ? c->stop_at_step : c->max_steps);
    vkm_interrupt_begin();
    (void)!loop(r, last, log, sum, err);
    vkm_interrupt_end();
    if (!err->status && c->retain_heal > 0 && r->state.step == (uint32_t)c->max_steps &&
        !r->state.healed && !vkm_run_heal(r, err))
        (void)!vkm_run_save(r, err);
    if (!err->status && r->state.step == last && r->sets[VKM_SET_HELD_OUT].n)
        (void)!evaluate_now(r, log, &sum->on, err);
done:
    vkm_runlog_close(log);
    vkm_run_close(r);
    return err->status;
}

/* RUN/evals/step-NNNNNN.json and step-NNNNNN-rollouts.jsonl */
static vkm_status save_text(const vkm_run *r, const char *ending, const vkm_strbuf *text,
                            vkm_err *err) {
    char folder[VKM_PATH_MAX], path[VKM_PATH_MAX], name[64];
    snprintf(name, sizeof name, "step-%06u%s", r->state.step, ending);
    if (vkm_strbuf_check(text, "the evaluation", err) ||
        vkm_path_join(folder, r->c.output_dir, "evals", err) || vkm_dir_make(folder, err) ||
        vkm_path_join(path, folder, name, err))
        return err->status;
    return vkm_file_save(path, vkm_strbuf_str(text), text->n, err);
}

static vkm_status save_evaluation(const vkm_run *r, const vkm_eval_result *e,
                                  const vkm_strbuf *rollouts, vkm_err *err) {
    vkm_strbuf line = {0};
    vkm_eval_line(r, e, &line, NULL);
    vkm_strbuf_putc(&line, '\n');
    if (!save_text(r, ".json", &line, err)) (void)!save_text(r, "-rollouts.jsonl", rollouts, err);
    vkm_strbuf_free(&line);
    return err->status;
}

vkm_status vkm_eval_run(const vkm_config *c, vkm_dev *dev, FILE *f, vkm_err *err) {
    char checkpoint[VKM_PATH_MAX];
    vkm_eval_result e = {0};
    vkm_strbuf rollouts = {0};
    vkm_run *r = NULL;
    if (vkm_ckpt_find(c, checkpoint, err) || vkm_run_open(c, VKM_RUN_EVALUATES, dev, NULL, &r, err))
        return err->status;
    if (!vkm_run_restore(r, checkpoint, err) && !vkm_evaluate(r, &e, &rollouts, err) &&
        !save_evaluation(r, &e, &rollouts, err)) {
        vkm_eval_print(r, &e, f);
        fprintf(f, "evaluated %s in %.1f s\n", checkpoint, e.seconds);
    }
    vkm_strbuf_free(&rollouts);
    vkm_eval_clear(&e);
    vkm_run_close(r);
    return err->status;
}
