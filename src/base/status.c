/* Owns error records and the abort path of programming errors. */
#define VKM_STATUS_C
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message is one line whatever a file made it quote, and commands no terminal. */
static void one_line(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F) *s = '?';
}

vkm_status vkm_fail(vkm_err *err, vkm_status status, const char *fmt, ...) {
    if (err->status == VKM_OK) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
        one_line(err->msg);
        err->status = status;
    }
    return err->status;
}

vkm_status vkm_fail_in(vkm_err *err, const char *fmt, ...) {
    char context[sizeof err->msg], old[sizeof err->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    memcpy(old, err->msg, sizeof old);
    if (snprintf(err->msg, sizeof err->msg, "%s: %s", context, old) < 0) err->msg[0] = 0;
    one_line(err->msg);
    return err->status;
}

void *vkm_calloc(size_t n, size_t size, const char *what, vkm_err *err) {
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p) vkm_fail(err, VKM_FAILED, "out of host memory for %s (%zu x %zu bytes)", what, n, size);
    return p;
}

_Noreturn void vkm_bug(const char *file, int line, const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "%s:%d: bug: ", file, line);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n");
    abort();
}
