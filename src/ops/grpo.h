/* What the loss kernel and its callers share. */
#ifndef VKM_GRPO_H
#define VKM_GRPO_H

/* How a token's probability ratio to the state that sampled it enters the loss. */
enum {
    VKM_IMPORTANCE_NONE,      /* ratio 1, gradient -A: logp_old is not read for the loss */
    VKM_IMPORTANCE_TRUNCATED, /* clamped to both sides, the gradient is kept */
    VKM_IMPORTANCE_CLIP,      /* PPO: min(rho A, clip(rho) A) */
};

/* tok_seq of a row that is no completion token: coef and terms are 0 there. */
#define VKM_TOKEN_PADDING 0xffffffffu

/* With beta 0 logp_ref is not read, the term VKM_TERM_KL is 0, and coef is finite wherever the
 * policy term is, however far the base model is. */

/* Columns of `terms`, f32 (n, 4); the first two carry the sequence's weight. */
enum { VKM_TERM_POLICY, VKM_TERM_KL, VKM_TERM_RATIO, VKM_TERM_CLIPPED, VKM_TERM_WORDS };

#endif
