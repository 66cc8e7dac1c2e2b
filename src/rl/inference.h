/* A model to read from and to sample with, bare or with a run's adapter in one of its states: what
 * `vkmoe score`, `generate` and `export` open. No problems, no sandbox, nothing that trains. */
#ifndef VKM_INFERENCE_H
#define VKM_INFERENCE_H

#include "model/tokenizer.h"
#include "rl/adapter_run.h"
#include "rl/policy.h"

typedef struct vkm_inference_options {
    const char *model;        /* folder; empty: the run's */
    const char *run;          /* a run's folder; empty: the bare model */
    const char *checkpoint;   /* one of the run's; empty: its newest */
    float f[VKM_MAX_EXPERTS]; /* with a run: weights of its experts (deployed, hack) */
} vkm_inference_options;

typedef struct vkm_inference {
    vkm_adapter_run *run; /* NULL: the bare model */
    char model[VKM_PATH_MAX];
    float f[VKM_MAX_EXPERTS];
    vkm_model_config hf;
    vkm_tokenizer *tokenizer;
    vkm_policy *policy; /* from vkm_inference_load on */
} vkm_inference;

/* Reads configs and tokenizer. vkm_inference_close() it, also after a failure. */
vkm_status vkm_inference_open(const vkm_inference_options *o, vkm_inference *out,
                              vkm_err *err) VKM_MUST_CHECK;

typedef struct vkm_inference_limits {
    uint32_t max_prompt, max_new; /* tokens; max_new 0: nothing is generated. Together at most
                                     max_position_embeddings */
    uint32_t rollouts, prompts;   /* decoded at one time, and their distinct prompts */
    uint32_t ids;                 /* row ids of a generation are below this */
    uint32_t micro_rows;          /* token rows of one pass */
} vkm_inference_limits;

/* Weights and workspace onto the device. dry: as in vkm_model_load. */
vkm_status vkm_inference_load(vkm_inference *x, vkm_dev *dev, const vkm_inference_limits *max,
                              vkm_plan *dry, vkm_err *err) VKM_MUST_CHECK;
void vkm_inference_close(vkm_inference *x);

#endif
