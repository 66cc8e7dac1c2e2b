/* Owns what the user sees on stderr while work goes on. */
#include "base/log.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

vkm_log_level vkm_log_verbosity = VKM_LOG_INFO;
static int bar_is_open;

static void line(const char *prefix, const char *fmt, va_list ap) {
    if (bar_is_open) fputs("\r\033[K", stderr);
    bar_is_open = 0;
    fputs(prefix, stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

#define LOG_FN(name, level, prefix)                                                                \
    void name(const char *fmt, ...) {                                                              \
        if (vkm_log_verbosity < (level)) return;                                                   \
        va_list ap;                                                                                \
        va_start(ap, fmt);                                                                         \
        line(prefix, fmt, ap);                                                                     \
        va_end(ap);                                                                                \
    }
LOG_FN(vkm_info, VKM_LOG_INFO, "")
LOG_FN(vkm_warn, VKM_LOG_QUIET, "warning: ")
LOG_FN(vkm_debug, VKM_LOG_DEBUG, "debug: ")

double vkm_now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void vkm_progress_begin(vkm_progress *p, const char *what, uint64_t before, uint64_t total) {
    *p = (vkm_progress){what, total, before, vkm_now_s(), vkm_now_s()};
}

void vkm_progress_at(vkm_progress *p, uint64_t done, const char *fmt, ...) {
    double now = vkm_now_s();
    int tty = isatty(STDERR_FILENO);
    if (vkm_log_verbosity < VKM_LOG_INFO || now - p->shown_s < (tty ? 0.1 : 5.0)) return;
    p->shown_s = now;
    double left_s = done > p->before ? (now - p->start_s) * (double)(p->total - done) /
                                           (double)(done - p->before)
                                     : 0;
    if (tty) {
        char bar[31];
        int filled = p->total ? (int)(30 * done / p->total) : 0;
        for (int i = 0; i < 30; i++) bar[i] = i < filled ? '#' : '.';
        bar[30] = 0;
        fprintf(stderr, "\r\033[K%s [%s] ", p->what, bar);
    } else {
        fprintf(stderr, "%s ", p->what);
    }
    fprintf(stderr, "%llu/%llu, %.0f s left ", (unsigned long long)done,
            (unsigned long long)p->total, left_s);
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (!tty) fputc('\n', stderr);
    bar_is_open = tty;
    fflush(stderr);
}

void vkm_progress_end(vkm_progress *p) {
    if (bar_is_open) fputs("\r\033[K", stderr);
    bar_is_open = 0;
    p->total = 0;
}
