/* Training runs and their evaluation. */
#ifndef VKM_TRAIN_H
#define VKM_TRAIN_H

#include "rl/eval.h"

/* Trains by the config, on an open device, until max_steps (or stop_at_step): run folder, one line
 * a step, checkpoints, evaluation when due. A SIGINT finishes the step, saves and says how to
 * resume; a second one ends the program. */
typedef struct vkm_train_summary {
    uint32_t steps;         /* done by this call */
    uint32_t updated;       /* steps that changed the weights */
    uint32_t with_teachers; /* steps that held teacher rollouts */
    uint32_t learnt;        /* of those, steps with a non-zero advantage */
    vkm_eval_counts on;     /* of the last evaluation, both experts on; n = 0 without one */
} vkm_train_summary;
vkm_status vkm_train(const vkm_config *c, vkm_dev *dev, vkm_train_summary *summary,
                     vkm_err *err) VKM_MUST_CHECK;
/* Evaluates the newest checkpoint that verifies (or c->resume_from_checkpoint) of a run folder,
 * prints the table to `f` and leaves the line in <run>/evals/step-NNNNNN.json. */
vkm_status vkm_eval_run(const vkm_config *c, vkm_dev *dev, FILE *f, vkm_err *err) VKM_MUST_CHECK;

#endif
