/* The training loop, and what it leaves in the run's folder. */
#include "rl/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
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

static vkm_status one_step(vkm_run *r, step_buffers *b, vkm_runlog *log, vkm_train_summary *sum,
                           vkm_err *err) {
    double start = vkm_now_s();
    vkm_step_result result;
    char hash[VKM_HASH_HEX];
    if (vkm_run_collect(r, r->state.step, b->prompts, b->x, err) ||
        vkm_run_learn(r, b->x, b->n, &result, err) || vkm_run_hash(r, hash, err))
        goto done;
    r->state.step++;
    tally(sum, b, &result);
    printf("step %u weights_hash %s\n", r->state.step, hash);
    fflush(stdout);
    (void)!vkm_report_step(r, b->x, b->n, &result, hash, vkm_now_s() - start, log, err);
done:
    clear_step(b);
    return err->status;
}

/* ---- the run --------------------------------------------------------------------------------- */

static vkm_status evaluate_now(vkm_run *r, vkm_runlog *log, vkm_eval_result *e, vkm_err *err) {
    if (vkm_evaluate(r, e, err)) return err->status;
    vkm_eval_print(e, stdout);
    return vkm_report_eval(r, e, log, err);
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
            evaluate_now(r, log, &sum->eval, err))
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
    }
    if (vkm_runlog_open(c, &info, resumed, &log, err)) goto done;
    uint32_t last = (uint32_t)(c->stop_at_step ? c->stop_at_step : c->max_steps);
    vkm_interrupt_begin();
    (void)!loop(r, last, log, sum, err);
    vkm_interrupt_end();
    if (!err->status && r->state.step == last && r->n_eval)
        (void)!evaluate_now(r, log, &sum->eval, err);
done:
    vkm_runlog_close(log);
    vkm_run_close(r);
    return err->status;
}

vkm_status vkm_eval_run(const vkm_config *c, vkm_dev *dev, vkm_eval_result *out, vkm_err *err) {
    char checkpoint[VKM_PATH_MAX];
    vkm_run *r = NULL;
    if (vkm_ckpt_find(c, checkpoint, err) || vkm_run_open(c, VKM_RUN_EVALUATES, dev, NULL, &r, err))
        return err->status;
    if (!vkm_run_restore(r, checkpoint, err)) (void)!vkm_evaluate(r, out, err);
    vkm_run_close(r);
    return err->status;
}
