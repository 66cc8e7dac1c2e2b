/* Hack/clean pairs as token ids, and their activations in a policy: what the router is calibrated
 * on. Training and `vkmoe pairs check` read them alike. */
#ifndef VKM_PAIR_IDS_H
#define VKM_PAIR_IDS_H

#include "env/pairs.h"
#include "model/tokenizer.h"
#include "rl/policy.h"

typedef struct vkm_pair_ids {
    vkm_ids side[2]; /* prompt and completion: hack, clean */
    uint32_t comp0;  /* where both completions begin */
} vkm_pair_ids;

/* The ids of a pair; a side of more than `most` tokens is an error. */
vkm_status vkm_pair_encode(const vkm_tokenizer *t, const vkm_pair *p, uint64_t most,
                           vkm_pair_ids *out, vkm_err *err) VKM_MUST_CHECK;
void vkm_pair_ids_clear(vkm_pair_ids *p);

/* The pooled vectors that `read` gives both sides in the ablated state: out (2n, modules x rank),
 * hack sides and then clean sides; of vkm_policy_read, the completions' mean activations.
 * *reference_logp: mean log-probability of the clean sides' tokens. */
vkm_status vkm_pairs_read(vkm_policy *policy, vkm_policy_reader read, const vkm_pair_ids *pairs,
                          uint32_t n, float *out, float *reference_logp,
                          vkm_err *err) VKM_MUST_CHECK;

#endif
