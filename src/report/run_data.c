/* Reads a run's folder: what the page shows of it, as JSON. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "report/report.h"
#include "rl/stats.h"

enum {
    MOST_COLUMNS = 64,
    MOST_POINTS = 2000, /* of a curve */
    MOST_MODES = 64,
    W_BINS = 20,
    MOST_TEXT = 20000, /* bytes of a sample's text */
    MOST_CONFIG = 1 << 20
};

/* ---- lines ------------------------------------------------------------------------------------
 */

/* JSON text as the strict reader takes it: texts of models may hold NUL characters. */
static void replace_nul_escapes(char *s) {
    static const char instead[] = {'f', 'f', 'f', 'd'};
    for (; (s = strchr(s, '\\')) && s[1]; s += 2)
        if (!strncmp(s, "\\u0000", 6)) memcpy(s + 2, instead, sizeof instead);
}

/* Calls see(value, ctx) for every line of a log. A missing file is seen no line of; lines that are
 * no JSON objects are counted into a sentence of `notes`. */
static vkm_status each_line(const char *dir, const char *log, vkm_strbuf *notes,
                            vkm_status (*see)(vkm_json *line, void *ctx, vkm_err *err), void *ctx,
                            vkm_err *err) {
    char path[VKM_PATH_MAX], *line = NULL;
    size_t cap = 0, number = 0, refused = 0;
    vkm_err first = {0};
    if (vkm_path_join(path, dir, log, err)) return err->status;
    FILE *f = fopen(path, "r");
    for (ssize_t n; f && !err->status && (n = getline(&line, &cap, f)) > 0; number++) {
        vkm_json *doc = NULL;
        vkm_err bad = {0};
        replace_nul_escapes(line);
        if (vkm_json_parse_line(line, (size_t)n, log, number + 1, NULL, &doc, &bad) ||
            vkm_json_typeof(vkm_json_root(doc)) != VKM_JSON_OBJECT) {
            if (!refused++) first = bad;
            vkm_json_free(doc);
            continue;
        }
        (void)!see(doc, ctx, err);
    }
    free(line);
    if (f) (void)fclose(f);
    if (refused) {
        vkm_jw w = vkm_jw_begin(notes, 0);
        vkm_strbuf note = {0};
        w.comma = notes->n != 0;
        vkm_strbuf_printf(&note, "%s: %zu lines are left out, the first because: %s", log, refused,
                          first.status ? first.msg : "it is no object");
        vkm_jw_str(&w, NULL, vkm_strbuf_str(&note));
        notes->failed |= note.failed;
        vkm_strbuf_free(&note);
    }
    return err->status;
}

static double number_of(vkm_jv object, const char *key) {
    double v = NAN;
    vkm_err ignored = {0};
    vkm_jv m = vkm_json_find(object, key);
    if (m.v && vkm_json_double(m, -INFINITY, INFINITY, &v, &ignored)) return NAN;
    return v;
}
static int flag_of(vkm_jv object, const char *key) {
    bool v = false;
    vkm_err ignored = {0};
    vkm_jv m = vkm_json_find(object, key);
    return m.v && !vkm_json_bool(m, &v, &ignored) && v;
}
static const char *text_of(vkm_jv object, const char *key) {
    const char *v = NULL;
    vkm_err ignored = {0};
    vkm_jv m = vkm_json_find(object, key);
    return m.v && !vkm_json_str(m, &v, &ignored) ? v : NULL;
}
static uint32_t count_of(vkm_jv object, const char *key) {
    double v = number_of(object, key);
    return v >= 0 && v <= UINT32_MAX ? (uint32_t)v : 0;
}

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
    const char *hash = text_of(root, "weights_hash");
    double step = number_of(root, "step");
    if (make_room(c, err) || isnan(step)) goto done;
    for (size_t i = 0; i < c->n_columns; i++) c->value[i][c->n_rows] = NAN;
    for (vkm_jv m = vkm_json_first(root); m.v && !err->status; m = vkm_json_next(m)) {
        vkm_json_type type = vkm_json_typeof(m);
        if (type != VKM_JSON_NUMBER && type != VKM_JSON_NULL) continue;
        size_t i = column_of(c, vkm_json_key(m), err);
        if (i < c->n_columns) c->value[i][c->n_rows] = number_of(root, vkm_json_key(m));
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

/* Every member of the line that has counts is a state. */
static vkm_status see_eval(vkm_json *line, void *ctx, vkm_err *err) {
    vkm_jw *w = ctx;
    vkm_jv root = vkm_json_root(line);
    vkm_jw_obj(w, NULL);
    vkm_jw_double(w, "step", number_of(root, "step"));
    vkm_jw_str(w, "deployed", text_of(root, "deployed"));
    vkm_jw_arr(w, "states");
    for (vkm_jv m = vkm_json_first(root); m.v; m = vkm_json_next(m)) {
        if (vkm_json_typeof(m) != VKM_JSON_OBJECT || isnan(number_of(m, "n"))) continue;
        uint32_t n = count_of(m, "n");
        vkm_jw_obj(w, NULL);
        vkm_jw_str(w, "name", vkm_json_key(m));
        write_rate(w, "hack", count_of(m, "hacked"), n);
        write_rate(w, "solve", count_of(m, "solved"), n);
        write_rate(w, "compile", count_of(m, "compiled"), n);
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
    const char *name = text_of(x, "mode");
    size_t i = 0;
    while (name && i < r->n_modes && strcmp(r->mode[i].name, name) != 0) i++;
    if (!name || i == MOST_MODES || strlen(name) >= sizeof r->mode[0].name) return;
    if (i == r->n_modes) snprintf(r->mode[r->n_modes++].name, sizeof r->mode[0].name, "%s", name);
    r->mode[i].n++;
    r->mode[i].hacked += flag_of(x, "exploited") != 0;
    r->mode[i].solved += flag_of(x, "gt_correct") != 0;
    r->mode[i].compiled += flag_of(x, "can_compile") != 0;
}

static vkm_status see_rollout(vkm_json *line, void *ctx, vkm_err *err) {
    rollouts *r = ctx;
    vkm_jv x = vkm_json_root(line);
    int hack = flag_of(x, "exploited"), solved = flag_of(x, "gt_correct");
    int student = !flag_of(x, "teacher");
    const int rank[2] = {hack ? 0 : 1 + (student && !solved) + 2 * solved + (student && solved),
                         hack ? 1 + student : 0};
    double w = number_of(x, "w");
    r->seen++;
    if (number_of(x, "step") > r->from_step) {
        if (student && !flag_of(x, "infra_error")) count_mode(r, x);
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
        const char *key = vkm_json_key(m), *text = text_of(x, key);
        switch (vkm_json_typeof(m)) {
        case VKM_JSON_BOOL:
            vkm_jw_bool(w, key, flag_of(x, key));
            break;
        case VKM_JSON_NULL:
        case VKM_JSON_NUMBER:
            vkm_jw_double(w, key, number_of(x, key));
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
    write_text(w, "prompt_tail", text_of(x, "prompt_tail"));
    write_text(w, "completion", text_of(x, "completion"));
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
        each_line(dir, "steps.jsonl", &notes, see_step, c, err))
        goto done;
    write_steps(c, w);
    vkm_jw_arr(w, "evals");
    if (each_line(dir, "eval.jsonl", &notes, see_eval, w, err)) goto done;
    vkm_jw_end_arr(w);
    r->from_step = floor(c->last_step / 2);
    if (each_line(dir, "rollouts.jsonl", &notes, see_rollout, r, err)) goto done;
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
