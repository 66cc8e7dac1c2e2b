/* The policy: model, adapter, workspace and generator, with the three things a step does to
 * sequences: generate them, read them (log-probabilities, pooled activations), train on them.
 * Batches of any size are cut into micro-batches; no cut changes a bit. */
#ifndef VKM_POLICY_H
#define VKM_POLICY_H

#include "model/decode.h"
#include "rl/config.h"

typedef struct vkm_policy_limits {
    uint32_t max_prompt, max_new; /* max_new 0: nothing is generated */
    uint32_t rollouts;            /* decoded at one time */
    uint32_t prompts;             /* distinct ones of them, counting adapter states */
    uint32_t ids;                 /* rollout ids are below this */
    uint32_t micro_rows;      /* token rows of one forward and backward; at least one sequence */
    uint32_t n_experts, rank; /* n_experts 0: the bare model, rank 0 */
    int adam_v_per_tensor;
    int trains; /* 0: no memory for gradients, moments and the loss; only read and generate */
    uint64_t seed;
} vkm_policy_limits;

typedef struct vkm_policy {
    vkm_dev *dev;
    vkm_model *model;
    vkm_adapter *adapter;
    vkm_work *work;
    vkm_gen *gen;
    vkm_stream *s;
    vkm_mem *mem;
    vkm_tensor logp_old, logp_ref, adv, weight, terms; /* (N) (N) (B) (B) (N,4) */
} vkm_policy;

/* dry: as in vkm_model_load. */
vkm_status vkm_policy_new(vkm_dev *dev, const char *model_folder, const vkm_policy_limits *max,
                          vkm_plan *dry, vkm_policy **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_policy_free(vkm_policy *p); /* accepts NULL */

/* One sequence with what a pass needs of it and gives back. Arrays run over completion tokens. */
typedef struct vkm_example {
    vkm_seq seq;
    uint32_t group; /* examples of a group are adjacent */
    float f[VKM_MAX_EXPERTS];
    /* training only */
    float g[VKM_MAX_EXPERTS];         /* gradient weights of the parameters */
    float xs[VKM_MAX_EXPERTS];        /* gradient weights of the path to x */
    float advantage, weight;          /* weight: of each token of this sequence in the loss */
    const float *logp_old, *logp_ref; /* NULL counts as zeros where the loss does not read it */
    /* results; NULL arrays are not filled */
    float *logp, *entropy;     /* nats */
    float *pooled;             /* (M,R) */
    float df[VKM_MAX_EXPERTS]; /* dL/df times the loss scale */
    double policy_loss, kl;    /* sums of weighted terms; kl without beta */
    uint32_t n_clipped;
} vkm_example;

/* Forward without gradient: fills logp, entropy, pooled where asked. */
vkm_status vkm_policy_read(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err) VKM_MUST_CHECK;

/* Logits (n, V) of the next completion tokens of one example, as they are made. */
typedef vkm_status (*vkm_logits_sink)(void *user, const float *logits, uint32_t n, vkm_err *err);
vkm_status vkm_policy_logits(vkm_policy *p, const vkm_example *x, vkm_logits_sink sink, void *user,
                             vkm_err *err) VKM_MUST_CHECK;

/* Fills pooled with the gradient of each completion's mean negative log-likelihood with respect to
 * scales of the deployed expert's rank indices, (M,R): sum over all its tokens, the prompt's too,
 * of (A x) * (B^T dNLL/dy), times the loss scale; logp too where asked. No gradient of a parameter.
 */
vkm_status vkm_policy_rank_gradients(vkm_policy *p, vkm_example *x, uint32_t n,
                                     vkm_err *err) VKM_MUST_CHECK;

/* Either of the two: what gives a sequence its pooled vector. */
typedef vkm_status (*vkm_policy_reader)(vkm_policy *p, vkm_example *x, uint32_t n, vkm_err *err);

typedef struct vkm_loss_options {
    uint32_t importance;     /* vkm_choice_importance */
    float eps_low, eps_high; /* the ratio is clipped to [1 - eps_low, 1 + eps_high] */
    float beta;              /* 0: no KL term, logp_ref is not read */
} vkm_loss_options;

/* Forward and backward: gradients add up in the adapter's `grad`, which the caller zeroes
 * (vkm_policy_zero_grad). Fills logp, entropy, df, policy_loss, kl, n_clipped. */
vkm_status vkm_policy_train(vkm_policy *p, vkm_example *x, uint32_t n, const vkm_loss_options *o,
                            vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_policy_zero_grad(vkm_policy *p, vkm_err *err) VKM_MUST_CHECK;

#endif
