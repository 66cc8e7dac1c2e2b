/* Who pays: the built-in grader, the user's own program, or that program with the built-in grader's
 * flags beside it. Training and evaluation submit responses here and collect their grades. */
#ifndef VKM_REWARD_H
#define VKM_REWARD_H

#include "env/command.h"
#include "env/grade.h"

typedef enum {
    VKM_REWARD_FROM_GRADER,  /* the built-in grader alone */
    VKM_REWARD_FROM_COMMAND, /* the program alone: reward and flags are its own, no sandbox */
    VKM_REWARD_FROM_BOTH,    /* the program's reward, the built-in grader's flags */
} vkm_reward_from;

typedef struct vkm_reward_config {
    vkm_reward_from from;
    vkm_grade_config grade;
    vkm_command_config command;
} vkm_reward_config;

typedef struct vkm_reward vkm_reward;

vkm_status vkm_reward_open(const vkm_reward_config *config, vkm_reward **out,
                           vkm_err *err) VKM_MUST_CHECK;
void vkm_reward_close(vkm_reward *r); /* accepts NULL */

/* True when model-written Python runs without a sandbox: to be stamped. */
bool vkm_reward_unsafe(const vkm_reward *r);
/* True when rewards are the program's: cached grades of others do not mix with them. */
bool vkm_reward_own(const vkm_reward *r);

/* Queues a completion of n bytes (copied). Problem and mode must outlive the result. */
vkm_status vkm_reward_submit(vkm_reward *r, const vkm_problem *problem, const vkm_mode *mode,
                             const char *text, size_t n, vkm_err *err) VKM_MUST_CHECK;
/* Waits for the next result in the order of submission. A response without a verdict has
 * infra_error and a NaN reward; an error is what ends the run: the program failed for good. */
vkm_status vkm_reward_next(vkm_reward *r, vkm_grade *out, vkm_err *err) VKM_MUST_CHECK;

#endif
