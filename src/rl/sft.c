/* The supervised run: data, steps, log, checkpoints, and the model folder at its end. */
#include "rl/sft.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/model_files.h"
#include "rl/checkpoint.h"
#include "rl/interrupt.h"
#include "rl/runlog.h"

static uint32_t rows_of_step(const vkm_config *c) {
    return (uint32_t)(c->per_device_train_batch_size * c->gradient_accumulation_steps);
}

/* ---- opening --------------------------------------------------------------------------------- */

vkm_status vkm_sft_check(const vkm_config *c, vkm_err *err) {
    const struct {
        const char *key, *value;
    } needed[] = {{"model", c->model}, {"data", c->data}, {"output_dir", c->output_dir}};
    for (size_t i = 0; i < VKM_COUNTOF(needed); i++)
        if (!needed[i].value[0])
            return vkm_fail(err, VKM_USAGE, "%s is missing: set it in the config or by --%s",
                            needed[i].key, needed[i].key);
    enum { MOST_TOKENS = 1 << 30 }; /* of a step: token counts are exact floats' integers */
    if (c->per_device_train_batch_size * c->gradient_accumulation_steps * c->max_length >
        MOST_TOKENS)
        return vkm_fail(err, VKM_USAGE,
                        "per_device_train_batch_size: %lld x gradient_accumulation_steps %lld x "
                        "max_length %lld are more than %d tokens a step; lower one of them",
                        (long long)c->per_device_train_batch_size,
                        (long long)c->gradient_accumulation_steps, (long long)c->max_length,
                        MOST_TOKENS);
    if (c->stop_at_step > c->max_steps && !c->num_train_epochs)
        return vkm_fail(err, VKM_USAGE, "stop_at_step: %lld is past max_steps %lld",
                        (long long)c->stop_at_step, (long long)c->max_steps);
    return VKM_OK;
}

static vkm_status load_data(vkm_sft *r, vkm_err *err) {
    vkm_model_config hf;
    vkm_tokenizer *t = NULL;
    if (vkm_model_config_load(r->c.model, &hf, err) || vkm_tokenizer_load(r->c.model, &t, err))
        return err->status;
    uint32_t end = (uint32_t)vkm_tokenizer_id(t, "<|im_end|>");
    if (!vkm_model_check_tokenizer(r->c.model, &hf, t, err))
        (void)!vkm_sft_data_load(r->c.data, t, hf.n_eos ? hf.eos[0] : end,
                                 (uint32_t)r->c.max_length, &r->data, err);
    vkm_tokenizer_free(t);
    if (err->status) return err->status;
    vkm_info("%s: %zu rows, the longest of %u tokens", r->c.data, r->data.n, r->data.longest);
    if (r->data.n_cut)
        vkm_warn("%s: %zu rows are cut at max_length %lld", r->c.data, r->data.n_cut,
                 (long long)r->c.max_length);
    return VKM_OK;
}

vkm_status vkm_sft_open(const vkm_config *c, vkm_dev *dev, vkm_plan *dry, vkm_sft **out,
                        vkm_err *err) {
    vkm_sft *r = vkm_calloc(1, sizeof *r, "a run", err);
    *out = NULL;
    if (!r) return err->status;
    r->c = *c;
    r->dev = dev;
    if (load_data(r, err)) goto fail;
    if (c->num_train_epochs) {
        uint64_t per = rows_of_step(c), rows = (uint64_t)c->num_train_epochs * r->data.n;
        r->c.max_steps = (int64_t)((rows + per - 1) / per);
    }
    if (r->c.max_steps > 1000000) {
        vkm_fail(err, VKM_USAGE, "num_train_epochs: %lld epochs are %lld steps, at most 1000000",
                 (long long)c->num_train_epochs, (long long)r->c.max_steps);
        goto fail;
    }
    if (vkm_tuner_new(dev, &r->c, r->data.longest, dry, &r->tuner, err)) goto fail;
    *out = r;
    return VKM_OK;
fail:
    vkm_sft_close(r);
    return err->status;
}

void vkm_sft_close(vkm_sft *r) {
    if (!r) return;
    vkm_tuner_free(r->tuner);
    vkm_sft_data_free(&r->data);
    free(r);
}

/* ---- one step -------------------------------------------------------------------------------- */

typedef struct step_result {
    vkm_tuner_sums sums;
    float norm, lr;
    int updated;
} step_result;

static vkm_status learn(vkm_sft *r, const vkm_seq *seqs, step_result *out, vkm_err *err) {
    const vkm_config *c = &r->c;
    vkm_adam_rates rates = {.lr = vkm_lr_factor(c, r->state.step) * (float)c->learning_rate,
                            .beta1 = (float)c->adam_beta1,
                            .beta2 = (float)c->adam_beta2,
                            .epsilon = (float)c->adam_epsilon,
                            .weight_decay = (float)c->weight_decay,
                            .max_norm = (float)c->max_grad_norm,
                            .t = r->state.n_updates};
    out->lr = rates.lr;
    if (vkm_tuner_gradient(r->tuner, seqs, rows_of_step(c), &out->sums, err) ||
        vkm_tuner_update(r->tuner, &rates, &out->norm, &out->updated, err))
        return err->status;
    r->state.n_tokens += out->sums.n_sequence_tokens;
    r->state.n_updates += out->updated != 0;
    r->state.n_skipped = out->updated ? 0 : r->state.n_skipped + 1;
    if (out->updated) return VKM_OK;
    vkm_warn("step %u: the gradient is not finite; nothing is updated", r->state.step + 1);
    if (r->state.n_skipped < 3) return VKM_OK;
    return vkm_fail(err, VKM_FAILED,
                    "stopped: the gradient was not finite in three steps running; the last "
                    "checkpoint is untouched; lower learning_rate");
}

static vkm_status report(vkm_sft *r, const step_result *q, const char *hash, double seconds,
                         vkm_runlog *log, vkm_err *err) {
    double n = (double)q->sums.n_tokens;
    double rows = (double)r->state.step * rows_of_step(&r->c);
    const vkm_metric m[] = {
        {"loss", q->sums.nll / n, NULL, "loss"},
        {"mean_token_accuracy", (double)q->sums.n_correct / n, NULL, "accuracy"},
        {"entropy", q->sums.entropy / n, NULL, "entropy"},
        {"grad_norm", (double)q->norm, NULL, "grad"},
        {"learning_rate", (double)q->lr, NULL, "rate"},
        {"epoch", rows / (double)r->data.n, NULL, "epoch"},
        {"num_tokens", (double)r->state.n_tokens, NULL, NULL},
        {"completion_tokens", n, NULL, NULL},
        {"updated", q->updated, NULL, NULL},
        {"step_time", seconds, NULL, "s"},
        {"weights_hash", 0, hash, "weights"},
    };
    return vkm_runlog_step(log, r->state.step, m, VKM_COUNTOF(m), err);
}

static vkm_status one_step(vkm_sft *r, vkm_seq *seqs, vkm_runlog *log, vkm_err *err) {
    double start = vkm_now_s();
    uint32_t n = rows_of_step(&r->c);
    char hash[VKM_HASH_HEX];
    step_result result = {0};
    if (vkm_sft_data_batch(&r->data, (uint64_t)r->c.seed, (uint64_t)r->state.step * n, n, seqs,
                           err) ||
        learn(r, seqs, &result, err) || vkm_tuner_hash(r->tuner, hash, err))
        return err->status;
    r->state.step++;
    printf("step %u weights_hash %s\n", r->state.step, hash);
    fflush(stdout);
    return report(r, &result, hash, vkm_now_s() - start, log, err);
}

/* ---- the run --------------------------------------------------------------------------------- */

static vkm_status loop(vkm_sft *r, uint32_t last, vkm_runlog *log, vkm_err *err) {
    uint32_t saved = r->state.step;
    int stop = 0;
    vkm_seq *seqs = vkm_calloc(rows_of_step(&r->c), sizeof *seqs, "a step", err);
    while (seqs && r->state.step < last && !stop) {
        if (one_step(r, seqs, log, err)) break;
        stop = vkm_interrupt_asked();
        uint32_t step = r->state.step;
        if (step != last && !stop && step % (uint32_t)r->c.save_steps != 0) continue;
        if (vkm_sft_save(r, err)) break;
        saved = step;
    }
    free(seqs);
    if (!err->status && r->state.step < last)
        vkm_warn("interrupted after step %u; to go on: vkmoe sft %s/config.json "
                 "--resume_from_checkpoint latest",
                 saved, r->c.output_dir);
    return err->status;
}

/* The ordinary model folder that the run made: output_dir/model. */
static vkm_status save_model(const vkm_sft *r, vkm_err *err) {
    char folder[VKM_PATH_MAX];
    if (vkm_path_join(folder, r->c.output_dir, "model", err) || vkm_dir_make(folder, err) ||
        vkm_model_copy_tokenizer(r->c.model, folder, err) ||
        vkm_weights_save(r->tuner->weights, folder, err) ||
        vkm_model_copy_config(r->c.model, folder, err))
        return err->status;
    printf("model %s\n", folder);
    return VKM_OK;
}

vkm_status vkm_sft_run(const vkm_config *c, vkm_dev *dev, vkm_err *err) {
    vkm_sft *r = NULL;
    vkm_runlog *log = NULL;
    char checkpoint[VKM_PATH_MAX];
    int resumes = c->resume_from_checkpoint[0] != 0;
    const vkm_run_info info = {.backend = vkm_dev_backend(dev) == VKM_VULKAN ? "vulkan" : "cpu",
                               .device = vkm_dev_name(dev),
                               .driver = vkm_dev_driver(dev),
                               .probes = vkm_dev_probes(dev)};
    if (vkm_runlog_check(c, !resumes, err) ||
        (resumes && (vkm_ckpt_recover(c->output_dir, err) || vkm_ckpt_find(c, checkpoint, err))) ||
        vkm_sft_open(c, dev, NULL, &r, err) || !r)
        return err->status;
    if (resumes) {
        if (vkm_sft_restore(r, checkpoint, err)) goto done;
        vkm_info("resumed after step %u from %s", r->state.step, checkpoint);
    }
    if (vkm_runlog_open(&r->c, &info, resumes ? (int64_t)r->state.step : -1, &log, err)) goto done;
    uint32_t last = (uint32_t)(c->stop_at_step ? c->stop_at_step : r->c.max_steps);
    vkm_interrupt_begin();
    (void)!loop(r, last, log, err);
    vkm_interrupt_end();
    if (!err->status && r->state.step == (uint32_t)r->c.max_steps && r->tuner->weights)
        (void)!save_model(r, err);
done:
    vkm_runlog_close(log);
    vkm_sft_close(r);
    return err->status;
}
