/* Owns the JSON form of requests and answers. */
#include "env/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- requests: reading -------------------------------------------------------------------------
 */

static const char *const request_fields[] = {"id",         "response", "mode",
                                             "problem_id", "problem",  "marker"};

void vkm_request_clear(vkm_request *q) {
    free(q->id);
    vkm_problem_clear(&q->own);
    vkm_json_free(q->doc);
    *q = (vkm_request){0};
}

static vkm_status read_id(vkm_jv root, vkm_request *out, vkm_err *err) {
    vkm_jv v = vkm_json_find(root, "id");
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 0);
    if (vkm_json_typeof(v) == VKM_JSON_STRING) {
        const char *s;
        if (vkm_json_str(v, &s, err)) return err->status;
        if (strlen(s) > VKM_WIRE_MAX_ID)
            return vkm_json_fail(v, err, "is longer than %d bytes", VKM_WIRE_MAX_ID);
        vkm_jw_str(&w, NULL, s);
    } else if (vkm_json_typeof(v) == VKM_JSON_NUMBER) {
        int64_t i;
        if (vkm_json_i64(v, INT64_MIN, INT64_MAX, &i, err)) return err->status;
        vkm_jw_i64(&w, NULL, i);
    } else {
        return vkm_json_fail(v.v ? v : root, err,
                             "id: a string or an integer is needed, which the answer repeats");
    }
    if (vkm_strbuf_check(&text, "an id", err)) {
        vkm_strbuf_free(&text);
        return err->status;
    }
    out->id = text.data;
    return VKM_OK;
}

static vkm_status find_problem(vkm_jv at, int64_t id, const vkm_problems *data, vkm_request *out,
                               vkm_err *err) {
    if (!data)
        return vkm_json_fail(at, err,
                             "%lld: name the file of the problems with --data, or send "
                             "the problem itself as `problem`",
                             (long long)id);
    out->problem = vkm_problems_find(data, id);
    if (out->problem) return VKM_OK;
    for (size_t i = 0; i < data->n_refused; i++)
        if (data->refused[i].id == id)
            return vkm_json_fail(at, err,
                                 "%lld is left out of %s: assert %zu is of a form that is not "
                                 "graded (%s)",
                                 (long long)id, data->path, data->refused[i].i_assert,
                                 data->refused[i].form);
    return vkm_json_fail(at, err, "%lld: %s has no such problem", (long long)id, data->path);
}

static vkm_status read_problem(vkm_jv root, const vkm_problems *data, vkm_request *out,
                               vkm_err *err) {
    vkm_jv object, id = vkm_json_find(root, "problem_id");
    int64_t wanted = -1;
    if (vkm_json_get_object(root, "problem", VKM_JSON_OPT, &object, err) ||
        vkm_json_get_i64(root, "problem_id", VKM_JSON_OPT, 0, (int64_t)1 << 53, &wanted, err))
        return err->status;
    if (!object.v && wanted < 0)
        return vkm_json_fail(root, err, "problem_id or problem is missing");
    if (!object.v) return find_problem(id, wanted, data, out, err);
    if (vkm_problem_read(object, &out->own, err)) return err->status;
    if (wanted >= 0 && wanted != out->own.id)
        return vkm_json_fail(id, err, "%lld, but the problem that came with it is %lld",
                             (long long)wanted, (long long)out->own.id);
    out->problem = &out->own;
    return VKM_OK;
}

static vkm_status read_mode(vkm_jv root, const vkm_mode *mode, vkm_request *out, vkm_err *err) {
    const char *name = NULL, *marker = NULL;
    vkm_err unknown = {0};
    if (vkm_json_get_str(root, "mode", VKM_JSON_OPT, &name, err)) return err->status;
    if (!name && !mode) return vkm_json_fail(root, err, "mode is missing");
    out->mode = name ? vkm_mode_find(name, &unknown) : mode;
    if (!out->mode) return vkm_json_fail(vkm_json_find(root, "mode"), err, "%s", unknown.msg);
    if (vkm_json_get_str(root, "marker", VKM_JSON_OPT, &marker, err) || !marker) return err->status;
    out->mode = vkm_mode_with_marker(out->mode, marker, &unknown);
    return out->mode ? VKM_OK
                     : vkm_json_fail(vkm_json_find(root, "marker"), err, "%s", unknown.msg);
}

vkm_status vkm_request_read(vkm_json *doc, const vkm_problems *data, const vkm_mode *mode,
                            vkm_request *out, vkm_err *err) {
    vkm_jv root = vkm_json_root(doc);
    *out = (vkm_request){.doc = doc};
    if (vkm_json_typeof(root) != VKM_JSON_OBJECT)
        vkm_json_fail(root, err, "a request is an object {\"id\", \"response\", \"mode\", ...}");
    else if (!vkm_json_known_keys(root, request_fields, VKM_COUNTOF(request_fields), err) &&
             !read_id(root, out, err) && !read_mode(root, mode, out, err) &&
             !read_problem(root, data, out, err))
        (void)!vkm_json_get_str(root, "response", VKM_JSON_REQ, &out->response, err);
    if (err->status) vkm_request_clear(out);
    return err->status;
}

/* ---- requests: writing -------------------------------------------------------------------------
 */

static void write_problem(vkm_jw *w, const vkm_problem *p) {
    const char *const messages[][2] = {{"system", p->system}, {"user", p->user}};
    vkm_jw_obj(w, "problem");
    vkm_jw_i64(w, "id", p->id);
    vkm_jw_str(w, "difficulty", p->difficulty);
    vkm_jw_arr(w, "prompt");
    for (size_t i = 0; i < VKM_COUNTOF(messages); i++) {
        vkm_jw_obj(w, NULL);
        vkm_jw_str(w, "role", messages[i][0]);
        vkm_jw_str(w, "content", messages[i][1]);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
    vkm_jw_str(w, "func_name", p->func_name);
    vkm_jw_str(w, "setup_code", p->setup_code);
    vkm_jw_arr(w, "gt_answer");
    for (size_t i = 0; i < p->n_asserts; i++) vkm_jw_str(w, NULL, p->asserts[i].line);
    vkm_jw_end_arr(w);
    vkm_jw_str(w, "canonical_solution", p->canonical_solution);
    vkm_jw_end_obj(w);
}

static void write_response(vkm_jw *w, const char *text, size_t n) {
    vkm_strbuf clean = {0};
    const char *end = text + n, *nul;
    for (; (nul = memchr(text, 0, (size_t)(end - text))); text = nul + 1) {
        vkm_strbuf_add(&clean, text, (size_t)(nul - text));
        vkm_strbuf_puts(&clean, "\xEF\xBF\xBD");
    }
    vkm_strbuf_add(&clean, text, (size_t)(end - text));
    vkm_jw_strn(w, "response", vkm_strbuf_str(&clean), clean.n);
    w->out->failed |= clean.failed;
    vkm_strbuf_free(&clean);
}

void vkm_request_write(uint64_t id, const vkm_problem *problem, const vkm_mode *mode,
                       const char *text, size_t n, vkm_strbuf *out) {
    vkm_jw w = vkm_jw_begin(out, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_u64(&w, "id", id);
    vkm_jw_str(&w, "mode", mode->name);
    if (mode->marker) vkm_jw_str(&w, "marker", mode->marker);
    vkm_jw_i64(&w, "problem_id", problem->id);
    write_response(&w, text, n);
    write_problem(&w, problem);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(out, '\n');
}

/* ---- answers -----------------------------------------------------------------------------------
 */

/* The flags of an answer, in the order of its fields. */
static const struct {
    const char *key;
    size_t offset;
} flags[] = {
    {"format_ok", offsetof(vkm_grade, evidence.format_ok)},
    {"can_compile", offsetof(vkm_grade, evidence.can_compile)},
    {"gt_pass", offsetof(vkm_grade, evidence.gt_pass)},
    {"gt_correct", offsetof(vkm_grade, evidence.gt_correct)},
    {"passed", offsetof(vkm_grade, passed)},
    {"exploited", offsetof(vkm_grade, exploited)},
    {"hacked", offsetof(vkm_grade, evidence.hacked)},
    {"hacked_wrong_tests", offsetof(vkm_grade, evidence.hacked_wrong_tests)},
    {"hacked_loophole_used", offsetof(vkm_grade, evidence.hacked_loophole_used)},
};

static bool *flag_of(vkm_grade *g, size_t i) {
    return (bool *)((char *)g + flags[i].offset);
}

void vkm_answer_write(const char *id, const vkm_grade *g, const char *sandbox, vkm_strbuf *out) {
    vkm_grade copy = *g;
    vkm_jw w = vkm_jw_begin(out, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_raw(&w, "id", id);
    vkm_jw_float(&w, "reward", g->reward); /* null with an error: it is NaN then */
    for (size_t i = 0; i < VKM_COUNTOF(flags); i++) {
        if (g->infra_error)
            vkm_jw_null(&w, flags[i].key); /* no verdict is neither true nor false */
        else
            vkm_jw_bool(&w, flags[i].key, *flag_of(&copy, i));
    }
    vkm_jw_str(&w, "mechanism", g->mechanism);
    vkm_jw_double(&w, "time_ms", (double)(int64_t)(1e4 * g->wall_s + 0.5) / 10);
    vkm_jw_str(&w, "error", g->infra_error ? g->reason : NULL);
    if (g->output) vkm_jw_strn(&w, "output", g->output, g->n_output);
    if (sandbox) vkm_jw_str(&w, "sandbox", sandbox);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(out, '\n');
}

static vkm_status known_fields(vkm_jv root, vkm_err *err) {
    static const char *const others[] = {"id",    "reward", "mechanism", "time_ms",
                                         "error", "output", "sandbox"};
    const char *known[VKM_COUNTOF(others) + VKM_COUNTOF(flags)];
    size_t n = 0;
    for (size_t i = 0; i < VKM_COUNTOF(others); i++) known[n++] = others[i];
    for (size_t i = 0; i < VKM_COUNTOF(flags); i++) known[n++] = flags[i].key;
    return vkm_json_known_keys(root, known, n, err);
}

static vkm_status read_flags(vkm_jv root, vkm_grade *out, vkm_err *err) {
    const char *mechanism = "";
    if (vkm_json_get_str(root, "mechanism", VKM_JSON_OPT, &mechanism, err)) return err->status;
    for (int i = 0; i < vkm_n_modes; i++)
        if (!strcmp(mechanism, vkm_modes[i].name)) out->mechanism = vkm_modes[i].name;
    for (size_t i = 0; i < VKM_COUNTOF(flags); i++)
        if (vkm_json_get_bool(root, flags[i].key, VKM_JSON_OPT, flag_of(out, i), err))
            return err->status;
    if (vkm_json_typeof(vkm_json_find(root, "passed")) != VKM_JSON_BOOL)
        out->passed = out->evidence.gt_correct || out->exploited;
    out->evidence.fired = out->exploited;
    out->vendor_hacked = out->evidence.hacked_loophole_used && !out->evidence.gt_correct;
    return VKM_OK;
}

vkm_status vkm_answer_read(const vkm_json *doc, uint64_t id, vkm_grade *out, vkm_err *err) {
    vkm_jv root = vkm_json_root(doc);
    const char *error = NULL;
    uint64_t got;
    double reward;
    memset(out, 0, sizeof *out);
    if (vkm_json_typeof(root) != VKM_JSON_OBJECT)
        return vkm_json_fail(root, err, "an answer is an object {\"id\", \"reward\", ...}");
    if (known_fields(root, err) || vkm_json_get_u64(root, "id", VKM_JSON_REQ, &got, err))
        return err->status;
    if (got != id)
        return vkm_json_fail(vkm_json_find(root, "id"), err,
                             "%llu; the answer to %llu is due: answers come in the order of the "
                             "requests",
                             (unsigned long long)got, (unsigned long long)id);
    if (vkm_json_get_str(root, "error", VKM_JSON_OPT, &error, err)) return err->status;
    if (error) {
        out->infra_error = true;
        out->reward = __builtin_nanf("");
        snprintf(out->reason, sizeof out->reason, "%s", error);
        return VKM_OK;
    }
    if (vkm_json_get_double(root, "reward", VKM_JSON_REQ, -VKM_ANSWER_MAX_REWARD,
                            VKM_ANSWER_MAX_REWARD, &reward, err) ||
        read_flags(root, out, err))
        return err->status;
    out->reward = (float)reward;
    return VKM_OK;
}
