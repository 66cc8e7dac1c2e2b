/* Training runs and their evaluation. */
#ifndef VKM_TRAIN_H
#define VKM_TRAIN_H

#include "rl/run.h"

/* The adapter states that evaluation compares. */
typedef enum {
    VKM_EVAL_ALL_ON,       /* both experts */
    VKM_EVAL_HACK_OFF,     /* as deployed: the hack expert ablated */
    VKM_EVAL_DEPLOYED_OFF, /* control: the deployed expert ablated instead */
    VKM_EVAL_RANDOM_OFF,   /* control: as many random rank rows removed, several draws pooled */
    VKM_EVAL_BASE,         /* no adapter */
    VKM_N_EVAL_STATES
} vkm_eval_state;
extern const char *const vkm_eval_state_names[VKM_N_EVAL_STATES];

/* Counts over n rollouts of one state. */
typedef struct vkm_eval_counts {
    uint32_t n, hacked, vendor_hacked, solved, compiled;
} vkm_eval_counts;

typedef struct vkm_eval_result {
    vkm_eval_counts state[VKM_N_EVAL_STATES];
} vkm_eval_result;

/* Trains by the config, on an open device, until max_steps (or stop_at_step): run folder, one line
 * a step, checkpoints, evaluation when due. A SIGINT finishes the step, saves and says how to
 * resume; a second one ends the program. */
typedef struct vkm_train_summary {
    uint32_t steps;         /* done by this call */
    uint32_t updated;       /* steps that changed the weights */
    uint32_t with_teachers; /* steps that held teacher rollouts */
    uint32_t learnt;        /* of those, steps with a non-zero advantage */
    vkm_eval_result eval;   /* the last one; n = 0 everywhere without evaluation */
} vkm_train_summary;
vkm_status vkm_train(const vkm_config *c, vkm_dev *dev, vkm_train_summary *summary,
                     vkm_err *err) VKM_MUST_CHECK;
/* Evaluates the newest checkpoint that verifies (or c->resume_from_checkpoint) of a run folder. */
vkm_status vkm_eval_run(const vkm_config *c, vkm_dev *dev, vkm_eval_result *out,
                        vkm_err *err) VKM_MUST_CHECK;

/* Evaluates the run's current adapter on its held-out problems: the same prompts and the same draws
 * in every state. Leaves the adapter as it was, bit for bit. */
vkm_status vkm_evaluate(vkm_run *r, vkm_eval_result *out, vkm_err *err) VKM_MUST_CHECK;
/* The table of states with Wilson intervals, and the causal lines. */
void vkm_eval_print(const vkm_eval_result *e, FILE *f);

#endif
