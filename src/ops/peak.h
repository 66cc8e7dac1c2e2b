/* Of the kernel fma_chains. */
#ifndef VKM_PEAK_H
#define VKM_PEAK_H

/* Chains of an output: more than a processor's latency times its units, and few enough for its
 * registers. */
enum { VKM_CHAINS = 12 };

#endif
