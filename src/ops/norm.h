/* What callers of the gain gradients need to know. */
#ifndef VKM_OPS_NORM_H
#define VKM_OPS_NORM_H

/* Rows of a sequence, from a multiple of this on, that weight gradients other than products sum
 * sequentially before they are added (norm_dgain; the output head's blocks are as long). */
enum { VKM_GRAD_BLOCK = 256 };

#endif
