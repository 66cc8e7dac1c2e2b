/* Statistics of an evaluation. Undefined values are NaN. */
#ifndef VKM_STATS_H
#define VKM_STATS_H

#include <stddef.h>
#include <stdint.h>

/* Wilson score interval of k successes in n trials at 95% confidence (Wilson 1927). */
void vkm_wilson(uint32_t k, uint32_t n, double *low, double *high);

/* Area under the ROC curve: the chance that a random positive scores above a random negative, ties
 * counting one half. NaN without both classes. */
double vkm_auroc(const double *scores, const unsigned char *labels, size_t n);

#endif
