/* A tiny random model with an adapter and a few rollouts, for the method gates and tests. An error
 * while using a fixture sticks in it; vkm_fixture_end turns it into a failed gate. Arrays returned
 * are the caller's to free. */
#ifndef VKM_FIXTURE_H
#define VKM_FIXTURE_H

#include "rl/policy.h"
#include "verify/verify.h"

enum { VKM_FIXTURE_MICRO_ROWS = 512, VKM_FIXTURE_ROLLOUTS = 5 };

typedef struct vkm_fixture {
    vkm_policy *policy;
    vkm_err err;
    uint32_t n_tokens;    /* completion tokens of all rollouts */
    int parameter_detach; /* xs = f in place of g */
    int by_group;         /* a call of vkm_policy_train for each group */
    vkm_example examples[VKM_FIXTURE_ROLLOUTS];
    uint32_t tokens[VKM_FIXTURE_ROLLOUTS][64];
} vkm_fixture;

vkm_fixture *vkm_fixture_new(vkm_dev *dev, uint32_t micro_rows);
void vkm_fixture_end(vkm_verify *v, vkm_fixture *fx); /* v NULL: only frees */

float *vkm_fixture_params(vkm_fixture *fx);
void vkm_fixture_set_params(vkm_fixture *fx, const float *params);
/* Random dA, dB of both blocks, or of one (the other stays as it is). */
void vkm_fixture_perturb(vkm_fixture *fx, uint64_t seed);
void vkm_fixture_perturb_block(vkm_fixture *fx, uint32_t block, uint64_t seed);

/* Log-probabilities of all completion tokens under forward weights f. */
float *vkm_fixture_logp(vkm_fixture *fx, const float f[VKM_MAX_EXPERTS]);
/* The adapter's gradient (VKM_STATE_GRAD) of the on-policy loss; fills each example's df. */
float *vkm_fixture_grad(vkm_fixture *fx, const float f[VKM_MAX_EXPERTS],
                        const float g[VKM_MAX_EXPERTS]);
/* Samples completions in a state and counts tokens whose recorded log-probability differs in any
 * bit from the training forward's; *n tokens in all. */
uint64_t vkm_fixture_compare_sampling(vkm_fixture *fx, const float f[VKM_MAX_EXPERTS], uint32_t *n);

#endif
