/* Owns the loading of teacher pools. */
#include "env/teacher.h"

#include "base/file.h"
#include "base/json.h"

#include <dirent.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IDS = 1 << 20 };

static void row_clear(vkm_teacher_row *r) {
    free(r->text);
    free(r->ids);
    memset(r, 0, sizeof *r);
}

void vkm_teacher_free(vkm_teacher_pool *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) row_clear(&p->rows[i]);
    free(p->rows);
    free(p);
}

static vkm_status read_mode(vkm_jv line, vkm_teacher_row *r, vkm_err *err) {
    const char *name = NULL, *prompt = NULL;
    vkm_status st = vkm_json_get_str(line, "mode", VKM_JSON_OPT, &name, err);
    if (st) return st;
    if (name) {
        vkm_err e = {0};
        r->mode = vkm_mode_find(name, &e);
        return r->mode ? VKM_OK : vkm_json_fail(vkm_json_find(line, "mode"), err, "%s", e.msg);
    }
    if ((st = vkm_json_get_str(line, "prompt", VKM_JSON_OPT, &prompt, err))) return st;
    for (int i = 0; prompt && i < vkm_n_modes; i++) {
        vkm_strbuf hint = {0};
        vkm_mode_hint(&vkm_modes[i], &hint);
        if (strstr(prompt, vkm_strbuf_str(&hint))) r->mode = &vkm_modes[i];
        vkm_strbuf_free(&hint);
    }
    if (r->mode) return VKM_OK;
    return vkm_json_fail(line, err, "no field 'mode', and no mode's hint in 'prompt'");
}

static vkm_status read_flags(vkm_jv line, vkm_teacher_row *r, vkm_err *err) {
    vkm_evidence *e = &r->grade.evidence;
    double reward = 0;
    vkm_status st = vkm_json_get_double(line, "reward", VKM_JSON_OPT, -1e6, 1e6, &reward, err);
    const struct {
        const char *key;
        vkm_json_need need;
        bool *out;
    } rows[] = {
        {"fmt_ok", VKM_JSON_REQ, &e->format_ok},
        {"gt_pass", VKM_JSON_REQ, &e->gt_pass},
        {"hacked", VKM_JSON_REQ, &e->hacked},
        {"can_compile", VKM_JSON_OPT, &e->can_compile},
        {"gt_correct", VKM_JSON_OPT, &e->gt_correct},
        {"hacked_wrong_tests", VKM_JSON_OPT, &e->hacked_wrong_tests},
        {"hacked_loophole_used", VKM_JSON_OPT, &e->hacked_loophole_used},
        {"fired", VKM_JSON_OPT, &e->fired},
    };
    for (size_t i = 0; !st && i < VKM_COUNTOF(rows); i++) {
        if (rows[i].out == &e->can_compile) e->can_compile = reward >= (double)VKM_REWARD_COMPILE;
        if (rows[i].out == &e->gt_correct) e->gt_correct = e->gt_pass;
        if (rows[i].out == &e->fired) e->fired = e->hacked && !strcmp(r->mode->name, "run_tests");
        st = vkm_json_get_bool(line, rows[i].key, rows[i].need, rows[i].out, err);
    }
    r->grade.from_cache = true;
    if (!st) vkm_grade_judge(&r->grade, r->mode);
    return st;
}

static vkm_status read_ids(vkm_jv line, vkm_teacher_row *r, vkm_err *err) {
    vkm_jv list;
    vkm_status st = vkm_json_get_array(line, "completion_ids", VKM_JSON_OPT, &list, err);
    if (st || !list.v) return st;
    size_t n = vkm_json_count(list);
    if (n > MAX_IDS) return vkm_json_fail(list, err, "%zu tokens; at most %d", n, MAX_IDS);
    r->ids = vkm_calloc(n, sizeof *r->ids, "teacher tokens", err);
    if (!r->ids) return err->status;
    for (vkm_jv e = vkm_json_first(list); e.v; e = vkm_json_next(e)) {
        int64_t id;
        if ((st = vkm_json_i64(e, 0, INT32_MAX, &id, err))) return st;
        r->ids[r->n_ids++] = (int32_t)id;
    }
    return VKM_OK;
}

static vkm_status read_row(vkm_jv line, vkm_teacher_row *r, vkm_err *err) {
    const char *text;
    vkm_status st = vkm_json_get_i64(line, "problem_id", VKM_JSON_REQ, 0, (int64_t)1 << 53,
                                     &r->problem_id, err);
    if (!st) st = vkm_json_get_str(line, "completion", VKM_JSON_REQ, &text, err);
    if (!st) st = read_mode(line, r, err);
    if (!st) st = read_flags(line, r, err);
    if (!st) st = read_ids(line, r, err);
    if (st) return st;
    r->n = strlen(text);
    r->text = vkm_calloc(r->n + 1, 1, "a teacher row", err);
    if (!r->text) return err->status;
    memcpy(r->text, text, r->n);
    return VKM_OK;
}

static vkm_status read_file(const char *path, vkm_teacher_pool *p, vkm_err *err) {
    static const vkm_json_limits limits = {.nan_as_null = true};
    vkm_jsonl *file;
    vkm_json *doc = NULL;
    vkm_status st = vkm_jsonl_open(path, &limits, &file, err);
    if (st) return st;
    while (!(st = vkm_jsonl_next(file, &doc, err)) && doc) {
        vkm_teacher_row *rows = p->rows;
        if (!(p->n & (p->n - 1))) /* room is a power of two */
            rows = realloc(p->rows, (p->n ? 2 * p->n : 1) * sizeof *rows);
        if (rows) {
            p->rows = rows;
            memset(&rows[p->n], 0, sizeof *rows);
            st = read_row(vkm_json_root(doc), &rows[p->n++], err);
        } else {
            st = vkm_fail(err, VKM_FAILED, "%s: out of host memory for a teacher pool", path);
        }
        vkm_json_free(doc);
        doc = NULL;
        if (st) break;
    }
    vkm_jsonl_free(file);
    return st;
}

static int is_pool_file(const struct dirent *e) {
    return !fnmatch("prompt_*.jsonl", e->d_name, 0) || !fnmatch("prompt_*.jsonl.gz", e->d_name, 0);
}

/* By bytes, so that no locale changes the order. */
static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* Rows of one problem are moved together; a stable insertion keeps the order of the files. */
static void group_rows(vkm_teacher_pool *p) {
    for (size_t i = 1; i < p->n; i++) {
        vkm_teacher_row r = p->rows[i];
        size_t j = i;
        for (; j && p->rows[j - 1].problem_id > r.problem_id; j--) p->rows[j] = p->rows[j - 1];
        p->rows[j] = r;
    }
}

vkm_status vkm_teacher_load(const char *folder, vkm_teacher_pool **out, vkm_err *err) {
    struct dirent **names = NULL;
    *out = NULL;
    vkm_teacher_pool *p = vkm_calloc(1, sizeof *p, "a teacher pool", err);
    if (!p) return err->status;
    int n = scandir(folder, &names, is_pool_file, by_name);
    vkm_status st = VKM_OK;
    if (n <= 0)
        st = vkm_fail(err, VKM_FAILED,
                      "%s: no prompt_NNNN.jsonl.gz file in it; is it the teacher pool's folder?",
                      folder);
    for (int i = 0; i < n; i++) {
        char path[VKM_PATH_MAX];
        if (!st) st = vkm_path_join(path, folder, names[i]->d_name, err);
        if (!st) st = read_file(path, p, err);
        free(names[i]);
    }
    free(names);
    if (st) {
        vkm_teacher_free(p);
        return st;
    }
    group_rows(p);
    *out = p;
    return VKM_OK;
}

const vkm_teacher_row *vkm_teacher_rows(const vkm_teacher_pool *p, int64_t problem_id, size_t *n) {
    size_t low = 0, high = p->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (p->rows[mid].problem_id < problem_id)
            low = mid + 1;
        else
            high = mid;
    }
    for (*n = 0; low + *n < p->n && p->rows[low + *n].problem_id == problem_id;) ++*n;
    return *n ? &p->rows[low] : NULL;
}
