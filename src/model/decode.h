/* Generation: the prompt of a group is prefilled once per adapter state and its keys and values are
 * shared; all rollouts then decode in one batch, a recorded graph run once a token. Positions,
 * sampled tokens and finished flags live on the device; the host looks every few tokens and drops
 * finished rows, which changes no bit of the others. */
#ifndef VKM_DECODE_H
#define VKM_DECODE_H

#include "model/forward.h"
#include "ops/lmhead.h"

/* Told every few tokens of each row that goes on, with its tokens so far; returns how many of them
 * the completion has, if it ends here, or UINT32_MAX. */
typedef uint32_t (*vkm_gen_look)(void *user, uint32_t row, const uint32_t *tokens, uint32_t n);

/* How tokens are drawn; dist comes from ops/lmhead.h. */
typedef struct vkm_gen_options {
    vkm_sampling dist;
    uint64_t seed;
    uint32_t step, draw; /* Philox counter, with the row's id and the position */
    const uint32_t *eos; /* tokens that end a completion */
    uint32_t n_eos;
    vkm_gen_look look; /* NULL: none */
} vkm_gen_options;

/* One rollout to generate. Rows whose prompt pointer and f are equal share a prefill. */
typedef struct vkm_gen_row {
    const uint32_t *prompt;
    uint32_t prompt_len;
    float f[VKM_MAX_EXPERTS]; /* adapter state */
    uint32_t id;              /* of the rollout, for its random draws */
} vkm_gen_row;

typedef struct vkm_gen vkm_gen;
typedef struct vkm_gen_limits {
    uint32_t rows;        /* rollouts at a time */
    uint32_t ids;         /* row ids are below this */
    uint32_t prompt_rows; /* token rows of all distinct (prompt, state), each rounded up to 16 */
    uint32_t max_new;     /* tokens a completion */
    uint32_t max_keys;    /* prompt and completion of one rollout */
} vkm_gen_limits;

/* dry: as in vkm_model_load. Uses w (its limits must hold the rows, and the longest prompt) and its
 * adapter. */
vkm_status vkm_gen_new(vkm_work *w, const vkm_adapter *adapter, vkm_gen_limits max, vkm_plan *dry,
                       vkm_gen **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_gen_free(vkm_gen *g); /* accepts NULL */

/* Told of each completion as soon as the host sees it end: tokens (with the EOS, if any) and the
 * log-probabilities of the untempered policy, nats. Row indices are those of the call. */
typedef vkm_status (*vkm_gen_done)(void *user, uint32_t row, const uint32_t *tokens,
                                   const float *logp, uint32_t n, vkm_err *err);

/* Generates all rows (any number; more than the limits allow run in waves). */
vkm_status vkm_generate(vkm_gen *g, const vkm_gen_row *rows, uint32_t n, const vkm_gen_options *how,
                        vkm_gen_done done, void *user, vkm_err *err) VKM_MUST_CHECK;

/* What a layer's attention needs while decoding; made by decode.c for vkm_pass. */
typedef struct vkm_decode {
    const vkm_tensor *prompt_k, *prompt_v, *own_k, *own_v; /* per layer (rows, K D) bf16 */
    vkm_tensor state;                                      /* (n, 8) */
    vkm_tensor rows;                                       /* (n): of own_k, own_v, this step's */
    vkm_tensor scratch;                                    /* (n, H, max_keys) */
    uint32_t max_keys;
} vkm_decode;
void vkm_decode_attention(const vkm_decode *d, vkm_stream *s, vkm_work *w, uint32_t layer);

#endif
