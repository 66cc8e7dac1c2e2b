/* The runs of a sweep as processes: which are done, which go on, who runs now. */
#ifndef VKM_SWEEP_H
#define VKM_SWEEP_H

#include <sys/types.h>

#include "base/file.h"
#include "cli/cli.h"

enum { VKM_SWEEP_MOST_SEEDS = 256, VKM_SWEEP_MOST_JOBS = 64, VKM_SWEEP_NAME = 320 };

typedef struct vkm_sweep_run {
    char row[256];             /* of the arms table */
    char name[VKM_SWEEP_NAME]; /* of its folder */
    int64_t seed, max_steps;
    char dir[VKM_PATH_MAX];
    int evaluates;        /* the config evaluates at its end */
    pid_t pid;            /* 0: not running */
    int finished, failed; /* failed: the exit code */
    double start_s, seconds;
} vkm_sweep_run;

typedef struct vkm_sweep {
    char dir[VKM_PATH_MAX];
    vkm_sweep_run *runs;
    size_t n;
    vkm_cli_device device;
    int full;      /* a full evaluation behind each run */
    uint32_t jobs; /* at a time */
} vkm_sweep;

/* Writes the run's config beside its folder. A folder that is there must be of the same config,
 * else the sweep would mix results. */
vkm_status vkm_sweep_adopt(vkm_sweep *s, vkm_sweep_run *r, const vkm_config *c,
                           vkm_err *err) VKM_MUST_CHECK;
/* Sets s->jobs (0 wanted: one a core on the cpu backend, else 1) and the threads of each. */
void vkm_sweep_share(vkm_sweep *s, uint32_t wanted);
/* Runs what is not finished; a line on stdout for each run. A run that fails is told at the end; a
 * usage error of a run stops the sweep, since the others would meet it too. */
vkm_status vkm_sweep_run_all(vkm_sweep *s, vkm_err *err) VKM_MUST_CHECK;

#endif
