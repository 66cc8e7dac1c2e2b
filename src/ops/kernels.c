/* The kernel table and its self-check. */
#include "ops/kernels.h"

#define IN(type, name)    {#name, VKM_P_IN, VKM_PT_##type},
#define OUT(type, name)   {#name, VKM_P_OUT, VKM_PT_##type},
#define INOUT(type, name) {#name, VKM_P_INOUT, VKM_PT_##type},
#define U32(name)         {#name, VKM_P_U32, VKM_PT_scalar},
#define F32(name)         {#name, VKM_P_F32, VKM_PT_scalar},

#define KERNEL(name, doc, ...)                                                                     \
    static const vkm_param params_##name[] = {__VA_ARGS__};                                        \
    _Static_assert(sizeof(vkm_args_##name) <= 512, "arguments of " #name);                         \
    _Static_assert(VKM_COUNTOF(params_##name) <= VKM_MAX_PARAMS, "parameters of " #name);          \
    extern const uint32_t vkm_plain_##name[], vkm_plain_end_##name[], vkm_wide_##name[],           \
        vkm_wide_end_##name[], vkm_shared_##name[], vkm_shared_end_##name[], vkm_split_##name[],   \
        vkm_split_end_##name[], vkm_half_##name[], vkm_half_end_##name[], vkm_bf16_##name[],       \
        vkm_bf16_end_##name[];
#include "ops/kernels.def"
#undef KERNEL

/* A reference takes its own args struct; the table holds it by the common type. */
#define KERNEL(name, doc, ...)                                                                     \
    static void ref_##name(const void *a, vkm_part me) {                                           \
        vkm_ref_##name(a, me);                                                                     \
    }                                                                                              \
    static void ref64_##name(const void *a, vkm_part me) {                                         \
        vkm_ref64_##name(a, me);                                                                   \
    }
#include "ops/kernels.def"
#undef KERNEL

#define CODE(form, name) [VKM_FORM_##form] = {vkm_##form##_##name, vkm_##form##_end_##name}
const vkm_kernel vkm_kernels[VKM_N_KERNELS] = {
#define KERNEL(name, doc, ...)                                                                     \
    [VKM_K_##name] = {#name,                                                                       \
                      doc,                                                                         \
                      params_##name,                                                               \
                      (uint32_t)VKM_COUNTOF(params_##name),                                        \
                      ref_##name,                                                                  \
                      ref64_##name,                                                                \
                      {CODE(plain, name), CODE(wide, name), CODE(shared, name), CODE(split, name), \
                       CODE(half, name), CODE(bf16, name)}},
#include "ops/kernels.def"
#undef KERNEL
};
