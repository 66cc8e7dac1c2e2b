/* A reward program of the user's own: started once and kept open, it gets one request a line on
 * stdin (wire.h) and answers one line each on stdout, in order. A time-out, an early end, a
 * malformed or wrong answer restarts it and asks once more; a second failure is an infrastructure
 * error of that response, never a reward. Called by reward.c. */
#ifndef VKM_COMMAND_H
#define VKM_COMMAND_H

#include "env/grade.h"

typedef struct vkm_command_config {
    const char *line; /* for /bin/sh -c; in the folder of this process, with PYTHONUNBUFFERED=1 */
    double timeout_s; /* from a request, or the answer before it, to its answer */
} vkm_command_config;

typedef struct vkm_command vkm_command;

/* The program is started when the first request is there. */
vkm_status vkm_command_open(const vkm_command_config *config, vkm_command **out,
                            vkm_err *err) VKM_MUST_CHECK;
/* Ends the program: its stdin is closed; after two seconds it is killed, with what it started. What
 * is not collected is lost. NULL is fine. */
void vkm_command_close(vkm_command *c);

/* Queues a completion of n bytes (copied). */
vkm_status vkm_command_submit(vkm_command *c, const vkm_problem *problem, const vkm_mode *mode,
                              const char *text, size_t n, vkm_err *err) VKM_MUST_CHECK;

/* Waits for the next result in the order of submission. Fails when the program failed
 * VKM_COMMAND_GIVE_UP times in a row without one good answer, or when nothing was submitted. */
enum { VKM_COMMAND_GIVE_UP = 12 };
vkm_status vkm_command_next(vkm_command *c, vkm_grade *out, vkm_err *err) VKM_MUST_CHECK;

#endif
