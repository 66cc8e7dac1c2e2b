/* What a run writes of a step and of an evaluation: steps.jsonl, rollouts.jsonl, eval.jsonl. */
#ifndef VKM_REPORT_LINES_H
#define VKM_REPORT_LINES_H

#include "base/phase.h"
#include "rl/eval.h"
#include "rl/runlog.h"

/* The step just done (r->state.step counts it), and where its seconds went: its metrics, and one
 * line a rollout. */
vkm_status vkm_report_step(const vkm_run *r, const vkm_rollout *x, uint32_t n,
                           const vkm_step_result *result, const char *hash,
                           const double seconds[VKM_N_PHASES], vkm_runlog *log,
                           vkm_err *err) VKM_MUST_CHECK;
/* A rollout's problem, grade and texts, as members of the object that w has open. */
void vkm_rollout_write(const vkm_run *r, const vkm_rollout *x, vkm_jw *w);
vkm_status vkm_report_eval(const vkm_run *r, const vkm_eval_result *e, vkm_runlog *log,
                           vkm_err *err) VKM_MUST_CHECK;

#endif
