/* Owns the files of a run's folder except checkpoints and reports. */
#include "rl/runlog.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "report/csv.h"

#define ROWS_PER_HEAD 20
#define COLUMN        9

struct vkm_runlog {
    char dir[VKM_PATH_MAX];
    uint32_t first_step, max_steps, rows;
    double start_s;
    vkm_progress bar;
    vkm_strbuf line;
};

static const char *const logs[] = {"steps", "rollouts", "eval"};

static vkm_status log_path(const char *dir, const char *log, char out[VKM_PATH_MAX], vkm_err *err) {
    char name[64];
    snprintf(name, sizeof name, "%s.jsonl", log);
    return vkm_path_join(out, dir, name, err);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int folder_is_empty(const char *path) {
    DIR *d = opendir(path);
    int empty = 1;
    for (struct dirent *e; d && empty && (e = readdir(d));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    if (d) closedir(d);
    return empty;
}

static vkm_status write_config(const vkm_config *c, const vkm_run_info *info, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 2);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "version", vkm_version());
    vkm_jw_str(&w, "commit", vkm_commit());
    vkm_jw_str(&w, "backend", info->backend);
    vkm_jw_str(&w, "device", info->device);
    vkm_jw_str(&w, "driver", info->driver);
    if (info->probes)
        vkm_jw_raw(&w, "probes", info->probes);
    else
        vkm_jw_null(&w, "probes");
    vkm_jw_obj(&w, "config");
    vkm_config_write(c, &w);
    vkm_jw_end_obj(&w);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(&text, '\n');
    vkm_status st = vkm_strbuf_check(&text, "config.json", err);
    if (!st) st = vkm_path_join(path, c->output_dir, "config.json", err);
    if (!st) st = vkm_file_save(path, vkm_strbuf_str(&text), text.n, err);
    vkm_strbuf_free(&text);
    return st;
}

/* Cuts a log behind the last whole line of a step <= last_step. */
static vkm_status cut_log(const char *path, int64_t last_step, vkm_err *err) {
    FILE *f = fopen(path, "r");
    if (!f) return VKM_OK;
    char *line = NULL;
    size_t cap = 0;
    off_t keep = 0;
    ssize_t n;
    unsigned long long step;
    while ((n = getline(&line, &cap, f)) > 0 && line[n - 1] == '\n' &&
           sscanf(line, "{\"step\": %llu", &step) == 1 && step <= (unsigned long long)last_step)
        keep += n;
    free(line);
    (void)fclose(f);
    if (truncate(path, keep))
        return vkm_fail(err, VKM_FAILED, "%s: cannot be cut back to step %lld: %s", path,
                        (long long)last_step, strerror(errno));
    return VKM_OK;
}

vkm_status vkm_runlog_check(const vkm_config *c, int fresh, vkm_err *err) {
    if (!c->output_dir[0])
        return vkm_fail(err, VKM_USAGE,
                        "output_dir is missing: name the run's folder by --output_dir");
    if (fresh && vkm_dir_exists(c->output_dir) && !folder_is_empty(c->output_dir))
        return vkm_fail(err, VKM_USAGE,
                        "output_dir: %s exists and is not empty; take another name, or "
                        "--resume_from_checkpoint latest to go on with that run",
                        c->output_dir);
    return VKM_OK;
}

vkm_status vkm_runlog_open(const vkm_config *c, const vkm_run_info *info, int64_t resume_step,
                           vkm_runlog **out, vkm_err *err) {
    int fresh = resume_step < 0;
    if (vkm_runlog_check(c, fresh, err)) return err->status;
    if (vkm_dir_make(c->output_dir, err)) return err->status;
    vkm_runlog *r = vkm_calloc(1, sizeof *r, "the run's log", err);
    if (!r) return err->status;
    snprintf(r->dir, sizeof r->dir, "%s", c->output_dir);
    r->first_step = fresh ? 0 : (uint32_t)resume_step;
    r->max_steps = (uint32_t)c->max_steps;
    r->start_s = vkm_now_s();
    if (fresh) (void)write_config(c, info, err);
    for (size_t i = 0; i < VKM_COUNTOF(logs) && !fresh && !err->status; i++) {
        char path[VKM_PATH_MAX];
        if (!log_path(r->dir, logs[i], path, err)) (void)cut_log(path, resume_step, err);
    }
    if (!err->status && !vkm_csv_open(r->dir, resume_step, err))
        (void)!vkm_events_open(r->dir, resume_step, err);
    if (err->status) {
        free(r);
        return err->status;
    }
    vkm_progress_begin(&r->bar, "steps", r->first_step, r->max_steps);
    *out = r;
    return VKM_OK;
}

void vkm_runlog_close(vkm_runlog *r) {
    if (!r) return;
    vkm_progress_end(&r->bar);
    vkm_strbuf_free(&r->line);
    free(r);
}

/* ---- lines ----------------------------------------------------------------------------------- */

vkm_jw vkm_runlog_begin_line(vkm_strbuf *line, uint32_t step) {
    vkm_strbuf_clear(line);
    vkm_jw w = vkm_jw_begin(line, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_i64(&w, "step", step);
    return w;
}

vkm_status vkm_runlog_append(vkm_runlog *r, const char *log, const vkm_strbuf *line, vkm_err *err) {
    char path[VKM_PATH_MAX];
    if (vkm_strbuf_check(line, "a log line", err) || log_path(r->dir, log, path, err))
        return err->status;
    VKM_BUG_ON(strncmp(vkm_strbuf_str(line), "{\"step\": ", 9) != 0, "a line of %s", log);
    /* one write a line: a line that is cut by a crash is found and dropped by a resume */
    vkm_strbuf whole = {0};
    vkm_strbuf_add(&whole, line->data, line->n);
    vkm_strbuf_putc(&whole, '\n');
    vkm_status st = vkm_strbuf_check(&whole, "a log line", err);
    if (!st) st = vkm_file_append(path, whole.data, whole.n, err);
    vkm_strbuf_free(&whole);
    return st;
}

static void show_row(vkm_runlog *r, uint32_t step, const vkm_metric *m, size_t n) {
    char row[1024], head[1024];
    size_t a = 0, b = 0;
    if (vkm_log_verbosity < VKM_LOG_INFO) return;
    a += (size_t)snprintf(row, sizeof row, "%5u/%-5u", step, r->max_steps);
    b += (size_t)snprintf(head, sizeof head, "%5s%6s", "step", "");
    for (size_t i = 0; i < n; i++) {
        if (!m[i].column || a + 48 > sizeof row || b + 48 > sizeof head) continue;
        if (m[i].text)
            a += (size_t)snprintf(row + a, sizeof row - a, " %*.32s", COLUMN, m[i].text);
        else
            a += (size_t)snprintf(row + a, sizeof row - a, " %*.4g", COLUMN, m[i].value);
        b += (size_t)snprintf(head + b, sizeof head - b, " %*.32s", COLUMN, m[i].column);
    }
    if (r->rows++ % ROWS_PER_HEAD == 0) vkm_info("%s", head);
    vkm_info("%s", row);
}

vkm_status vkm_runlog_event(vkm_runlog *r, vkm_event *e, vkm_err *err) {
    return vkm_event_append(e, r->dir, err);
}

/* The step's numbers again, for programs that read tables or event files. */
static vkm_status write_copies(vkm_runlog *r, uint32_t step, const vkm_metric *m, size_t n,
                               vkm_err *err) {
    vkm_csv_row row = {0};
    vkm_event event = {.step = step};
    vkm_csv_number(&row, "step", step);
    for (size_t i = 0; i < n; i++) {
        if (m[i].text) {
            vkm_csv_text(&row, m[i].name, m[i].text);
            continue;
        }
        vkm_csv_number(&row, m[i].name, m[i].value);
        vkm_event_scalar(&event, m[i].name, m[i].value);
    }
    (void)!vkm_csv_append(&row, r->dir, err);
    (void)!vkm_runlog_event(r, &event, err);
    return err->status;
}

vkm_status vkm_runlog_step(vkm_runlog *r, uint32_t step, const vkm_metric *m, size_t n,
                           vkm_err *err) {
    vkm_jw w = vkm_runlog_begin_line(&r->line, step);
    for (size_t i = 0; i < n; i++)
        if (m[i].text)
            vkm_jw_str(&w, m[i].name, m[i].text);
        else
            vkm_jw_double(&w, m[i].name, m[i].value);
    vkm_jw_end_obj(&w);
    if (vkm_runlog_append(r, "steps", &r->line, err) || write_copies(r, step, m, n, err))
        return err->status;
    show_row(r, step, m, n);
    if (step < r->max_steps) vkm_progress_at(&r->bar, step, " ");
    return VKM_OK;
}
