/* The jobs of one response: what each sends to a box and what its result shows. A job is one row of
 * a table; a loophole channel is a row that runs in its own mode only. Called by grade.c. */
#ifndef VKM_JOBS_H
#define VKM_JOBS_H

#include "env/grade.h"

/* Runs the jobs that a response needs in a mode in a box, one after the other, and fills evidence,
 * infra_error, cpu_limited, wall_limited, cpu_s, wall_s and reason; with keep_output, output too.
 * An infrastructure error is retried once. Counts into stats. */
void vkm_jobs_run(vkm_box *box, const vkm_problem *problem, const vkm_mode *mode, bool keep_output,
                  const char *text, size_t n, vkm_grade *out, vkm_grader_stats *stats);

#endif
