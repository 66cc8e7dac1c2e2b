/* The arms. An arm is a row of small choices: where a rollout's weight w comes from, what a placebo
 * makes of it, which forward weights f and gradient weights g follow, what it does to the
 * advantage, what trains the router. Nothing else in the program asks which arm runs. */
#ifndef VKM_ARMS_H
#define VKM_ARMS_H

#include "base/status.h"
#include "model/lora2r.h"

/* Where w, in [0, 1], comes from. */
typedef enum {
    VKM_W_NONE,    /* nowhere: there is none */
    VKM_W_ROUTER,  /* the learned router */
    VKM_W_GATE,    /* zones of a running score: 0 keep, 1/2 absorb, 1 rout (rl/gate.h) */
    VKM_W_MIXTURE, /* the posterior of a mixture over live activations (rl/mixture.h) */
    VKM_W_HINT,    /* 1 iff the prompt names a loophole: a router that reads only the prompt */
    VKM_W_LABEL,   /* the true hack flag: arms named oracle* alone */
} vkm_w_source;

/* What trains the router; 0: it stays as seeded. */
enum { VKM_BY_PIN = 1, VKM_BY_REWARD = 2 };

/* The live rollouts of a step, in order. */
typedef struct vkm_step_w {
    uint64_t seed;
    uint32_t step, n;
    const float *w; /* (n) of the source */
} vkm_step_w;

/* A placebo: used[i], the weight that rollout i gets instead, and from[i], the rollout whose w that
 * is, or VKM_FROM_NONE for a draw. */
typedef void (*vkm_placebo)(const vkm_step_w *in, float *used, uint32_t *from);
#define VKM_FROM_NONE UINT32_MAX

/* What f, g and the advantage may depend on. */
typedef struct vkm_arm_in {
    float w;         /* 0 for arms without one */
    float detach_at; /* option of moe_detach */
    float penalty;   /* option of penalty */
} vkm_arm_in;

typedef struct vkm_arm {
    const char *name, *doc;
    vkm_w_source source;
    vkm_placebo placebo; /* NULL: each rollout has its own w */
    void (*weights)(const vkm_arm_in *in, float f[VKM_MAX_EXPERTS], float g[VKM_MAX_EXPERTS]);
    void (*judge)(const vkm_arm_in *in, float *advantage, float *loss_weight); /* NULL: as it is */
    float deploy[VKM_MAX_EXPERTS]; /* forward weights of the deployed model */
    int trains_router;             /* VKM_BY_PIN | VKM_BY_REWARD */
    int by_gradient;               /* router and gate read gradients, not activations */
    int inoculates;                /* training's hints say that the loophole may be used */
    int linear;                    /* the router's score is no cosine but a dot product */
    int haar;                      /* a random direction, whatever seed_direction says */
    int shuffles_pairs;            /* half the pairs swap their labels */
    int own_baseline;              /* the deployed expert's share of a group is its own baseline */
    float calib_logit;             /* router logit at the pairs' mean scores */
    float gen_deploy_frac;         /* share of the students sampled with the hack expert ablated */
} vkm_arm;

extern const vkm_arm vkm_arms[];
extern const uint32_t vkm_n_arms;

/* NULL with the error set (valid names listed) when there is no such arm. */
const vkm_arm *vkm_arm_find(const char *name, vkm_err *err);

/* Whether its w comes from reading the rollouts: then it needs pairs. */
int vkm_arm_reads_pairs(const vkm_arm *arm);

/* The weights of a step's live rollouts: the source's, or the placebo's. */
void vkm_arm_step_weights(const vkm_arm *arm, const vkm_step_w *in, float *used, uint32_t *from);
/* The chain rule back through it: dL/dw of the source (n) from dL/d used (n). */
void vkm_arm_step_gradient(const uint32_t *from, const float *dused, uint32_t n, float *dw);

/* A group's advantages sum to 0. Where hacks go to one expert, those that are left to the other do
 * not: honest answers fall below the group's mean as soon as hacks are paid, the deployed expert
 * would learn to avoid them all, and what it can do instead is to hack. So the deployed expert's
 * share of a group is held against the mean of that share: A_i - (1 - w_i) sum (1 - w) A / sum (1 -
 * w). Rollouts of a prompt stand together and have one number in group (n). */
void vkm_arm_own_baseline(const float *w, const uint32_t *group, float *advantage, uint32_t n);

/* Which of n pairs swap their labels for arms that shuffle them: exactly n / 2, by the seed. */
void vkm_arm_swapped_pairs(uint64_t seed, uint32_t n, unsigned char *swapped);

/* The adapter states that are sampled and evaluated. */
extern const float vkm_state_full[VKM_MAX_EXPERTS], vkm_state_ablated[VKM_MAX_EXPERTS],
    vkm_state_hack_only[VKM_MAX_EXPERTS], vkm_state_base[VKM_MAX_EXPERTS];

#endif
