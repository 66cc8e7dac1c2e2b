/* The adapter: E expert blocks of rank R on every Linear, held as updates dA, dB of a frozen random
 * init A0, B0, so that the net contribution is exactly zero at step 0 and small updates survive the
 * rounding of GEMM operands:
 *     expert_e(x) = B0_e (dA_e x) + dB_e (A_e x),   A_e = A0_e + dA_e
 * B matrices are stored transposed, (E*R, d_out), so that both factors share one layout. */
#ifndef VKM_LORA2R_H
#define VKM_LORA2R_H

#include "model/model.h"
#include "ops/lora.h"

enum { VKM_DEPLOYED = 0, VKM_HACK = 1, VKM_MAX_EXPERTS = 2 };

/* One module. Operands hold two parts, [first | second], in the adapter's order (ops/lora.c): kper
 * rows or columns an expert. Trainable tensors and their gradients are (E*R, d_in) for A, (E*R,
 * d_out) for B. */
typedef struct vkm_module {
    uint32_t d_in, d_out;
    vkm_tensor a0, b0;   /* frozen init, fp32 */
    vkm_tensor param[2]; /* dA, dB^T */
    /* of adapters that train, else absent (n = 0) */
    vkm_tensor group_grad[2]; /* sum over rollouts of the current group */
    vkm_tensor grad[2];       /* sum over the groups of the step */
    vkm_tensor adam_m[2], adam_v[2];
    vkm_tensor back;   /* operand (E kper, d_out): rows [B0^T | dB^T] */
    vkm_tensor back_x; /* operand (d_in, E kper): [dA^T | A0^T] */
    /* of all */
    vkm_tensor
        down; /* of the first of a group of n: operand (n E kper, d_in), rows [dA | A0] of each */
    vkm_tensor up; /* operand (d_out, E kper): [B0 | dB] */
} vkm_module;

typedef struct vkm_adapter {
    uint32_t n_experts, rank, n_modules;
    int adam_v_per_tensor, trains;
    vkm_dev *dev;
    vkm_mem *mem;
    vkm_module *modules; /* layer * VKM_N_LINEARS + linear */
} vkm_adapter;

/* Linears that follow one another and read the same input: their down products are one. */
enum { VKM_MAX_LORA_GROUP = 3 };
typedef struct vkm_lora_group {
    vkm_linear_id first;
    uint32_t n;
} vkm_lora_group;
const vkm_lora_group *vkm_lora_group_of(vkm_linear_id id);

/* A module's rows or columns of an operand, E kper. */
uint32_t vkm_lora_stack(const vkm_adapter *a);

typedef struct vkm_adapter_options {
    uint32_t n_experts, rank;
    uint64_t seed;
    int adam_v_per_tensor;
    int trains; /* hold gradients, moments and the operands of the backward pass */
} vkm_adapter_options;

/* A0 ~ N(0, 1/d_in), B0 ~ N(0, 1/(E R)), one Philox stream a factor; dA = dB = 0. dry: as in
 * vkm_model_load. */
vkm_status vkm_adapter_new(vkm_dev *dev, const vkm_model_config *d, const vkm_adapter_options *o,
                           vkm_plan *dry, vkm_adapter **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_adapter_free(vkm_adapter *a); /* accepts NULL */

/* The frozen init of a module on the host: A0 (E R, d_in), or B0^T (E R, d_out) for factor 1.
 * Gaussians of standard deviation 1/sqrt(d_in), 1/sqrt(E R). */
void vkm_adapter_init(const vkm_adapter *a, uint64_t seed, uint32_t module, int factor, float *out);

/* Records the kernels that bring the GEMM operands up to date with dA, dB. Call after any change.
 */
void vkm_adapter_refresh(vkm_stream *s, const vkm_adapter *a);

/* Host copies of the trainable tensors and the optimizer's, module by module, A then B: one vector
 * of vkm_adapter_size elements. */
typedef enum {
    VKM_STATE_PARAM,
    VKM_STATE_ADAM_M,
    VKM_STATE_ADAM_V,
    VKM_STATE_GRAD,
    VKM_STATE_GROUP_GRAD,
    VKM_N_STATES
} vkm_adapter_state;
const vkm_tensor *vkm_module_tensor(const vkm_module *m, vkm_adapter_state which, int factor);
/* Elements of dA, or of dB (factor 1), of a module; also of an adapter that is only planned. */
uint64_t vkm_factor_size(const vkm_adapter *a, uint32_t module, int factor);
/* "model.layers.0.self_attn.q_proj.dA": factor 0 of module 0, dB for factor 1. */
void vkm_factor_name(uint32_t module, int factor, char out[96]);
uint64_t vkm_adapter_size(const vkm_adapter *a, vkm_adapter_state which);
vkm_status vkm_adapter_read(const vkm_adapter *a, vkm_adapter_state which, float *out,
                            vkm_err *err) VKM_MUST_CHECK;
/* Writes; new parameters also refresh the operands. */
vkm_status vkm_adapter_write(vkm_adapter *a, vkm_adapter_state which, const float *in,
                             vkm_err *err) VKM_MUST_CHECK;
/* Brings the operands up to date with dA, dB that were written to the tensors themselves. */
vkm_status vkm_adapter_follow(vkm_adapter *a, vkm_err *err) VKM_MUST_CHECK;
/* Zeroes rank rows in a host parameter vector: where keep[m*E*R + row] == 0, row `row` of module m
 * goes from both dA and dB. */
void vkm_adapter_mask_rows(const vkm_adapter *a, float *params, const unsigned char *keep);

#endif
