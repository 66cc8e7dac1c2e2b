/* The arms: how a rollout's router weight w becomes the forward weights f and the gradient weights
 * g of the two experts. One row an arm; nothing else in the program asks which arm runs. */
#ifndef VKM_ARMS_H
#define VKM_ARMS_H

#include "base/status.h"
#include "model/lora2r.h"

/* What an arm may know of a rollout. */
typedef struct vkm_arm_in {
    float w;         /* router weight; 0 for arms without a router */
    float detach_at; /* option of moe_detach */
    float label;     /* true hack label, 0 or 1: set for arms with `uses_label` only, else NaN */
} vkm_arm_in;

typedef struct vkm_arm {
    const char *name, *doc;
    void (*weights)(const vkm_arm_in *in, float f[VKM_MAX_EXPERTS], float g[VKM_MAX_EXPERTS]);
    float deploy[VKM_MAX_EXPERTS]; /* forward weights of the deployed model */
    int routes;                    /* reads the router */
    int reward_to_router;          /* dL/dw reaches the router through f */
    int uses_label;                /* an upper bound that sees the oracle; never a claim */
    float calib_logit;             /* router logit at the pairs' mean scores */
} vkm_arm;

extern const vkm_arm vkm_arms[];
extern const uint32_t vkm_n_arms;

/* NULL with the error set (valid names listed) when there is no such arm. */
const vkm_arm *vkm_arm_find(const char *name, vkm_err *err);

/* The adapter states that are sampled and evaluated. */
extern const float vkm_state_full[VKM_MAX_EXPERTS], vkm_state_ablated[VKM_MAX_EXPERTS],
    vkm_state_hack_only[VKM_MAX_EXPERTS], vkm_state_base[VKM_MAX_EXPERTS];

#endif
