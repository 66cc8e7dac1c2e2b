/* Status codes and the error record that every fallible function fills.
 * One polarity: VKM_OK == 0. What the world can cause returns a status and a message that says
 * what, where and how to mend it; what only a programmer can cause is VKM_BUG_ON. */
#ifndef VKM_STATUS_H
#define VKM_STATUS_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "vkmoe.h" /* vkm_status, vkm_err */

#define VKM_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define VKM_COUNTOF(a)   (sizeof(a) / sizeof((a)[0]))

/* Records the first error only (a later one is its consequence) and returns its status. */
vkm_status vkm_fail(vkm_err *err, vkm_status status, const char *fmt, ...) VKM_PRINTF(3, 4);

/* Puts "context: " before the message of a failed call, for callers that know more. */
vkm_status vkm_fail_in(vkm_err *err, const char *fmt, ...) VKM_PRINTF(2, 3);

/* Zeroed memory for n elements of size bytes; NULL with the error set when there is none or the
 * product overflows. Free with free(). */
void *vkm_calloc(size_t n, size_t size, const char *what, vkm_err *err);

_Noreturn void vkm_bug(const char *file, int line, const char *fmt, ...) VKM_PRINTF(3, 4);
#define VKM_BUG_ON(cond, ...)                                                                      \
    do {                                                                                           \
        if (__builtin_expect(!!(cond), 0)) vkm_bug(__FILE__, __LINE__, #cond ": " __VA_ARGS__);    \
    } while (0)

#if defined(__clang_analyzer__) && !defined(VKM_STATUS_C)
/* The analyzer sees one file at a time: this is what it must know of the functions above. */
#include <stdlib.h>
void vkm_analyzer_uses(const char *fmt, ...);
#define vkm_fail(err, st, ...) (vkm_analyzer_uses(__VA_ARGS__), (err)->status = (st))
static inline void *vkm_analyzer_calloc(size_t n, size_t size, vkm_err *err) {
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p) err->status = VKM_FAILED;
    return p;
}
#define vkm_calloc(n, size, what, err) vkm_analyzer_calloc(n, size, err)
#endif

#endif
