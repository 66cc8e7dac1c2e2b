/* Owns the mixture's sums: its posterior and its EM step. */
#include "rl/mixture.h"

#include <stdlib.h>
#include <string.h>

#include "ops/softmath.h"

static const float fade = 0.95f;           /* of all sums, a step */
static const float first_log_odds = -2.f;  /* before any rollout was seen */
static const float least_variance = 0.05f; /* of the mean variance of all values */
static const float least_share = 1e-6f;    /* of a rollout, in either part */

vkm_status vkm_mixture_new(uint32_t P, vkm_mixture **out, vkm_err *err) {
    vkm_mixture *m = vkm_calloc(1, sizeof *m, "the mixture", err);
    if (!m) return err->status;
    m->P = P;
    m->pair = vkm_calloc(P, sizeof *m->pair, "the mixture", err);
    m->counts = vkm_calloc(VKM_MIX_COUNTS, sizeof *m->counts, "the mixture", err);
    m->sums = vkm_calloc((uint64_t)VKM_MIX_SUMS * P, sizeof *m->sums, "the mixture", err);
    if (m->pair && m->counts && m->sums)
        *out = m;
    else
        vkm_mixture_free(m);
    return err->status;
}

void vkm_mixture_free(vkm_mixture *m) {
    if (!m) return;
    free(m->pair), free(m->counts), free(m->sums);
    free(m);
}

static float *sums(const vkm_mixture *m, int which) {
    return m->sums + (uint64_t)which * m->P;
}

static float squares(const float *x, uint32_t n) {
    float sum = 0;
    for (uint32_t j = 0; j < n; j++) sum = sum + x[j] * x[j];
    return sum;
}

void vkm_mixture_seed(vkm_mixture *m, const float *pairs, uint32_t n_pairs, const float *random) {
    const float *clean = pairs + (uint64_t)n_pairs * m->P;
    m->n_pairs = n_pairs;
    for (uint32_t j = 0; j < m->P; j++) {
        float sum = 0;
        for (uint32_t i = 0; i < n_pairs; i++)
            sum = sum + (pairs[(uint64_t)i * m->P + j] - clean[(uint64_t)i * m->P + j]);
        m->pair[j] = vkm_div(sum, (float)(int)n_pairs);
    }
    float length = vkm_sqrt(squares(m->pair, m->P));
    for (uint32_t j = 0; random && j < m->P; j++) m->pair[j] = length * random[j];
}

/* Mean of the honest rollouts and variance about both means, value by value; before any rollout was
 * seen, those of the n at hand. */
static void moments(const vkm_mixture *m, const float *a, uint32_t n, float *mean,
                    float *variance) {
    const float honest = m->counts[VKM_MIX_HONEST], hack = m->counts[VKM_MIX_HACK];
    for (uint32_t j = 0; j < m->P; j++) {
        float square = 0;
        mean[j] = 0;
        if (honest > 0) {
            float other = vkm_div(sums(m, VKM_MIX_SUM_HACK)[j], hack);
            mean[j] = vkm_div(sums(m, VKM_MIX_SUM)[j], honest);
            square =
                sums(m, VKM_MIX_SQUARES)[j] - mean[j] * mean[j] * honest - other * other * hack;
            square = vkm_div(square, honest + hack);
        } else {
            for (uint32_t i = 0; i < n; i++) {
                float x = a[(uint64_t)i * m->P + j];
                mean[j] = mean[j] + x, square = square + x * x;
            }
            mean[j] = vkm_div(mean[j], (float)(int)n);
            square = vkm_div(square, (float)(int)n) - mean[j] * mean[j];
        }
        variance[j] = square > 0 ? square : 0;
    }
}

/* z = sum over j slope_j a_j + what is returned. */
static float log_odds(const vkm_mixture *m, const float *mean, const float *variance,
                      float *slope) {
    const float *c = m->counts, half_pairs = 0.5f * (float)(int)m->n_pairs;
    float offset = first_log_odds, floor = least_variance, sum = 0;
    if (c[VKM_MIX_HONEST] > 0)
        offset = vkm_log(vkm_div(c[VKM_MIX_HACK] + 1, c[VKM_MIX_HONEST] + 1));
    for (uint32_t j = 0; j < m->P; j++) sum = sum + variance[j];
    floor = floor * vkm_div(sum, (float)(int)m->P);
    for (uint32_t j = 0; j < m->P; j++) {
        float d = vkm_div(half_pairs * m->pair[j] + sums(m, VKM_MIX_SLOPE)[j],
                          half_pairs + c[VKM_MIX_WITHIN]);
        float v = variance[j] + floor;
        slope[j] = v > 0 ? vkm_div(d, v) : 0;
        offset = offset - slope[j] * (mean[j] + 0.5f * d);
    }
    return offset;
}

/* The rollouts [from, to) of one prompt enter S and D. */
static void take_group(vkm_mixture *m, const float *a, const float *w, uint32_t from, uint32_t to) {
    float n = (float)(int)(to - from), mean_w = 0, *slope = sums(m, VKM_MIX_SLOPE);
    for (uint32_t i = from; i < to; i++) mean_w = mean_w + w[i];
    mean_w = vkm_div(mean_w, n);
    for (uint32_t i = from; i < to; i++) {
        float about = w[i] - mean_w;
        /* sum (w - mean w) is 0: the group's mean activation need not be taken off */
        for (uint32_t j = 0; j < m->P; j++)
            slope[j] =
                slope[j] + about * (a[(uint64_t)i * m->P + j] - a[(uint64_t)from * m->P + j]);
        m->counts[VKM_MIX_WITHIN] = m->counts[VKM_MIX_WITHIN] + about * about;
    }
}

static void take_in(vkm_mixture *m, const float *a, const uint32_t *group, uint32_t n,
                    const float *w) {
    for (uint32_t k = 0; k < VKM_MIX_COUNTS; k++) m->counts[k] = fade * m->counts[k];
    for (uint64_t k = 0; k < (uint64_t)VKM_MIX_SUMS * m->P; k++) m->sums[k] = fade * m->sums[k];
    for (uint32_t i = 0; i < n; i++) {
        float hack = w[i] < least_share ? least_share : w[i], honest = 1 - w[i];
        if (honest < least_share) honest = least_share;
        m->counts[VKM_MIX_HONEST] = m->counts[VKM_MIX_HONEST] + honest;
        m->counts[VKM_MIX_HACK] = m->counts[VKM_MIX_HACK] + hack;
        for (uint32_t j = 0; j < m->P; j++) {
            float x = a[(uint64_t)i * m->P + j];
            sums(m, VKM_MIX_SUM)[j] = sums(m, VKM_MIX_SUM)[j] + honest * x;
            sums(m, VKM_MIX_SUM_HACK)[j] = sums(m, VKM_MIX_SUM_HACK)[j] + hack * x;
            sums(m, VKM_MIX_SQUARES)[j] = sums(m, VKM_MIX_SQUARES)[j] + x * x;
        }
    }
    for (uint32_t from = 0, to; from < n; from = to) {
        for (to = from + 1; to < n && group[to] == group[from];) to++;
        take_group(m, a, w, from, to);
    }
}

vkm_status vkm_mixture_weights(vkm_mixture *m, const float *a, const uint32_t *group, uint32_t n,
                               float *w, vkm_err *err) {
    if (n == 0) return VKM_OK;
    float *mean = vkm_calloc(3ull * m->P, sizeof *mean, "the mixture", err);
    if (!mean) return err->status;
    float *variance = mean + m->P, *slope = variance + m->P;
    moments(m, a, n, mean, variance);
    float offset = log_odds(m, mean, variance, slope);
    for (uint32_t i = 0; i < n; i++) {
        float z = offset;
        for (uint32_t j = 0; j < m->P; j++) z = z + slope[j] * a[(uint64_t)i * m->P + j];
        w[i] = vkm_sigmoid(z);
    }
    take_in(m, a, group, n, w);
    free(mean);
    return VKM_OK;
}
