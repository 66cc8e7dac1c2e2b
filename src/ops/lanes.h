/* Compiles one text for several instruction sets: the includer defines LANES_BODY, the header that
 * holds the functions, each named LANES_FN(name) and marked LANES_TARGET. Calls choose at run time:
 * LANES_CALL(name)(...). Lanes are outputs, so their number never changes a bit.
 *
 * LANES_MADD(acc, x, y) = acc + x y, x of lanes, y a number: for factors that are bf16 values,
 * whose product is exact, so that it does not matter whether it is fused. LANES_MADD1: of numbers,
 * for loops that become lanes. Where the instruction set has it:
 * LANES_MAX(x, y) = x > y ? x : y; LANES_WIDEN(to, from): LANES bf16 values become numbers.
 *
 * Vectors are the compilers' own (gcc and clang): they are cut to the machine's width before
 * functions are cloned, so target_clones would leave them at the narrowest width. */
#ifndef VKM_LANES_H
#define VKM_LANES_H
#if defined(__x86_64__) && !defined(VKM_TWIN64)
#include "ops/transpose.h"

#define LANES                  16
#define LANES_TRANSPOSED       1
#define LANES_FN(name)         name##_avx512
#define LANES_TARGET           __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define LANES_MADD(acc, x, y)  ((vec)_mm512_fmadd_ps((__m512)(x), _mm512_set1_ps(y), (__m512)(acc)))
#define LANES_MADD1(acc, x, y) __builtin_fmaf(x, y, acc)
#define LANES_MAX(x, y)        _mm512_max_ps((__m512)(x), (__m512)(y))
#define LANES_WIDEN(to, from)                                                                      \
    _mm512_storeu_si512(to, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(            \
                                                  (const __m256i *)(const void *)(from))),         \
                                              16))
#include "ops/lanes_math.h"
#include LANES_BODY
#undef LANES
#undef LANES_FN
#undef LANES_TARGET
#undef LANES_MADD
#undef LANES_MADD1
#undef LANES_MAX
#undef LANES_WIDEN

#define LANES                  8
#define LANES_FN(name)         name##_avx2
#define LANES_TARGET           __attribute__((target("avx2,fma")))
#define LANES_MADD(acc, x, y)  ((vec)_mm256_fmadd_ps((__m256)(x), _mm256_set1_ps(y), (__m256)(acc)))
#define LANES_MADD1(acc, x, y) __builtin_fmaf(x, y, acc)
#define LANES_MAX(x, y)        _mm256_max_ps((__m256)(x), (__m256)(y))
#define LANES_WIDEN(to, from)                                                                      \
    _mm256_storeu_si256(                                                                           \
        (__m256i *)(void *)(to),                                                                   \
        _mm256_slli_epi32(                                                                         \
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(from))), 16))
#include "ops/lanes_math.h"
#include LANES_BODY
#undef LANES
#undef LANES_FN
#undef LANES_TARGET
#undef LANES_MADD
#undef LANES_MADD1
#undef LANES_MAX
#undef LANES_WIDEN

#undef LANES_TRANSPOSED

/* 2, 1 or 0, at most `limit`. */
static inline int lanes_isa(int limit) {
    int isa = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? 1 : 0;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        isa = 2;
    return isa < limit ? isa : limit;
}
#define LANES_CALL(name)                                                                           \
    (lanes_isa(vkm_lanes_limit) == 2   ? name##_avx512                                             \
     : lanes_isa(vkm_lanes_limit) == 1 ? name##_avx2                                               \
                                       : name##_any)

#else
#define LANES_CALL(name) name##_any
#endif

#define LANES          8
#define LANES_FN(name) name##_any
#define LANES_TARGET
#define LANES_MADD(acc, x, y)  ((acc) + (x) * (y))
#define LANES_MADD1(acc, x, y) ((acc) + (x) * (y))
#include "ops/lanes_math.h"
#include LANES_BODY
#undef LANES
#undef LANES_FN
#undef LANES_TARGET
#undef LANES_MADD
#undef LANES_MADD1

#endif
