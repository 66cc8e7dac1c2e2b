/* Owns the choice of who pays. */
#include "env/reward.h"

#include <stdlib.h>
#include <string.h>

struct vkm_reward {
    vkm_grader *grader;   /* NULL: the program alone */
    vkm_command *command; /* NULL: the grader alone */
};

vkm_status vkm_reward_open(const vkm_reward_config *config, vkm_reward **out, vkm_err *err) {
    *out = NULL;
    vkm_reward *r = vkm_calloc(1, sizeof *r, "rewards", err);
    if (!r) return err->status;
    if ((config->from != VKM_REWARD_FROM_COMMAND &&
         vkm_grader_open(&config->grade, &r->grader, err)) ||
        (config->from != VKM_REWARD_FROM_GRADER &&
         vkm_command_open(&config->command, &r->command, err))) {
        vkm_reward_close(r);
        return err->status;
    }
    *out = r;
    return VKM_OK;
}

void vkm_reward_close(vkm_reward *r) {
    if (!r) return;
    vkm_command_close(r->command);
    vkm_grader_close(r->grader);
    free(r);
}

bool vkm_reward_unsafe(const vkm_reward *r) {
    return r->grader && vkm_grader_unsafe(r->grader);
}

bool vkm_reward_own(const vkm_reward *r) {
    return r->command != NULL;
}

vkm_status vkm_reward_submit(vkm_reward *r, const vkm_problem *problem, const vkm_mode *mode,
                             const char *text, size_t n, vkm_err *err) {
    uint64_t ticket;
    if (r->grader && vkm_grader_submit(r->grader, problem, mode, text, n, &ticket, err))
        return err->status;
    return r->command ? vkm_command_submit(r->command, problem, mode, text, n, err) : VKM_OK;
}

vkm_status vkm_reward_next(vkm_reward *r, vkm_grade *out, vkm_err *err) {
    vkm_grade own = {0};
    uint64_t ticket;
    if (r->command && vkm_command_next(r->command, &own, err)) return err->status;
    if (r->grader && !vkm_grader_next(r->grader, true, &ticket, out))
        return vkm_fail(err, VKM_FAILED, "grading ended with results missing");
    if (!r->grader) {
        *out = own;
    } else if (r->command && !out->infra_error) {
        out->reward = own.reward;
        out->infra_error = own.infra_error;
        memcpy(out->reason, own.reason, sizeof out->reason);
    }
    return VKM_OK;
}
