/* What a model folder holds: its tensors in file order, and the files beside them. */
#ifndef VKM_MODEL_FILES_H
#define VKM_MODEL_FILES_H

#include "model/model.h"
#include "model/tokenizer.h"

/* The place of a tensor in the model; the first are the Linears (vkm_linear_id). */
typedef enum {
    VKM_ROLE_NORM_ATTN = VKM_N_LINEARS,
    VKM_ROLE_NORM_MLP,
    VKM_ROLE_NORM_Q,
    VKM_ROLE_NORM_K,
    VKM_ROLE_EMBED,
    VKM_ROLE_NORM_FINAL,
    VKM_ROLE_HEAD,
    VKM_ROLE_BIAS_Q, /* and of k and v: VKM_ROLE_BIAS_Q + vkm_linear_id */
    VKM_ROLE_BIAS_K,
    VKM_ROLE_BIAS_V,
    VKM_N_ROLES
} vkm_role;

typedef struct vkm_model_tensor {
    char name[96];
    uint32_t rows, cols; /* rows 0: a vector, the gain of a norm or a bias */
    uint32_t layer;      /* 0 for those outside the layers */
    uint32_t role;       /* vkm_role, or vkm_linear_id */
} vkm_model_tensor;

/* The tensors in the order in which we write them. *out is freed with free(). */
vkm_status vkm_model_tensors(const vkm_model_config *c, vkm_model_tensor **out, uint32_t *n,
                             vkm_err *err) VKM_MUST_CHECK;

/* That the vocabulary has all of the tokenizer's ids; `model` is for the message. */
vkm_status vkm_model_check_tokenizer(const char *model, const vkm_model_config *c,
                                     const vkm_tokenizer *t, vkm_err *err) VKM_MUST_CHECK;

/* Copies the tokenizer's files of a model folder; tokenizer.json must be there, the others may be
 * absent. */
vkm_status vkm_model_copy_tokenizer(const char *from, const char *to, vkm_err *err) VKM_MUST_CHECK;
/* Copies generation_config.json, if it is there, and then config.json, which marks a whole model.
 */
vkm_status vkm_model_copy_config(const char *from, const char *to, vkm_err *err) VKM_MUST_CHECK;

/* Elements [first, first + n) of tensor i of the list. */
typedef vkm_status (*vkm_model_source)(void *user, uint32_t i, const vkm_model_tensor *t,
                                       uint64_t first, uint64_t n, float *out, vkm_err *err);

typedef struct vkm_model_write_options {
    int fp32;             /* else bf16: nearest even, below 2^-50 is 0 */
    uint64_t shard_bytes; /* 0: one file; a tensor larger than this has a file of its own */
} vkm_model_write_options;

/* Writes folder/model.safetensors, or shards and model.safetensors.index.json, asking for pieces
 * whose first is a multiple of 4. */
vkm_status vkm_model_write(const vkm_model_config *c, const char *folder,
                           const vkm_model_write_options *o, vkm_model_source source, void *user,
                           vkm_err *err) VKM_MUST_CHECK;

#endif
