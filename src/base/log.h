/* Log lines and progress on stderr; results never come this way. */
#ifndef VKM_LOG_H
#define VKM_LOG_H

#include "base/status.h"

typedef enum { VKM_LOG_QUIET, VKM_LOG_INFO, VKM_LOG_DEBUG } vkm_log_level;
extern vkm_log_level vkm_log_verbosity;

void vkm_info(const char *fmt, ...) VKM_PRINTF(1, 2);
void vkm_warn(const char *fmt, ...) VKM_PRINTF(1, 2);
void vkm_debug(const char *fmt, ...) VKM_PRINTF(1, 2);

/* Monotonic seconds. */
double vkm_now_s(void);

/* A progress bar with ETA on a terminal, a plain line every few seconds otherwise. */
typedef struct vkm_progress {
    const char *what;
    uint64_t total, before; /* before: was done when it began */
    double start_s, shown_s;
} vkm_progress;
void vkm_progress_begin(vkm_progress *p, const char *what, uint64_t before, uint64_t total);
void vkm_progress_at(vkm_progress *p, uint64_t done, const char *fmt, ...) VKM_PRINTF(3, 4);
void vkm_progress_end(vkm_progress *p);

#endif
