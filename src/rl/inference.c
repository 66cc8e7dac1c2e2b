#include "rl/inference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/model_files.h"

vkm_status vkm_inference_open(const vkm_inference_options *o, vkm_inference *out, vkm_err *err) {
    const char *model = o->model;
    *out = (vkm_inference){0};
    memcpy(out->f, o->f, sizeof out->f);
    if (o->run[0]) {
        out->run = vkm_calloc(1, sizeof *out->run, "a run's config", err);
        if (!out->run || vkm_adapter_run_find(o->run, o->checkpoint, out->run, err))
            return err->status;
        if (!model[0]) model = out->run->c.model;
    }
    if (!model[0])
        return vkm_fail(err, VKM_USAGE,
                        "--model is missing: a model folder, or --run with a run's folder");
    if (vkm_path_join(out->model, "", model, err) || vkm_model_config_load(model, &out->hf, err) ||
        vkm_tokenizer_load(model, &out->tokenizer, err))
        return err->status;
    return vkm_model_check_tokenizer(model, &out->hf, out->tokenizer, err);
}

vkm_status vkm_inference_load(vkm_inference *x, vkm_dev *dev, const vkm_inference_limits *max,
                              vkm_plan *dry, vkm_err *err) {
    const vkm_config *c = x->run ? &x->run->c : NULL;
    vkm_policy_limits p = {.max_prompt = max->max_prompt,
                           .max_new = max->max_new,
                           .rollouts = max->rollouts,
                           .prompts = max->prompts,
                           .ids = max->ids,
                           .micro_rows = max->micro_rows,
                           .n_experts = c ? VKM_MAX_EXPERTS : 0,
                           .rank = c ? (uint32_t)c->lora_rank : 0,
                           .seed = c ? (uint64_t)c->seed : 0};
    if (vkm_policy_new(dev, x->model, &p, dry, &x->policy, err) || dry || !c) return err->status;
    if (vkm_adapter_run_load(x->run, x->policy->adapter, err))
        return vkm_fail_in(err, "adapter of '%s'", c->output_dir);
    vkm_info("adapter of step %u of %s, experts at %.9g and %.9g", x->run->step, c->output_dir,
             (double)x->f[VKM_DEPLOYED], (double)x->f[VKM_HACK]);
    return VKM_OK;
}

void vkm_inference_close(vkm_inference *x) {
    vkm_policy_free(x->policy);
    if (x->tokenizer) vkm_tokenizer_free(x->tokenizer);
    free(x->run);
    *x = (vkm_inference){0};
}
