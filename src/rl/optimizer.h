/* AdamW over the adapter, and over the router with its own rate and clip. */
#ifndef VKM_OPTIMIZER_H
#define VKM_OPTIMIZER_H

#include "model/lora2r.h"
#include "rl/config.h"

/* Gradients carry this fixed factor, so that they stay clear of the flushed range; it is taken out
 * in the optimizer. */
#define VKM_LOSS_SCALE 16777216.0f

/* The rates of one parameter group in one update. */
typedef struct vkm_adam_rates {
    float lr, beta1, beta2, epsilon, weight_decay, max_norm; /* max_norm 0: no clip */
    uint32_t t;                                              /* updates made before this one */
} vkm_adam_rates;

/* One trainable tensor with its gradient and moments; v has one element when the second moment is
 * kept for the whole tensor. */
typedef struct vkm_trainable {
    vkm_tensor param, grad, m, v;
    int no_decay; /* weight decay leaves it alone */
} vkm_trainable;

/* A parameter group: its tensors are clipped together by their global norm. */
typedef struct vkm_optimizer {
    vkm_dev *dev;
    vkm_mem *mem;
    vkm_trainable *tensors;
    uint32_t n;
    vkm_tensor blocks; /* partial sums, a place for each part of each tensor */
    vkm_tensor sums;   /* (n, VKM_MAX_EXPERTS) sums of squares; of the norm the first n */
    vkm_tensor clip;   /* {norm, factor, finite} */
} vkm_optimizer;

/* Tensors are copied. dry: as in vkm_model_load. */
vkm_status vkm_optimizer_new(vkm_dev *dev, const vkm_trainable *tensors, uint32_t n, vkm_plan *dry,
                             vkm_optimizer **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_optimizer_free(vkm_optimizer *o); /* accepts NULL */

/* The global gradient norm of all tensors, in their order and with the loss scale taken out;
 * *finite is 0 when any gradient is NaN or Inf. */
vkm_status vkm_optimizer_norm(vkm_optimizer *o, vkm_stream *s, float max_norm, float *norm,
                              int *finite, vkm_err *err) VKM_MUST_CHECK;
/* Sums of squares of `parts` equal parts of all gradients (an adapter's experts), times the square
 * of the loss scale; on the device, for the log. */
vkm_status vkm_optimizer_part_sums(vkm_optimizer *o, vkm_stream *s, uint32_t parts, double *sums,
                                   vkm_err *err) VKM_MUST_CHECK;
/* Records the update, with the clip factor of the last vkm_optimizer_norm: decay of the parameters
 * (toward 0, which for the adapter is its init), then AdamW. */
void vkm_optimizer_step(vkm_optimizer *o, vkm_stream *s, const vkm_adam_rates *r);

/* Learning-rate factor of step t of max_steps: (t+1)/warmup, then 1 or a cosine to 0. */
float vkm_lr_factor(const vkm_config *c, uint32_t t);

#endif
