/* The mixture: two Gaussians over the live rollouts' pooled activations, honest and hacking, each
 * with a mean, both with one diagonal covariance; w is the posterior of the hacking one. It learns
 * by one EM step a training step, from activations alone (no label, no reward), and starts at the
 * pairs:
 *
 * z = sum over j d_j (a_j - m_j - d_j / 2) / v_j + log((n_hack + 1) / (n_honest + 1))
 *
 * w = sigmoid(z)
 *
 * d = (1/2 sum over n pairs (a_hack - a_clean) + S) / (n/2 + D), the difference of the means
 *
 * S = sum over live rollouts (w - mean w)(a - mean a), D = sum (w - mean w)^2, means over the
 * prompt's group
 *
 * with m the honest rollouts' mean, v the variance about both means, and all sums fading by a
 * factor a step. d is the within-group (fixed effects) estimate: what all answers to a prompt
 * share, such as its hint, cannot enter it. A pair is a group of two with w = 1 and 0. On the host,
 * in one order: the same bits everywhere. */
#ifndef VKM_MIXTURE_H
#define VKM_MIXTURE_H

#include "base/status.h"

enum { VKM_MIX_HONEST, VKM_MIX_HACK, VKM_MIX_WITHIN, VKM_MIX_COUNTS }; /* counts: n, n, D */
enum { VKM_MIX_SUM, VKM_MIX_SUM_HACK, VKM_MIX_SQUARES, VKM_MIX_SLOPE, VKM_MIX_SUMS };

typedef struct vkm_mixture {
    uint32_t P, n_pairs;
    float *pair;   /* (P): mean of a_hack - a_clean */
    float *counts; /* (VKM_MIX_COUNTS) */
    float *sums;   /* (VKM_MIX_SUMS, P): a of honest, of hack, a^2 of all, S */
} vkm_mixture;

vkm_status vkm_mixture_new(uint32_t P, vkm_mixture **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_mixture_free(vkm_mixture *m); /* accepts NULL */

/* The pairs' activations (2 n_pairs, P), hack sides first, as they are now. random: NULL, or a unit
 * vector (P) that takes the place of their difference, at its length: a placebo. */
void vkm_mixture_seed(vkm_mixture *m, const float *pairs, uint32_t n_pairs, const float *random);

/* w (n) of rollouts with activations a (n, P), of which those of one prompt stand together and have
 * one number in group (n); then the sums take them in. */
vkm_status vkm_mixture_weights(vkm_mixture *m, const float *a, const uint32_t *group, uint32_t n,
                               float *w, vkm_err *err) VKM_MUST_CHECK;

#endif
