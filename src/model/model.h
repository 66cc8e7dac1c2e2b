/* The model as the device sees it: frozen weights as GEMM operands, RoPE tables.
 *
 * One alphabet of shapes for all of src/model and src/rl:
 *   B sequences, T token rows, C hidden, H heads, K key/value heads, D head dim, F ffn, V
 * vocabulary, L layers, E experts, R rank of one expert, M = 7 L adapted modules, G rollouts of one
 * prompt. Rows of all sequences of a batch follow one another; a sequence starts at a multiple
 * of 16. */
#ifndef VKM_MODEL_H
#define VKM_MODEL_H

#include "model/hf_config.h"
#include "ops/kernels.h"

/* The adapted Linears of a layer, in the order in which gradients and tables list them. */
typedef enum {
    VKM_LIN_Q,
    VKM_LIN_K,
    VKM_LIN_V,
    VKM_LIN_O,
    VKM_LIN_GATE,
    VKM_LIN_UP,
    VKM_LIN_DOWN,
    VKM_N_LINEARS
} vkm_linear_id;
extern const char *const vkm_linear_names[VKM_N_LINEARS]; /* "self_attn.q_proj", ... */

typedef struct vkm_linear {
    vkm_tensor w;  /* operand (d_out, d_in) */
    vkm_tensor wt; /* operand (d_in, d_out), for dX; absent (n = 0) in models that only generate */
    vkm_tensor bias; /* (d_out) fp32, of q, k and v where the architecture has it; else n = 0 */
    uint32_t d_in, d_out;
} vkm_linear;

typedef struct vkm_layer {
    vkm_tensor norm_attn, norm_mlp; /* (C) fp32 */
    vkm_tensor norm_q, norm_k;      /* (D) fp32; n = 0 without qk_norm */
    vkm_linear lin[VKM_N_LINEARS];
} vkm_layer;

typedef struct vkm_model {
    vkm_model_config dims; /* dims.max_pos: rows of the RoPE tables */
    vkm_dev *dev;
    vkm_mem *mem;
    vkm_tensor embed;  /* operand (V, C) */
    vkm_tensor head;   /* operand (V, C); the embedding when tied */
    vkm_tensor head_t; /* operand (C, V), for the backward pass */
    vkm_tensor norm_final;
    vkm_tensor cos, sin; /* (max_pos, D/2) fp32 */
    vkm_layer *layers;
} vkm_model;

/* Sizes d_in and d_out of a Linear. */
void vkm_linear_dims(const vkm_model_config *d, vkm_linear_id id, uint32_t *d_in, uint32_t *d_out);

int vkm_linear_has_bias(const vkm_model_config *d, vkm_linear_id id);

/* The factor of attention scores: 1/sqrt(D), correctly rounded twice. */
float vkm_attn_scale(const vkm_model_config *d);

/* Reads a Hugging Face folder (config.json, safetensors) into device memory. max_pos: the longest
 * sequence that will be run. trains: also hold the transposed operands of the backward pass.
 * dry: NULL, or a plan that takes the requests instead of memory being taken (for --dry-run); the
 * object made then has sizes only.
 * Errors: what a bad folder, tensor or shape is, and too little memory. Free with vkm_model_free.
 */
vkm_status vkm_model_load(vkm_dev *dev, const char *folder, uint32_t max_pos, int trains,
                          vkm_plan *dry, vkm_model **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_model_free(vkm_model *m); /* accepts NULL */

#endif
