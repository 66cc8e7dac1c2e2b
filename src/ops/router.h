/* What the router's kernels and their callers share. */
#ifndef VKM_ROUTER_H
#define VKM_ROUTER_H

/* The `cal` tensor: z = alpha (s - b). */
enum { VKM_CAL_B, VKM_CAL_ALPHA, VKM_CAL_WORDS };

#endif
