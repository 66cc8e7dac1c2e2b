/* A team of threads that does one thing after another, each split into some parts for each thread.
 * Who has done its own takes of the others', so that a thread that has lost its processor, or whose
 * parts are longer, is not waited for. Between two things the team spins for some microseconds and
 * then sleeps: kernels follow one another at once, while a machine that is busy with other work
 * gets its cores back. */
#ifndef VKM_TEAM_H
#define VKM_TEAM_H

#include <stdint.h>

#include "base/status.h"

typedef struct vkm_team vkm_team;

/* Part i of n. */
typedef void (*vkm_team_fn)(void *user, uint32_t i, uint32_t n);

/* Processors that this process may run on; at least 1. */
uint32_t vkm_cpu_count(void);

/* A team of n threads, 1 or more, the caller of vkm_team_run among them. Fails when the system has
 * no more threads to give. */
vkm_status vkm_team_new(uint32_t n, vkm_team **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_team_free(vkm_team *t); /* NULL is fine */

/* Runs fn(user, i, n) once for every i below n, `each` (1 or more) times the size of the team, in
 * any of its threads, and waits. One thread calls at a time; fn must not call it. */
void vkm_team_run(vkm_team *t, uint32_t each, vkm_team_fn fn, void *user);

#endif
