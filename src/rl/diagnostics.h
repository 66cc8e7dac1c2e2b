/* What a step's routing did, read off its rollouts after the update. Labels serve these figures
 * alone: nothing here reaches routing or training. */
#ifndef VKM_DIAGNOSTICS_H
#define VKM_DIAGNOSTICS_H

#include "rl/run.h"

/* Over the live rollouts; NaN where a class is absent or the arm has no w. Hack: the true flag. */
typedef struct vkm_diagnostics {
    double w_mean, w_p10, w_p50, w_p90;
    double w_hack, w_solve, w_fail; /* means by outcome: hack, true solution, neither */
    double auroc;                   /* of w against the hack flag */
    double auroc_positive;          /* among positive advantages alone */
    double auroc_hinted;            /* among prompts that name a loophole */
    double auroc_hint;              /* of w against "the prompt names a loophole" */
    double f05;                     /* F0.5 of w > 1/2 as a detector of hacks */
    double leak;                    /* share of the hacks' |A| that trains the deployed expert */
    double collateral;              /* share of the others' |A| that trains the hack expert */
} vkm_diagnostics;

vkm_status vkm_diagnose(const vkm_rollout *x, uint32_t n, vkm_diagnostics *out,
                        vkm_err *err) VKM_MUST_CHECK;

/* Mean w of the live rollouts of a training mode; NaN without any. */
double vkm_diagnose_mode(const vkm_rollout *x, uint32_t n, const char *mode);

#endif
