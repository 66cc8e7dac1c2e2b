/* The HackRouter: a cosine probe on pooled bottleneck activations that decides how much of a
 * rollout the hack expert carries. s = cos(a - mu, u), or for a linear router <a - mu, u>;
 * w = sigmoid(alpha (s - b)). a (P = M R values): mean over completion tokens of A_dep x in every
 * module, read on the ablated forward. u and b are trained; mu and alpha stay as calibrated on the
 * authored pairs. */
#ifndef VKM_RL_ROUTER_H
#define VKM_RL_ROUTER_H

#include "ops/kernels.h"
#include "rl/config.h"

struct vkm_trainable; /* rl/optimizer.h */

typedef struct vkm_router {
    vkm_dev *dev;
    vkm_mem *mem;
    uint32_t n_modules, rank, P, n_pairs, max_rows;
    int linear;                 /* s is <a - mu, u>, not the cosine */
    vkm_tensor mu, u;           /* (P) */
    vkm_tensor cal;             /* {b, alpha} */
    vkm_tensor du, db;          /* gradients times the loss scale */
    vkm_tensor adam[4];         /* m and v of u, m and v of b */
    vkm_tensor pairs;           /* (2 n_pairs, P): hack sides, then clean sides */
    vkm_tensor rows;            /* (max_rows, P): rollouts of the step */
    vkm_tensor s, z, w, dw, dz; /* (max(max_rows, 2 n_pairs)) */
    vkm_tensor inv;             /* the same, twice: 1/|a - mu|, 1/|u| */
    vkm_tensor loss;            /* (1): pin loss */
    float *seed_u;              /* (P): u at calibration, for the cosine with it */
} vkm_router;

/* dry: NULL, or a plan to add the memory to instead of taking it. */
vkm_status vkm_router_new(vkm_dev *dev, uint32_t n_modules, uint32_t rank, uint32_t n_pairs,
                          uint32_t max_rows, int linear, vkm_plan *dry, vkm_router **out,
                          vkm_err *err) VKM_MUST_CHECK;
void vkm_router_free(vkm_router *r); /* accepts NULL */

/* v_act: per module the unit mean difference hack - clean of the pairs' activations, (M,R), a
 * (2 n_pairs, P). Modules without a difference stay 0. */
void vkm_direction_from_pairs(const float *a, uint32_t n_pairs, uint32_t n_modules, uint32_t rank,
                              int global_norm, float *v);
/* Placebo of the same shape: Haar-random unit rows. */
void vkm_direction_haar(uint64_t seed, uint32_t n_modules, uint32_t rank, int global_norm,
                        float *v);

/* Sets mu, u, b and alpha from the pairs' activations (2 n_pairs, P) and the direction v. */
vkm_status vkm_router_calibrate(vkm_router *r, const float *pairs, const float *v,
                                float calib_logit, vkm_err *err) VKM_MUST_CHECK;
/* New activations of the pairs for the same mu and alpha. */
vkm_status vkm_router_refresh(vkm_router *r, const float *pairs, vkm_err *err) VKM_MUST_CHECK;

/* Router weights of n rollouts from their activations (n, P); also of the pairs (2 n_pairs). */
vkm_status vkm_router_weights(vkm_router *r, const float *a, uint32_t n, float *w,
                              vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_router_pair_weights(vkm_router *r, float *w, vkm_err *err) VKM_MUST_CHECK;

/* Gradients of u and b: the pin loss on the pairs, and dL/dw (n, times the loss scale) of the
 * rollouts of the last vkm_router_weights; dw NULL for none. Overwrites du, db. Returns the pin
 * loss. */
vkm_status vkm_router_backward(vkm_router *r, const float *dw, uint32_t n, float pin_coef,
                               float *pin_loss, vkm_err *err) VKM_MUST_CHECK;

/* Cosine of u with the direction it started at. */
vkm_status vkm_router_seed_cosine(const vkm_router *r, double *out, vkm_err *err) VKM_MUST_CHECK;

/* u and b with their gradients and moments. */
void vkm_router_trainables(const vkm_router *r, struct vkm_trainable *out);

/* All state as one host vector {u, b, alpha, mu, seed_u, pairs}; the first P + 1 are trained. */
uint64_t vkm_router_state_size(const vkm_router *r);
vkm_status vkm_router_read(const vkm_router *r, float *out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_router_write(vkm_router *r, const float *in, vkm_err *err) VKM_MUST_CHECK;

#endif
