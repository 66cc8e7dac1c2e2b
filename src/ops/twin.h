/* For the files that hold twins. Each is compiled twice: as the exact reference (fp32, bf16 bits)
 * and, with VKM_TWIN64, as the oracle (double, libm, no rounding). The wrappers stand in the first
 * compile only, inside #ifndef VKM_TWIN64.
 *
 *     VKM_REF(rmsnorm_fwd) {                 // const vkm_args_rmsnorm_fwd *a, vkm_part me
 *         const real *x = ref_f32(a->x);     // (T,C)
 *         FOR_PART(t, a->n_rows) { ... }     // this thread's share of the outputs
 *     }
 */
#ifndef VKM_TWIN_H
#define VKM_TWIN_H

#include "ops/kernels.h"
#include "ops/numerics.h"

#ifdef VKM_TWIN64
#include <math.h>
#define VKM_REF(name) void vkm_ref64_##name(const vkm_args_##name *a, vkm_part me)
typedef double real;
typedef double bf16;
static inline real ldb(bf16 x) {
    return x;
}
static inline bf16 stb(real x) {
    return x;
}
typedef struct bf16x2 {
    double lo, hi;
} bf16x2;
static inline bf16x2 stb2(real lo, real hi) {
    return (bf16x2){lo, hi};
}
static inline real ldb_lo(bf16x2 x) {
    return x.lo;
}
static inline real ldb_hi(bf16x2 x) {
    return x.hi;
}
static inline real canon(real x) {
    return x;
}
static inline real madd(real x, real y, real acc) {
    return acc + x * y;
}
/* The names of softmath.h, in double. */
static inline double vkm_exp(double x) {
    return exp(x);
}
static inline double vkm_exp_weight(double x) {
    return exp(x);
}
static inline double vkm_log(double x) {
    return log(x);
}
static inline double vkm_div(double x, double y) {
    return x / y;
}
static inline double vkm_sqrt(double x) {
    return sqrt(x);
}
static inline double vkm_rsqrt(double x) {
    return 1.0 / sqrt(x);
}
static inline double vkm_sin(double x) {
    return sin(x);
}
static inline double vkm_cos(double x) {
    return cos(x);
}
static inline double vkm_sigmoid(double x) {
    return x < 0 ? exp(x) / (1.0 + exp(x)) : 1.0 / (1.0 + exp(-x));
}
static inline double vkm_silu_of(double x, double s) {
    return x * s;
}
static inline double vkm_silu(double x) {
    return x * vkm_sigmoid(x);
}
static inline double vkm_softplus(double x) {
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}
#else
#include "ops/softmath.h"
/* A reference is compiled for several instruction sets; the loader takes the widest that the
 * machine has. No bit can change: products are never fused and sums never reordered
 * (CMakeLists.txt). */
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VKM_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define VKM_CLONES
#endif
#define VKM_REF(name) VKM_CLONES void vkm_ref_##name(const vkm_args_##name *a, vkm_part me)
typedef float real;
typedef uint16_t bf16;
static inline real ldb(bf16 x) {
    return vkm_from_bits((uint32_t)x << 16);
}
static inline bf16 stb(real x) {
    return (bf16)vkm_bf16z(x);
} /* rounds: contract 2 */
typedef uint32_t bf16x2; /* two neighbours in an operand's row */
static inline bf16x2 stb2(real lo, real hi) {
    return vkm_bf16_pair(lo, hi);
}
static inline real ldb_lo(bf16x2 x) {
    return vkm_bf16_lo(x);
}
static inline real ldb_hi(bf16x2 x) {
    return vkm_bf16_hi(x);
}
static inline real canon(real x) {
    return vkm_canon(x);
} /* every float store */
/* acc + x * y for bf16-valued x and y: the product is exact, so fused or not is the same. */
static inline real madd(real x, real y, real acc) {
    return acc + x * y;
}
#endif

/* A helper of references that has loops of its own: in the caller it takes the caller's instruction
 * set; by itself it would be compiled for the least. */
#define VKM_IN_REF static inline __attribute__((always_inline))

/* The halving tree of the lane-64 reduction (shaders/reduce.glsl); acc is used up. */
static inline real vkm_rule5_tree(real acc[64]) {
    for (int half = 32; half > 0; half /= 2)
        for (int l = 0; l < half; l++) acc[l] += acc[l + half];
    return acc[0];
}

static inline real *ref_f32(vkm_tensor t) {
    return (real *)(uintptr_t)t.addr;
}
static inline bf16 *ref_bf16(vkm_tensor t) {
    return (bf16 *)(uintptr_t)t.addr;
}
static inline uint32_t *ref_u32(vkm_tensor t) {
    return (uint32_t *)(uintptr_t)t.addr;
}

/* Units [lo, hi) of n belong to this thread. */
static inline uint64_t vkm_part_lo(vkm_part me, uint64_t n) {
    return n * me.i / me.n;
}
static inline uint64_t vkm_part_hi(vkm_part me, uint64_t n) {
    return n * (me.i + 1) / me.n;
}
#define FOR_PART(i, count)                                                                         \
    for (uint64_t i = vkm_part_lo(me, (count)), i##_hi = vkm_part_hi(me, (count)); i < i##_hi; i++)

/* For wrappers: a tensor must hold at least n elements; what the kernel may touch is exactly n. */
static inline vkm_tensor vkm_need(vkm_tensor t, uint64_t n, const char *kernel, const char *name) {
    VKM_BUG_ON(t.n < n, "%s: '%s' has %llu elements, %llu are needed", kernel, name,
               (unsigned long long)t.n, (unsigned long long)n);
    t.n = n;
    return t;
}

static inline uint32_t vkm_div_up(uint64_t n, uint32_t d) {
    return (uint32_t)((n + d - 1) / d);
}

/* A one-dimensional launch over n invocations, `local` of them a group; a grid dimension is at most
 * 65535, so long ones fold into y: the shader's flat index is vkm_flat_id(). */
static inline vkm_launch vkm_launch_flat(uint64_t n, uint32_t local, double work) {
    uint32_t groups = vkm_div_up(n, local), y = vkm_div_up(groups, 65535);
    return (vkm_launch){{vkm_div_up(groups, y ? y : 1), y, 1}, {local}, work};
}

/* A launch of units of n elements each (a row, a head, a column of a sequence): on GPUs a workgroup
 * of 64 for each, on CPU drivers an invocation (VKM_LANES of shaders/reduce.glsl). */
static inline vkm_launch vkm_launch_units(vkm_stream *s, uint64_t units, uint32_t n) {
    double work = 40.0 * (double)units * n;
    int gpu = vkm_dev_class_of(vkm_stream_dev(s)) == VKM_CLASS_GPU;
    vkm_launch how = gpu ? vkm_launch_flat(units * 64, 64, work) : vkm_launch_flat(units, 16, work);
    how.spec[1] = gpu ? 64 : 1;
    return how;
}

#endif
