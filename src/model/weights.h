/* What full-parameter training changes: fp32 masters of a model's weights, with gradients and
 * moments. The model computes with roundings of them: bf16 operands of matrices, gains rounded to
 * bf16 values, so that a saved model computes what was trained, bit for bit. */
#ifndef VKM_WEIGHTS_H
#define VKM_WEIGHTS_H

#include "model/model_files.h"

typedef struct vkm_weight {
    vkm_model_tensor is;
    vkm_tensor param, grad, adam_m, adam_v; /* (rows, cols) fp32 */
    vkm_tensor w, wt;                       /* of the model: the operand and its transpose, or the
                                               gain; wt.n = 0 where there is none */
} vkm_weight;

typedef struct vkm_weights {
    vkm_model *model;
    vkm_mem *mem;
    vkm_weight *w; /* n, in the order of vkm_model_tensors */
    uint32_t n;
    vkm_weight **by_role; /* (layer, role) -> weight, NULL where there is none */
    vkm_tensor head_grad; /* (V, C): the head's; with a tied embedding it joins that of the
                             embedding when the step's gradient is closed */
} vkm_weights;

/* Masters of a loaded model that has its transposes, read again from its folder (an fp32 file
 * keeps its bits). dry: as in vkm_model_load. */
vkm_status vkm_weights_new(vkm_model *m, const char *folder, vkm_plan *dry, vkm_weights **out,
                           vkm_err *err) VKM_MUST_CHECK;
void vkm_weights_free(vkm_weights *w); /* accepts NULL */

/* The weight of a role; layer is 0 for those outside the layers. NULL: the model has none. */
const vkm_weight *vkm_weight_of(const vkm_weights *w, uint32_t layer, uint32_t role);

/* Records the kernels that bring the model up to date with the masters. Call after any change. */
void vkm_weights_refresh(vkm_stream *s, const vkm_weights *w);
/* Record the beginning and the end of a step's gradient. */
void vkm_weights_zero_grad(vkm_stream *s, const vkm_weights *w);
void vkm_weights_close_grad(vkm_stream *s, const vkm_weights *w);

/* model.safetensors in bf16: the operands' own bits. */
vkm_status vkm_weights_save(const vkm_weights *w, const char *folder, vkm_err *err) VKM_MUST_CHECK;

#endif
