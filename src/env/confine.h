/* The walls of a box: bubblewrap's arguments, the seccomp program, and giving up root.
 * Called by sandbox.c only. */
#ifndef VKM_CONFINE_H
#define VKM_CONFINE_H

#include "env/sandbox.h"

#include <sys/types.h>

/* Starts the fork server in its box, with `sock` as its fd 3 and `errors` as its stderr. Returns
 * its pid, or -1 with the error set. */
pid_t vkm_confine_spawn(const vkm_sandbox_config *config, int slot, int sock, int errors,
                        vkm_err *err);

/* How to mend a box that does not start. */
const char *vkm_confine_mend(vkm_sandbox_kind kind);

/* Of the code that runs in a box: verdicts of another version are not reused. */
uint64_t vkm_confine_code_hash(void);

#endif
