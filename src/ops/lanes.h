/* Compiles one text for several instruction sets: the includer defines LANES_BODY, the header that
 * holds the functions, each named LANES_FN(name) and marked LANES_TARGET. Calls choose at run time:
 * LANES_CALL(name)(...). Lanes are outputs, so their number never changes a bit.
 *
 * Vectors are the compilers' own (gcc and clang): they are cut to the machine's width before
 * functions are cloned, so target_clones would leave them at the narrowest width. */
#ifndef VKM_LANES_H
#define VKM_LANES_H
#if defined(__x86_64__) && !defined(VKM_TWIN64)

#define LANES          16
#define LANES_FN(name) name##_avx512
#define LANES_TARGET   __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "ops/lanes_math.h"
#include LANES_BODY
#undef LANES
#undef LANES_FN
#undef LANES_TARGET

#define LANES          8
#define LANES_FN(name) name##_avx2
#define LANES_TARGET   __attribute__((target("avx2")))
#include "ops/lanes_math.h"
#include LANES_BODY
#undef LANES
#undef LANES_FN
#undef LANES_TARGET

/* 2, 1 or 0, at most `limit`. */
static inline int lanes_isa(int limit) {
    int isa = __builtin_cpu_supports("avx2") ? 1 : 0;
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
#include "ops/lanes_math.h"
#include LANES_BODY
#undef LANES
#undef LANES_FN
#undef LANES_TARGET

#endif
