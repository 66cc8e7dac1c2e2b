/* Between work.c and work_lists.c. */
#ifndef VKM_WORK_IMPL_H
#define VKM_WORK_IMPL_H

#include "model/forward.h"

/* The lists of the weights' gradients: host memory, device memory, and those of a batch with the
 * head's chunks. */
vkm_status vkm_work_new_lists(vkm_work *w, vkm_err *err) VKM_MUST_CHECK;
void vkm_work_plan_weights(vkm_work *w, vkm_plan *p);
vkm_status vkm_work_set_lists(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq,
                              vkm_err *err) VKM_MUST_CHECK;

#endif
