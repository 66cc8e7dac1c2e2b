/* What supervised fine-tuning does to sequences: gradient of the mean negative log-likelihood of
 * completion tokens, and update, over all weights of a model or over an adapter's factors. */
#ifndef VKM_TUNER_H
#define VKM_TUNER_H

#include "base/hash.h"
#include "model/forward.h"
#include "rl/optimizer.h"

typedef struct vkm_tuner {
    vkm_dev *dev;
    vkm_model *model;
    vkm_weights *weights; /* NULL when the adapter learns */
    vkm_adapter *adapter; /* NULL when the weights learn */
    vkm_work *work;
    vkm_stream *s;
    vkm_trainable *tensors; /* what learns, n of them, in the optimizer's order */
    char (*names)[96];
    uint32_t n;
    vkm_optimizer *opt;
} vkm_tuner;

/* By c: model, sft_train, lora_rank, seed, micro_batch_tokens and the rows of a step. longest: of
 * any sequence. dry: as in vkm_model_load. */
vkm_status vkm_tuner_new(vkm_dev *dev, const vkm_config *c, uint32_t longest, vkm_plan *dry,
                         vkm_tuner **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_tuner_free(vkm_tuner *t); /* accepts NULL */

/* Sums over completion tokens; they do not depend on the cut into micro-batches. */
typedef struct vkm_tuner_sums {
    double nll, entropy;        /* nats */
    uint64_t n_tokens;          /* completion tokens */
    uint64_t n_correct;         /* of them, those whose logit is the largest */
    uint64_t n_sequence_tokens; /* prompts included */
} vkm_tuner_sums;

/* The gradient of the mean over all completion tokens of n sequences, micro-batch by micro-batch
 * of at most c->micro_batch_tokens rows. */
vkm_status vkm_tuner_gradient(vkm_tuner *t, const vkm_seq *seqs, uint32_t n, vkm_tuner_sums *out,
                              vkm_err *err) VKM_MUST_CHECK;
/* The gradient's norm; the update with clip (unless anything is not finite: *finite = 0), and the
 * renewal of what the model computes with. */
vkm_status vkm_tuner_update(vkm_tuner *t, const vkm_adam_rates *r, float *norm, int *finite,
                            vkm_err *err) VKM_MUST_CHECK;
/* After parameters were written from outside. */
vkm_status vkm_tuner_refresh(vkm_tuner *t, vkm_err *err) VKM_MUST_CHECK;
/* XXH3-128 of all that learns, in hex. */
vkm_status vkm_tuner_hash(const vkm_tuner *t, char hex[VKM_HASH_HEX], vkm_err *err) VKM_MUST_CHECK;

#endif
