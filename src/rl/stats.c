#include "rl/stats.h"

#include <math.h>

void vkm_wilson(uint32_t k, uint32_t n, double *low, double *high) {
    const double z = 1.959963984540054; /* the normal's 97.5% point */
    *low = *high = NAN;
    if (n == 0) return;
    double p = (double)k / n, z2 = z * z / n;
    double centre = (p + z2 / 2) / (1 + z2);
    double half = z / (1 + z2) * sqrt(p * (1 - p) / n + z2 / (4.0 * n));
    *low = k == 0 ? 0 : centre - half;
    *high = k == n ? 1 : centre + half;
}

double vkm_auroc(const double *scores, const unsigned char *labels, size_t n) {
    double wins = 0, pairs = 0;
    for (size_t i = 0; i < n; i++) {
        if (!labels[i]) continue;
        for (size_t j = 0; j < n; j++) {
            if (labels[j]) continue;
            pairs++;
            wins += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
        }
    }
    return pairs > 0 ? wins / pairs : NAN;
}
