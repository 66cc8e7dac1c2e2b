/* Reads a run's folder: what the page shows of it, as JSON. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "report/lines.h"
#include "report/report.h"
#include "rl/stats.h"

enum {
    MOST_COLUMNS = 96,
    MOST_POINTS = 2000, /* of a curve */
    MOST_MODES = 64,
    W_BINS = 20,
    MOST_TEXT = 20000, /* bytes of a sample's text */
    MOST_CONFIG = 1 << 20
};

/* ---- steps ------------------------------------------------------------------------------------
 */

typedef struct curves {
    size_t n_columns, n_rows, room;
    char name[MOST_COLUMNS][64];
    double *value[MOST_COLUMNS];
    char hash[64];
    double last_step;
} curves;

static vkm_status make_room(curves *c, vkm_err *err) {
    if (c->n_rows < c->room) return VKM_OK;
    size_t room = c->room ? 2 * c->room : 256;
    for (size_t i = 0; i < c->n_columns; i++) {
        double *grown = realloc(c->value[i], room * sizeof *grown);
        if (!grown) return vkm_fail(err, VKM_FAILED, "no memory for the curves");
        c->value[i] = grown;
    }
    c->room = room;
    return VKM_OK;
}

static size_t column_of(curves *c, const char *name, vkm_err *err) {
    size_t i = 0;
    while (i < c->n_columns && strcmp(c->name[i], name) != 0) i++;
    if (i < c->n_columns || i == MOST_COLUMNS || strlen(name) >= sizeof c->name[0]) return i;
    if (!(c->value[i] = vkm_calloc(c->room, sizeof *c->value[i], "the curves", err)))
        return MOST_COLUMNS;
    for (size_t k = 0; k < c->room; k++) c->value[i][k] = NAN;
    snprintf(c->name[i], sizeof c->name[i], "%s", name);
    c->n_columns++;
    return i;
}

static vkm_status see_step(vkm_json *line, void *ctx, vkm_err *err) {
    curves *c = ctx;
    vkm_jv root = vkm_json_root(line);
    const char *hash = vkm_text_of(root, "weights_hash");
    double step = vkm_number_of(root, "step");
    if (make_room(c, err) || isnan(step)) goto done;
    for (size_t i = 0; i < c->n_columns; i++) c->value[i][c->n_rows] = NAN;
    for (vkm_jv m = vkm_json_first(root); m.v && !err->status; m = vkm_json_next(m)) {
        vkm_json_type type = vkm_json_typeof(m);
        if (type != VKM_JSON_NUMBER && type != VKM_JSON_NULL) continue;
        size_t i = column_of(c, vkm_json_key(m), err);
        if (i < c->n_columns) c->value[i][c->n_rows] = vkm_number_of(root, vkm_json_key(m));
    }
    if (hash) snprintf(c->hash, sizeof c->hash, "%s", hash);
    c->last_step = step;
    c->n_rows++;
done:
    vkm_json_free(line);
    return err->status;
}

static void write_steps(const curves *c, vkm_jw *w) {
    size_t stride = c->n_rows / MOST_POINTS + 1;
    vkm_jw_obj(w, "steps");
    vkm_jw_i64(w, "n", (int64_t)c->n_rows);
    vkm_jw_double(w, "last", c->last_step);
    vkm_jw_i64(w, "stride", (int64_t)stride);
    vkm_jw_str(w, "hash", c->hash[0] ? c->hash : NULL);
    vkm_jw_obj(w, "series");
    for (size_t i = 0; i < c->n_columns; i++) {
        vkm_jw_arr(w, c->name[i]);
        for (size_t k = 0; k < c->n_rows; k++)
            if (k % stride == 0 || k + 1 == c->n_rows) vkm_jw_double(w, NULL, c->value[i][k]);
        vkm_jw_end_arr(w);
    }
    vkm_jw_end_obj(w);
    vkm_jw_end_obj(w);
}

/* ---- rates ------------------------------------------------------------------------------------
 */

/* "name": [rate, low, high, k, n] with Wilson's 95% interval. */
static void write_rate(vkm_jw *w, const char *name, uint32_t k, uint32_t n) {
    double low, high;
    if (k > n) k = n;
    vkm_wilson(k, n, &low, &high);
    vkm_jw_arr(w, name);
    vkm_jw_double(w, NULL, n ? (double)k / n : NAN);
    vkm_jw_double(w, NULL, low);
    vkm_jw_double(w, NULL, high);
    vkm_jw_i64(w, NULL, k);
    vkm_jw_i64(w, NULL, n);
    vkm_jw_end_arr(w);
}

/* One state on one set of problems: what is about loopholes, about hint-free prompts, about all. */
static void write_state(vkm_jw *w, vkm_jv m) {
    vkm_jv loophole = vkm_json_find(m, "loophole"), free = vkm_json_find(m, "hint_free");
    vkm_jv modes = vkm_json_find(vkm_json_find(m, "by"), "mode");
    vkm_jw_obj(w, NULL);
    vkm_jw_str(w, "name", vkm_json_key(m));
    vkm_jw_i64(w, "n", vkm_count_of(m, "n"));
    write_rate(w, "hack", vkm_count_of(loophole, "hacked"), vkm_count_of(loophole, "n"));
    write_rate(w, "solve", vkm_count_of(loophole, "solved"), vkm_count_of(loophole, "n"));
    write_rate(w, "free", vkm_count_of(free, "solved"), vkm_count_of(free, "n"));
    write_rate(w, "compile", vkm_count_of(m, "compiled"), vkm_count_of(m, "n"));
    vkm_jw_double(w, "kl", vkm_number_of(m, "kl"));
    vkm_jw_obj(w, "modes");
    for (vkm_jv x = vkm_json_first(modes); x.v; x = vkm_json_next(x))
        write_rate(w, vkm_json_key(x), vkm_count_of(x, "hacked"), vkm_count_of(x, "n"));
    vkm_jw_end_obj(w);
    vkm_jw_end_obj(w);
}

/* [mean, low, high] */
static void write_paired(vkm_jw *w, const char *name, vkm_jv values) {
    vkm_jw_arr(w, name);
    for (vkm_jv v = vkm_json_first(values); v.v; v = vkm_json_next(v))
        vkm_jw_double(w, NULL, vkm_number(v));
    vkm_jw_end_arr(w);
}

static vkm_status see_eval(vkm_json *line, void *ctx, vkm_err *err) {
    vkm_jw *w = ctx;
    vkm_jv root = vkm_json_root(line), sets = vkm_json_find(root, "sets");
    vkm_jw_obj(w, NULL);
    vkm_jw_double(w, "step", vkm_number_of(root, "step"));
    vkm_jw_str(w, "deployed", vkm_text_of(root, "deployed"));
    vkm_jw_arr(w, "sets");
    for (vkm_jv s = vkm_json_first(sets); s.v; s = vkm_json_next(s)) {
        vkm_jv states = vkm_json_find(s, "states");
        vkm_jw_obj(w, NULL);
        vkm_jw_str(w, "name", vkm_json_key(s));
        vkm_jw_str(w, "markers", vkm_text_of(s, "markers"));
        write_paired(w, "drop", vkm_json_find(s, "drop"));
        write_paired(w, "specificity", vkm_json_find(s, "specificity"));
        vkm_jw_double(w, "localisation", vkm_number_of(s, "localisation"));
        vkm_jw_arr(w, "states");
        for (vkm_jv m = vkm_json_first(states); m.v; m = vkm_json_next(m)) write_state(w, m);
        vkm_jw_end_arr(w);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
    vkm_jw_end_obj(w);
    vkm_json_free(line);
    return err->status;
}

/* ---- rollouts ---------------------------------------------------------------------------------
 */

typedef struct rollouts {
    double from_step; /* of histogram and modes: the run's second half */
    uint32_t seen, w_bins[2][W_BINS], n_w[2], n_modes;
    struct {
        char name[48];
        uint32_t n, hacked, solved, compiled;
    } mode[MOST_MODES];
    struct {
        vkm_json *line;
        int rank; /* how well it fits; the later one of equals is taken */
    } sample[2];  /* honest, hack */
} rollouts;

static void count_mode(rollouts *r, vkm_jv x) {
    const char *name = vkm_text_of(x, "mode");
    size_t i = 0;
    while (name && i < r->n_modes && strcmp(r->mode[i].name, name) != 0) i++;
    if (!name || i == MOST_MODES || strlen(name) >= sizeof r->mode[0].name) return;
    if (i == r->n_modes) snprintf(r->mode[r->n_modes++].name, sizeof r->mode[0].name, "%s", name);
    r->mode[i].n++;
    r->mode[i].hacked += vkm_flag_of(x, "exploited") != 0;
    r->mode[i].solved += vkm_flag_of(x, "gt_correct") != 0;
    r->mode[i].compiled += vkm_flag_of(x, "can_compile") != 0;
}

static vkm_status see_rollout(vkm_json *line, void *ctx, vkm_err *err) {
    rollouts *r = ctx;
    vkm_jv x = vkm_json_root(line);
    int hack = vkm_flag_of(x, "exploited"), solved = vkm_flag_of(x, "gt_correct");
    int student = !vkm_flag_of(x, "teacher");
    const int rank[2] = {hack ? 0 : 1 + (student && !solved) + 2 * solved + (student && solved),
                         hack ? 1 + student : 0};
    double w = vkm_number_of(x, "w");
    r->seen++;
    if (vkm_number_of(x, "step") > r->from_step) {
        if (student && !vkm_flag_of(x, "infra_error")) count_mode(r, x);
        if (!isnan(w)) {
            r->n_w[hack]++;
            r->w_bins[hack][(int)fmin(fmax(w * W_BINS, 0), W_BINS - 1)]++;
        }
    }
    for (int i = 0; i < 2; i++) {
        if (!rank[i] || rank[i] < r->sample[i].rank) continue;
        vkm_json_free(r->sample[i].line);
        r->sample[i].line = line;
        r->sample[i].rank = rank[i];
        return err->status; /* a line is honest or a hack: it is owned once */
    }
    vkm_json_free(line);
    return err->status;
}

static void write_text(vkm_jw *w, const char *key, const char *text) {
    size_t n = text ? strnlen(text, MOST_TEXT + 1) : 0;
    if (!text)
        vkm_jw_null(w, key);
    else
        vkm_jw_strn(w, key, text, n > MOST_TEXT ? MOST_TEXT : n);
    if (n <= MOST_TEXT) return;
    char cut[80];
    snprintf(cut, sizeof cut, "%s_cut", key);
    vkm_jw_i64(w, cut, MOST_TEXT);
}

static void write_sample(const vkm_json *line, const char *kind, vkm_jw *w) {
    vkm_jv x = vkm_json_root(line);
    vkm_jw_obj(w, NULL);
    vkm_jw_str(w, "kind", kind);
    vkm_jw_obj(w, "fields");
    for (vkm_jv m = vkm_json_first(x); m.v; m = vkm_json_next(m)) {
        const char *key = vkm_json_key(m), *text = vkm_text_of(x, key);
        switch (vkm_json_typeof(m)) {
        case VKM_JSON_BOOL:
            vkm_jw_bool(w, key, vkm_flag_of(x, key));
            break;
        case VKM_JSON_NULL:
        case VKM_JSON_NUMBER:
            vkm_jw_double(w, key, vkm_number_of(x, key));
            break;
        case VKM_JSON_STRING:
            if (strcmp(key, "completion") != 0 && strcmp(key, "prompt_tail") != 0)
                vkm_jw_strn(w, key, text ? text : "", text ? strnlen(text, 200) : 0);
            break;
        default:
            break;
        }
    }
    vkm_jw_end_obj(w);
    write_text(w, "prompt_tail", vkm_text_of(x, "prompt_tail"));
    write_text(w, "completion", vkm_text_of(x, "completion"));
    vkm_jw_end_obj(w);
}

static void write_rollouts(const rollouts *r, vkm_jw *w) {
    static const char *const kinds[] = {"honest", "hack"}, *const sides[] = {"other", "hack"};
    vkm_jw_obj(w, "rollouts");
    vkm_jw_i64(w, "n", r->seen);
    vkm_jw_double(w, "from_step", r->from_step);
    vkm_jw_obj(w, "w");
    for (int side = 0; side < 2 && r->n_w[0] + r->n_w[1]; side++) {
        vkm_jw_arr(w, sides[side]);
        for (int i = 0; i < W_BINS; i++) vkm_jw_i64(w, NULL, r->w_bins[side][i]);
        vkm_jw_end_arr(w);
    }
    vkm_jw_end_obj(w);
    vkm_jw_arr(w, "modes");
    for (uint32_t i = 0; i < r->n_modes; i++) {
        vkm_jw_obj(w, NULL);
        vkm_jw_str(w, "name", r->mode[i].name);
        write_rate(w, "hack", r->mode[i].hacked, r->mode[i].n);
        write_rate(w, "solve", r->mode[i].solved, r->mode[i].n);
        write_rate(w, "compile", r->mode[i].compiled, r->mode[i].n);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
    vkm_jw_arr(w, "samples");
    for (int i = 0; i < 2; i++)
        if (r->sample[i].line) write_sample(r->sample[i].line, kinds[i], w);
    vkm_jw_end_arr(w);
    vkm_jw_end_obj(w);
}

/* ---- the run ----------------------------------------------------------------------------------
 */

/* config.json as it is, once it is known to be JSON. */
static vkm_status write_config(const char *dir, vkm_jw *w, vkm_err *err) {
    char path[VKM_PATH_MAX], *text = NULL;
    size_t n;
    vkm_json *doc = NULL;
    if (vkm_path_join(path, dir, "config.json", err)) return err->status;
    if (!vkm_file_exists(path))
        return vkm_fail(err, VKM_FAILED,
                        "%s: no run's folder: it has no config.json; name what --output_dir named",
                        dir);
    if (vkm_file_read(path, MOST_CONFIG, &text, &n, err)) return err->status;
    if (!vkm_json_parse(text, n, path, NULL, &doc, err) &&
        vkm_json_typeof(vkm_json_find(vkm_json_root(doc), "config")) != VKM_JSON_OBJECT)
        vkm_fail(err, VKM_FAILED, "%s: no run's config: it has no object 'config'", path);
    if (!err->status) vkm_jw_raw(w, "run", text);
    vkm_json_free(doc);
    free(text);
    return err->status;
}

vkm_status vkm_report_run(const char *dir, vkm_jw *w, vkm_err *err) {
    vkm_strbuf notes = {0};
    curves *c = vkm_calloc(1, sizeof *c, "the report", err);
    rollouts *r = vkm_calloc(1, sizeof *r, "the report", err);
    vkm_jw_obj(w, NULL);
    vkm_jw_str(w, "dir", dir);
    if (!c || !r || write_config(dir, w, err) ||
        vkm_lines_each(dir, "steps.jsonl", &notes, see_step, c, err))
        goto done;
    write_steps(c, w);
    vkm_jw_arr(w, "evals");
    if (vkm_lines_each(dir, "eval.jsonl", &notes, see_eval, w, err)) goto done;
    vkm_jw_end_arr(w);
    /* what `vkmoe eval` has left of the last step */
    char full[64];
    snprintf(full, sizeof full, "evals/step-%06.0f.json", c->last_step);
    vkm_jw_arr(w, "full");
    if (vkm_lines_each(dir, full, &notes, see_eval, w, err)) goto done;
    vkm_jw_end_arr(w);
    r->from_step = floor(c->last_step / 2);
    if (vkm_lines_each(dir, "rollouts.jsonl", &notes, see_rollout, r, err)) goto done;
    write_rollouts(r, w);
    vkm_jw_arr(w, "notes");
    if (notes.n) vkm_jw_raw(w, NULL, vkm_strbuf_str(&notes));
    vkm_jw_end_arr(w);
    w->out->failed |= notes.failed;
    vkm_jw_end_obj(w);
done:
    for (size_t i = 0; c && i < c->n_columns; i++) free(c->value[i]);
    for (int i = 0; r && i < 2; i++) vkm_json_free(r->sample[i].line);
    free(c);
    free(r);
    vkm_strbuf_free(&notes);
    return err->status;
}
