/* The gate of the arms with zones: a rollout's score is the product of its pooled activations with
 * the pairs' direction; low and high quantiles of a run-long buffer of rollouts, scored anew
 * against the direction of now, part the zones. All on the host, in one order: the same bits
 * everywhere. */
#ifndef VKM_GATE_H
#define VKM_GATE_H

#include "base/status.h"

#define VKM_GATE_ROWS 8192u /* rollouts that the buffer holds at most */

typedef struct vkm_gate {
    uint32_t P, cap;    /* values of a row (M R); rows */
    float *direction;   /* (P) */
    float *rows;        /* (cap, P): a ring */
    uint32_t *steps;    /* (cap): when each entered */
    uint32_t n_seen[2]; /* rows ever entered: low and high word */
} vkm_gate;

/* A rollout enters at its step and weighs 0.5^(age in steps / half_life). */
typedef struct vkm_gate_options {
    float quantile;  /* q: low and high thresholds at q and 1 - q of the weight */
    float half_life; /* steps */
    uint32_t warmup; /* until so many rows have entered, all are absorbed */
} vkm_gate_options;

vkm_status vkm_gate_new(uint32_t P, uint32_t cap, vkm_gate **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_gate_free(vkm_gate *g); /* accepts NULL */

/* n rollouts' activations a (n, P) enter, then the thresholds are found once, then w (n) is 0 at or
 * below the low one (keep), 1 at or above the high one (rout), else 1/2 (absorb). A threshold is
 * the smallest score at which the cumulative weight reaches its share. */
vkm_status vkm_gate_zones(vkm_gate *g, const vkm_gate_options *o, const float *a, uint32_t n,
                          uint32_t step, float *w, vkm_err *err) VKM_MUST_CHECK;

#endif
