/* Gates: every kernel against its twin, and what the method must hold. `vkmoe verify` and the tests
 * run them from one table.
 *
 * A kernel's cases stand in src/verify/cases_*.c:
 *     VKM_CASES(rmsnorm_fwd) {                              // vkm_verify *v
 *         FOR_SIZES(n_rows, 1, 63, 64, 65, 127) {
 *             vkm_args_rmsnorm_fwd a = {.n_rows = n_rows, .n_cols = 64, .eps = 1e-6f};
 *             a.x = vkm_v_f32(v, n_rows * 64, VKM_FILL_NORMAL);
 *             a.y = vkm_v_op16_out(v, n_rows, 64);
 *             VKM_V_RUN(v, rmsnorm_fwd, &a);
 *         }
 *     }
 * Each run executes the op on the CPU reference (one thread) and twice on the device under test
 * with two different poisons in every output and in red zones around every tensor, then demands:
 * outputs bit-equal (any NaN equals any NaN), inputs and red zones untouched, both runs alike. OUT
 * tensors that the kernel does not write in full are compared too: they must keep the poison on
 * both. */
#ifndef VKM_VERIFY_H
#define VKM_VERIFY_H

#include "ops/kernels.h"

typedef struct vkm_verify vkm_verify;

typedef enum vkm_fill {
    VKM_FILL_NORMAL,      /* N(0, 1) */
    VKM_FILL_SMALL,       /* N(0, 1) * 2^-20 */
    VKM_FILL_WIDE,        /* random sign, exponents 2^-60 to 2^30 */
    VKM_FILL_ADVERSARIAL, /* zeros of both signs, denormals, 2^-50 and its neighbours, large, mixed
                             with normals; only where the kernel must stand any finite input */
    VKM_FILL_POSITIVE,    /* (0, 1] */
    VKM_FILL_SPECIAL,     /* adversarial with NaN and Inf among them */
} vkm_fill;

/* Host-side tensors for the current case, freed by VKM_V_RUN. bf16 and op16 fills are bf16z of the
 * fill; op16 pads are zero. */
vkm_tensor vkm_v_f32(vkm_verify *v, uint64_t n, vkm_fill fill);
vkm_tensor vkm_v_bf16(vkm_verify *v, uint64_t n, vkm_fill fill);
vkm_tensor vkm_v_op16(vkm_verify *v, uint64_t rows, uint32_t k, vkm_fill fill);
vkm_tensor vkm_v_u32(vkm_verify *v, uint64_t n, uint32_t below); /* uniform in [0, below) */
vkm_tensor vkm_v_u32_distinct(vkm_verify *v, uint32_t n,
                              uint32_t below); /* n <= below, descending */
/* Copies of caller data, for tables of positions, segments, ids and the like. */
vkm_tensor vkm_v_u32_data(vkm_verify *v, const uint32_t *x, uint64_t n);
vkm_tensor vkm_v_f32_data(vkm_verify *v, const float *x, uint64_t n);
vkm_tensor vkm_v_f32_out(vkm_verify *v, uint64_t n);
vkm_tensor vkm_v_bf16_out(vkm_verify *v, uint64_t n);
vkm_tensor vkm_v_op16_out(vkm_verify *v, uint64_t rows, uint32_t k);
vkm_tensor vkm_v_u32_out(vkm_verify *v, uint64_t n);
uint32_t vkm_v_random(vkm_verify *v, uint32_t below);
/* 1 while cases are to be exact in any order of additions (the fast tier's gate). */
int vkm_v_integers(const vkm_verify *v);

typedef void (*vkm_v_op)(vkm_stream *s, const void *args);
void vkm_v_run(vkm_verify *v, const vkm_kernel *k, vkm_v_op op, const void *args, const char *what);
#define VKM_V_RUN(v, name, args)                                                                   \
    do {                                                                                           \
        const vkm_args_##name *typed_args_ = (args);                                               \
        vkm_v_run((v), &vkm_kernels[VKM_K_##name], (vkm_v_op)(void (*)(void))vkm_op_##name,        \
                  typed_args_, #name);                                                             \
    } while (0)

#define VKM_CASES(name)        void vkm_cases_##name(vkm_verify *v)
#define KERNEL(name, doc, ...) VKM_CASES(name);
#include "ops/kernels.def"
#undef KERNEL

#define FOR_SIZES(var, ...)                                                                        \
    for (uint32_t sizes_##var[] = {__VA_ARGS__}, i_##var = 0, var = sizes_##var[0];                \
         i_##var < VKM_COUNTOF(sizes_##var);                                                       \
         i_##var++, var = i_##var < VKM_COUNTOF(sizes_##var) ? sizes_##var[i_##var] : 0)

#endif
