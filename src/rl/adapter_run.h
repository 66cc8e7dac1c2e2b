/* The adapter of a trained run, by the run's folder: of `vkmoe train`, or of `vkmoe sft` where an
 * adapter was trained. */
#ifndef VKM_ADAPTER_RUN_H
#define VKM_ADAPTER_RUN_H

#include "base/file.h"
#include "model/lora2r.h"
#include "rl/config.h"

typedef struct vkm_adapter_run {
    vkm_config c; /* the run's, as its checkpoint has it: model, seed and lora_rank give the init */
    char checkpoint[VKM_PATH_MAX]; /* folder */
    uint32_t step;
} vkm_adapter_run;

/* checkpoint: empty or "latest" for the newest one that verifies, or a folder
 * checkpoints/step-NNNNNN. Errors: no checkpoint, a damaged one, a run that trained the model's
 * weights. */
vkm_status vkm_adapter_run_find(const char *run, const char *checkpoint, vkm_adapter_run *out,
                                vkm_err *err) VKM_MUST_CHECK;

/* The trained parameters as one vector (as vkm_adapter_read gives it), freed by the caller. The
 * adapter must have the run's shapes; it may be one that is only planned. */
vkm_status vkm_adapter_run_read(const vkm_adapter_run *r, const vkm_adapter *a, float **params,
                                vkm_err *err) VKM_MUST_CHECK;
/* The same into an adapter that was made with the run's seed and rank. */
vkm_status vkm_adapter_run_load(const vkm_adapter_run *r, vkm_adapter *a,
                                vkm_err *err) VKM_MUST_CHECK;

#endif
