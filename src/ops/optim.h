/* What the optimizer's kernels and their callers share. */
#ifndef VKM_OPTIM_H
#define VKM_OPTIM_H

#include "vk/tensor.h"

/* Vectors are summed by blocks of this many elements, each by 64 lanes. */
enum { VKM_SUM_BLOCK = 65536 };
static inline uint32_t vkm_n_sum_blocks(uint64_t n) {
    return (uint32_t)((n + VKM_SUM_BLOCK - 1) / VKM_SUM_BLOCK);
}

/* Columns of clip_coef's output. */
enum {
    VKM_CLIP_NORM,   /* of the unscaled gradient */
    VKM_CLIP_FACTOR, /* at most 1 */
    VKM_CLIP_FINITE, /* 0: NaN or Inf in the gradient; skip the update */
    VKM_CLIP_WORDS
};

#endif
