/* What the streams know of a kernel. The table itself comes from ops/kernels.def. */
#ifndef VKM_KERNEL_H
#define VKM_KERNEL_H

#include "vk/tensor.h"

/* The share of a dispatch that one CPU thread does: part i of n. */
typedef struct vkm_part {
    uint32_t i, n;
} vkm_part;

typedef enum { VKM_P_IN, VKM_P_OUT, VKM_P_INOUT, VKM_P_U32, VKM_P_F32 } vkm_param_kind;
/* How a pointer's bytes are read: row-major and operand bf16 differ only in layout. */
typedef enum { VKM_PT_u32, VKM_PT_f32, VKM_PT_bf16, VKM_PT_op16, VKM_PT_scalar } vkm_param_type;

typedef struct vkm_param {
    const char *name;
    vkm_param_kind kind;
    vkm_param_type type;
} vkm_param;

#define VKM_MAX_PARAMS 24
#define VKM_MAX_SPEC   12
#define VKM_MAX_PUSH   128 /* bytes of push constants, the portable limit */

typedef void (*vkm_ref_fn)(const void *args, vkm_part me);

/* A shader is built in some of these forms: FORM(name, what it is). Their sources stand in
 * shaders/<kernel>.comp, with VKM_FORM_<NAME> defined. */
#define VKM_FORMS(FORM)                                                                            \
    FORM(plain, "as it stands")                                                                    \
    FORM(wide, "64-bit loads, for a driver that loads component by component")                     \
    FORM(shared, "products, attention: operands staged in workgroup memory")                       \
    FORM(split, "products of few rows: chunks of K side by side")                                  \
    FORM(half, "fast tier, products, attention: cooperative matrices of fp16, scaled")             \
    FORM(bf16, "fast tier, products, attention: cooperative matrices of bf16")
typedef enum {
#define FORM(name, doc) VKM_FORM_##name,
    VKM_FORMS(FORM)
#undef FORM
        VKM_N_FORMS
} vkm_form;

static inline const char *vkm_form_name(vkm_form f) {
    static const char *const names[] = {
#define FORM(name, doc) #name,
        VKM_FORMS(FORM)
#undef FORM
    };
    return names[f];
}

/* SPIR-V; at == end: this form is not built. */
typedef struct vkm_code {
    const uint32_t *at, *end;
} vkm_code;

typedef struct vkm_kernel {
    const char *name, *doc;
    const vkm_param *params;
    uint32_t n_params;
    vkm_ref_fn ref, ref64; /* exact twin; the same source in double, without rounding */
    vkm_code forms[VKM_N_FORMS];
} vkm_kernel;

static inline int vkm_param_is_pointer(vkm_param_kind k) {
    return k <= VKM_P_INOUT;
}

/* Walks the args struct of a kernel: tensors are 8-aligned, scalars 4-aligned, in order. */
static inline uint32_t vkm_param_offset(uint32_t *at, vkm_param_kind kind) {
    uint32_t size = vkm_param_is_pointer(kind) ? (uint32_t)sizeof(vkm_tensor) : 4;
    uint32_t align = vkm_param_is_pointer(kind) ? 8 : 4;
    uint32_t o = (*at + align - 1) / align * align;
    *at = o + size;
    return o;
}
/* The same for the push-constant block: an address is a uvec2. */
static inline uint32_t vkm_param_push_offset(uint32_t *at, vkm_param_kind kind) {
    uint32_t size = vkm_param_is_pointer(kind) ? 8 : 4;
    uint32_t o = (*at + size - 1) / size * size;
    *at = o + size;
    return o;
}

/* How to run a kernel once. spec[0] is the local size; the rest are the shader's own
 * specialization constants 1, 2, ...; 0 keeps the shader's default. None may change a bit. */
typedef struct vkm_launch {
    uint32_t groups[3];
    uint32_t spec[VKM_MAX_SPEC];
    double work;   /* estimated operations, plus four a byte: bounds what one submit holds */
    vkm_form form; /* plain: or wide, where the device wants it and the kernel has it */
} vkm_launch;

#endif
