/* The run's folder: config.json, steps.jsonl (again as metrics.csv and a TensorBoard event file),
 * rollouts.jsonl, eval.jsonl, and the table of steps on stderr. Lines are appended in one write
 * each; after a resume every log ends at the checkpoint's step, so that a run that was cut reads as
 * if it had not been. */
#ifndef VKM_RUNLOG_H
#define VKM_RUNLOG_H

#include "base/log.h"
#include "report/events.h"
#include "rl/config.h"

typedef struct vkm_runlog vkm_runlog;

typedef struct vkm_run_info { /* of the machine, for config.json */
    const char *backend, *device, *driver;
    const char *probes; /* JSON text of the device's probes; NULL for null, as on the cpu backend */
} vkm_run_info;

/* One number of a step. */
typedef struct vkm_metric {
    const char *name;   /* in steps.jsonl, the field's name such as "router/w_mean" */
    double value;       /* NaN is null */
    const char *text;   /* instead of value, such as a hash; NULL for a number */
    const char *column; /* head of its column in the table; NULL: not shown */
} vkm_metric;

/* That the run's folder may be made or gone on with: before anything slow is done. */
vkm_status vkm_runlog_check(const vkm_config *c, int fresh, vkm_err *err) VKM_MUST_CHECK;
/* A fresh run (resume_step < 0) makes c->output_dir, which must not exist or be empty, and writes
 * config.json; a resumed one cuts the logs behind resume_step. */
vkm_status vkm_runlog_open(const vkm_config *c, const vkm_run_info *info, int64_t resume_step,
                           vkm_runlog **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_runlog_close(vkm_runlog *r); /* accepts NULL */

/* Appends a line to steps.jsonl and its copies, shows a row of the table and moves the bar with its
 * ETA. */
vkm_status vkm_runlog_step(vkm_runlog *r, uint32_t step, const vkm_metric *m, size_t n,
                           vkm_err *err) VKM_MUST_CHECK;
/* Appends one JSON line without its line end to <log>.jsonl ("rollouts", "eval"); it begins with
 * {"step": N, as vkm_runlog_begin_line leaves it. */
vkm_status vkm_runlog_append(vkm_runlog *r, const char *log, const vkm_strbuf *line,
                             vkm_err *err) VKM_MUST_CHECK;
/* Appends to the event file what steps.jsonl has no place for; frees the event. */
vkm_status vkm_runlog_event(vkm_runlog *r, vkm_event *e, vkm_err *err) VKM_MUST_CHECK;
/* Starts a line: empties `line`, opens its object and writes "step". End with vkm_jw_end_obj. */
vkm_jw vkm_runlog_begin_line(vkm_strbuf *line, uint32_t step);

#endif
