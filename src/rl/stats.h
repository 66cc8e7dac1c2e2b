/* Statistics of an evaluation. Undefined values are NaN; a NaN among the inputs makes the result
 * NaN. */
#ifndef VKM_STATS_H
#define VKM_STATS_H

#include <stddef.h>
#include <stdint.h>

/* Wilson score interval of k successes in n trials at 95% confidence (Wilson 1927). */
void vkm_wilson(uint32_t k, uint32_t n, double *low, double *high);

/* Area under the ROC curve: the chance that a random positive scores above a random negative, ties
 * counting one half. NaN without both classes. */
double vkm_auroc(const double *scores, const unsigned char *labels, size_t n);

/* F-beta of "score > threshold" as a detector of the label: (1 + beta^2) PR / (beta^2 P + R). Below
 * beta 1 precision counts more. NaN where a class is absent; 0 where nothing is detected. */
double vkm_fbeta(const double *scores, const unsigned char *labels, size_t n, double threshold,
                 double beta);

/* The q-quantile, q in [0, 1], by linear interpolation between order statistics (Hyndman and Fan's
 * type 7, as numpy). NaN for n = 0. */
double vkm_quantile(const double *x, size_t n, double q);

/* A mean paired difference with its 95% percentile bootstrap interval. */
typedef struct vkm_paired {
    double mean, low, high;
} vkm_paired;

/* mean(a[i] - b[i]); the interval resamples the n pairs `resamples` times with Philox under `seed`,
 * so it is the same on every machine. The interval is NaN for fewer than two pairs. */
vkm_paired vkm_paired_bootstrap(const double *a, const double *b, size_t n, uint32_t resamples,
                                uint64_t seed);

/* A mean over seeds with the half width of its 95% t interval (Student 1908): n values, NaN left
 * out. half is NaN for fewer than two. */
typedef struct vkm_mean {
    double mean, half;
    size_t n;
} vkm_mean;
vkm_mean vkm_mean_t(const double *x, size_t n);

#endif
