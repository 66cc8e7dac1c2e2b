/* The kernel table: argument structs, wrappers and references, all from kernels.def. */
#ifndef VKM_KERNELS_H
#define VKM_KERNELS_H

#include "vk/stream.h"

#define IN(type, name)    vkm_tensor name;
#define OUT(type, name)   vkm_tensor name;
#define INOUT(type, name) vkm_tensor name;
#define U32(name)         uint32_t name;
#define F32(name)         float name;

/* vkm_args_<name>; vkm_op_<name> records one run: it checks sizes, chooses the grid. */
#define KERNEL(name, doc, ...)                                                                     \
    typedef struct vkm_args_##name {                                                               \
        __VA_ARGS__                                                                                \
    } vkm_args_##name;                                                                             \
    void vkm_op_##name(vkm_stream *s, const vkm_args_##name *a);                                   \
    void vkm_ref_##name(const vkm_args_##name *a, vkm_part me);                                    \
    void vkm_ref64_##name(const vkm_args_##name *a, vkm_part me);
#include "ops/kernels.def"
#undef KERNEL

#undef IN
#undef OUT
#undef INOUT
#undef U32
#undef F32

typedef enum vkm_kernel_id {
#define KERNEL(name, doc, ...) VKM_K_##name,
#include "ops/kernels.def"
#undef KERNEL
    VKM_N_KERNELS
} vkm_kernel_id;

extern const vkm_kernel vkm_kernels[VKM_N_KERNELS];

/* VKM_OP(stream, name, .x = ..., .n_rows = ...) records kernel `name`. */
#define VKM_OP(s, name, ...) vkm_op_##name((s), &(const vkm_args_##name){__VA_ARGS__})

#endif
