/* Owns reading JSON: one strict scan of the text (json_scan.c), then cJSON builds the tree, then a
 * walk refuses repeated keys. Places of values are not stored: an error finds its value again by
 * counting values in the order of the text. json_get.c owns members of objects, json_write.c
 * writing. */
#include "base/json.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json_scan.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const vkm_json_limits default_limits = {(size_t)256 << 20, 64, false};

struct vkm_json {
    cJSON *root;
    char *text, *name;
    size_t n;
    size_t line0; /* lines before the text: for JSON Lines */
};

static vkm_status scan_text(vkm_json *d, const vkm_json_limits *l, vkm_err *err) {
    vkm_strbuf patched = {0};
    vkm_json_scan s = {.at = d->text,
                       .end = d->text + d->n,
                       .max_depth = l->max_depth,
                       .nan_as_null = l->nan_as_null,
                       .patched = &patched,
                       .copied = d->text};
    bool ok = vkm_json_scan_value(&s);
    if (ok && s.at < s.end) {
        s.wrong = *s.at ? "text after the value" : "a NUL after the value";
        ok = false;
    }
    if (!ok) {
        size_t line, column;
        vkm_text_place(d->text, s.at, &line, &column);
        vkm_strbuf_free(&patched);
        return vkm_fail(err, VKM_FAILED, "%s:%zu:%zu: %s", d->name, line + d->line0, column,
                        s.wrong);
    }
    if (s.copied == d->text) return VKM_OK;
    vkm_strbuf_add(&patched, s.copied, (size_t)(s.end - s.copied));
    if (vkm_strbuf_check(&patched, d->name, err)) {
        vkm_strbuf_free(&patched);
        return err->status;
    }
    free(d->text);
    d->text = patched.data;
    d->n = patched.n;
    return VKM_OK;
}

/* ---- repeated keys -----------------------------------------------------------------------------
 */

static vkm_status unique_keys(const vkm_json *d, const cJSON *v, vkm_err *err);

static vkm_status fail_repeated(const vkm_json *d, const cJSON *again, vkm_err *err) {
    return vkm_json_fail((vkm_jv){d, again}, err, "this key occurs twice; remove one");
}

static vkm_status unique_in_object(const vkm_json *d, const cJSON *object, vkm_err *err) {
    size_t n = 0;
    for (const cJSON *m = object->child; m; m = m->next) n++;
    if (n <= 12) {
        for (const cJSON *m = object->child; m; m = m->next)
            for (const cJSON *o = object->child; o != m; o = o->next)
                if (!strcmp(m->string, o->string)) return fail_repeated(d, m, err);
        return VKM_OK;
    }
    size_t cap = 32;
    while (cap < 2 * n) cap *= 2;
    /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers is meant */
    const cJSON **slots = vkm_calloc(cap, sizeof *slots, "JSON keys", err);
    if (!slots) return err->status;
    vkm_status st = VKM_OK;
    for (const cJSON *m = object->child; m && !st; m = m->next) {
        size_t i = vkm_hash64(m->string, strlen(m->string), (uintptr_t)slots) & (cap - 1);
        while (slots[i] && strcmp(slots[i]->string, m->string) != 0) i = (i + 1) & (cap - 1);
        if (slots[i]) st = fail_repeated(d, m, err);
        slots[i] = m;
    }
    free(slots);
    return st;
}

static vkm_status unique_keys(const vkm_json *d, const cJSON *v, vkm_err *err) {
    vkm_status st = cJSON_IsObject(v) ? unique_in_object(d, v, err) : VKM_OK;
    for (const cJSON *c = v->child; c && !st; c = c->next)
        if (c->child) st = unique_keys(d, c, err);
    return st;
}

/* ---- documents ---------------------------------------------------------------------------------
 */

static vkm_json_limits resolve(const vkm_json_limits *limits) {
    vkm_json_limits l = limits ? *limits : default_limits;
    if (!l.max_bytes) l.max_bytes = default_limits.max_bytes;
    if (!l.max_depth) l.max_depth = default_limits.max_depth;
    VKM_BUG_ON(l.max_depth > 512, "recursion is bounded by this");
    return l;
}

/* Takes the text (with a NUL after n bytes) over, also on failure. */
static vkm_status parse_owned(char *text, size_t n, const char *name, size_t line0,
                              const vkm_json_limits *l, vkm_json **doc, vkm_err *err) {
    *doc = NULL;
    vkm_json *d = vkm_calloc(1, sizeof *d, "a JSON document", err);
    if (!d) {
        free(text);
        return err->status;
    }
    *d = (vkm_json){.text = text, .n = n, .line0 = line0, .name = strdup(name)};
    vkm_status st = VKM_OK;
    if (!d->name) st = vkm_fail(err, VKM_FAILED, "%s: out of host memory", name);
    if (!st && n > l->max_bytes)
        st = vkm_fail(err, VKM_FAILED, "%s: is longer than the %zu bytes allowed here", name,
                      l->max_bytes);
    if (!st) st = scan_text(d, l, err);
    if (!st) {
        d->root = cJSON_ParseWithLength(d->text, d->n + 1);
        if (!d->root)
            st = vkm_fail(err, VKM_FAILED, "%s: out of host memory for a JSON tree", name);
    }
    if (!st && d->root) st = unique_keys(d, d->root, err);
    if (st) {
        vkm_json_free(d);
        return st;
    }
    *doc = d;
    return VKM_OK;
}

vkm_status vkm_json_parse_line(const char *text, size_t n, const char *name, size_t line,
                               const vkm_json_limits *limits, vkm_json **doc, vkm_err *err) {
    vkm_json_limits l = resolve(limits);
    *doc = NULL;
    char *copy = vkm_calloc(n + 1, 1, name, err);
    if (!copy) return err->status;
    if (n) memcpy(copy, text, n);
    return parse_owned(copy, n, name, line - 1, &l, doc, err);
}

vkm_status vkm_json_parse(const char *text, size_t n, const char *name,
                          const vkm_json_limits *limits, vkm_json **doc, vkm_err *err) {
    return vkm_json_parse_line(text, n, name, 1, limits, doc, err);
}

vkm_status vkm_json_load(const char *path, const vkm_json_limits *limits, vkm_json **doc,
                         vkm_err *err) {
    vkm_json_limits l = resolve(limits);
    char *text;
    size_t n;
    *doc = NULL;
    vkm_status st = vkm_file_read(path, l.max_bytes, &text, &n, err);
    return st ? st : parse_owned(text, n, path, 0, &l, doc, err);
}

void vkm_json_free(vkm_json *d) {
    if (!d) return;
    cJSON_Delete(d->root);
    free(d->text);
    free(d->name);
    free(d);
}

vkm_jv vkm_json_root(const vkm_json *doc) {
    return (vkm_jv){doc, doc->root};
}

vkm_json_type vkm_json_typeof(vkm_jv v) {
    if (!v.v) return VKM_JSON_ABSENT;
    switch (v.v->type & 0xFF) {
    case cJSON_NULL:
        return VKM_JSON_NULL;
    case cJSON_True:
    case cJSON_False:
        return VKM_JSON_BOOL;
    case cJSON_Number:
        return VKM_JSON_NUMBER;
    case cJSON_String:
        return VKM_JSON_STRING;
    case cJSON_Array:
        return VKM_JSON_ARRAY;
    default:
        return VKM_JSON_OBJECT;
    }
}

/* ---- where a value is --------------------------------------------------------------------------
 */

static void add_step(vkm_strbuf *path, const cJSON *member, size_t index) {
    if (!member->string) {
        vkm_strbuf_printf(path, "[%zu]", index);
        return;
    }
    size_t n = strlen(member->string);
    bool plain = n > 0 && n <= 64;
    for (size_t i = 0; i < n && plain; i++) {
        unsigned char c = (unsigned char)member->string[i];
        plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                c == '_' || c == '-' || c == '/';
    }
    if (plain) {
        vkm_strbuf_printf(path, "%s%s", path->n ? "." : "", member->string);
        return;
    }
    vkm_strbuf_puts(path, "[\"");
    for (size_t i = 0; i < n && i < 120; i++) {
        unsigned char c = (unsigned char)member->string[i];
        vkm_strbuf_putc(path, c < 0x20 || c == 0x7F ? '?' : (char)c);
    }
    vkm_strbuf_puts(path, n > 120 ? "...\"]" : "\"]");
}

/* Preorder walk to `target`: counts the values up to it and leaves its path. */
static bool locate(const cJSON *v, const cJSON *target, size_t *ordinal, vkm_strbuf *path) {
    ++*ordinal;
    if (v == target) return true;
    size_t n = path->n, index = 0;
    for (const cJSON *c = v->child; c; c = c->next, index++) {
        if (!c->child && c != target) { /* most values are leaves: no step to write */
            ++*ordinal;
            continue;
        }
        add_step(path, c, index);
        if (locate(c, target, ordinal, path)) return true;
        path->n = n;
        if (path->data) path->data[n] = 0;
    }
    return false;
}

/* The text of a value. */
static const char *source(vkm_jv v, vkm_strbuf *path, const char **end) {
    size_t ordinal = 0;
    bool there = locate(v.doc->root, v.v, &ordinal, path);
    VKM_BUG_ON(!there, "the value is not of this document");
    vkm_json_scan s = {
        .at = v.doc->text, .end = v.doc->text + v.doc->n, .max_depth = 1 << 20, .want = ordinal};
    vkm_json_scan_value(&s);
    VKM_BUG_ON(!s.found, "value %zu of %s", ordinal, v.doc->name);
    *end = s.found_end;
    return s.found;
}

vkm_status vkm_json_fail(vkm_jv v, vkm_err *err, const char *fmt, ...) {
    char msg[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    vkm_strbuf path = {0};
    const char *end;
    size_t line, column;
    vkm_text_place(v.doc->text, source(v, &path, &end), &line, &column);
    vkm_fail(err, VKM_FAILED, "%s:%zu:%zu: %s%s%s", v.doc->name, line + v.doc->line0, column,
             vkm_strbuf_str(&path), path.n ? ": " : "", msg);
    vkm_strbuf_free(&path);
    return err->status;
}

/* ---- members and elements ----------------------------------------------------------------------
 */

vkm_jv vkm_json_first(vkm_jv v) {
    return (vkm_jv){v.doc, v.v ? v.v->child : NULL};
}
vkm_jv vkm_json_next(vkm_jv v) {
    return (vkm_jv){v.doc, v.v->next};
}
const char *vkm_json_key(vkm_jv member) {
    return member.v->string;
}

size_t vkm_json_count(vkm_jv v) {
    size_t n = 0;
    for (vkm_jv c = vkm_json_first(v); c.v; c = vkm_json_next(c)) n++;
    return n;
}

vkm_jv vkm_json_find(vkm_jv object, const char *key) {
    if (vkm_json_typeof(object) == VKM_JSON_OBJECT)
        for (vkm_jv m = vkm_json_first(object); m.v; m = vkm_json_next(m))
            if (!strcmp(m.v->string, key)) return m;
    return (vkm_jv){object.doc, NULL};
}

/* ---- typed values ------------------------------------------------------------------------------
 */

vkm_status vkm_json_fail_type(vkm_jv v, const char *need, vkm_err *err) {
    static const char *const names[] = {"absent",   "null",     "a boolean", "a number",
                                        "a string", "an array", "an object"};
    return vkm_json_fail(v, err, "must be %s, is %s", need, names[vkm_json_typeof(v)]);
}

/* Above 2^53 a double is not exact: the digits are read again from the text. */
static bool exact_digits(vkm_jv v, bool *negative, uint64_t *magnitude) {
    vkm_strbuf path = {0};
    const char *end, *p = source(v, &path, &end);
    vkm_strbuf_free(&path);
    *negative = *p == '-';
    *magnitude = 0;
    for (p += *negative; p < end; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (*p < '0' || *p > '9' || *magnitude > (UINT64_MAX - digit) / 10) return false;
        *magnitude = *magnitude * 10 + digit;
    }
    return true;
}

static vkm_status integer(vkm_jv v, bool *negative, uint64_t *magnitude, vkm_err *err) {
    if (vkm_json_typeof(v) != VKM_JSON_NUMBER) return vkm_json_fail_type(v, "an integer", err);
    double d = v.v->valuedouble;
    *negative = d < 0;
    if (d != floor(d)) return vkm_json_fail(v, err, "must be an integer, is %.17g", d);
    if (fabs(d) < 0x1p53)
        *magnitude = (uint64_t)fabs(d);
    else if (fabs(d) > 0x1p64 || !exact_digits(v, negative, magnitude))
        return vkm_json_fail(v, err,
                             "%.17g does not fit a 64-bit integer; write it in plain digits", d);
    return VKM_OK;
}

vkm_status vkm_json_i64(vkm_jv v, int64_t min, int64_t max, int64_t *out, vkm_err *err) {
    bool negative = false;
    uint64_t m = 0;
    vkm_status st = integer(v, &negative, &m, err);
    if (st) return st;
    if (m > (uint64_t)INT64_MAX + negative)
        return vkm_json_fail(v, err, "must be from %lld to %lld, is %s%llu", (long long)min,
                             (long long)max, negative ? "-" : "", (unsigned long long)m);
    int64_t i = negative ? (int64_t)(0 - m) : (int64_t)m;
    if (i < min || i > max)
        return vkm_json_fail(v, err, "must be from %lld to %lld, is %lld", (long long)min,
                             (long long)max, (long long)i);
    *out = i;
    return VKM_OK;
}

vkm_status vkm_json_u64(vkm_jv v, uint64_t *out, vkm_err *err) {
    bool negative = false;
    uint64_t m = 0;
    vkm_status st = integer(v, &negative, &m, err);
    if (st) return st;
    if (negative && m) return vkm_json_fail(v, err, "must not be negative");
    *out = m;
    return VKM_OK;
}

vkm_status vkm_json_double(vkm_jv v, double min, double max, double *out, vkm_err *err) {
    if (vkm_json_typeof(v) != VKM_JSON_NUMBER) return vkm_json_fail_type(v, "a number", err);
    double d = v.v->valuedouble;
    if (!(d >= min && d <= max))
        return vkm_json_fail(v, err, "must be from %g to %g, is %.9g", min, max, d);
    *out = d;
    return VKM_OK;
}

vkm_status vkm_json_bool(vkm_jv v, bool *out, vkm_err *err) {
    if (vkm_json_typeof(v) != VKM_JSON_BOOL) return vkm_json_fail_type(v, "true or false", err);
    *out = cJSON_IsTrue(v.v);
    return VKM_OK;
}

vkm_status vkm_json_str(vkm_jv v, const char **out, vkm_err *err) {
    if (vkm_json_typeof(v) != VKM_JSON_STRING) return vkm_json_fail_type(v, "a string", err);
    *out = v.v->valuestring;
    return VKM_OK;
}

/* Finds a member; v->v == NULL says that an optional one is absent or null. */
/* ---- JSON Lines --------------------------------------------------------------------------------
 */

struct vkm_jsonl {
    char *text, *name;
    size_t n, at, line;
    vkm_json_limits limits;
};

vkm_status vkm_jsonl_open(const char *path, const vkm_json_limits *limits, vkm_jsonl **out,
                          vkm_err *err) {
    *out = NULL;
    vkm_jsonl *l = vkm_calloc(1, sizeof *l, path, err);
    if (!l) return err->status;
    l->limits = resolve(limits);
    vkm_status st = vkm_file_read(path, l->limits.max_bytes, &l->text, &l->n, err);
    if (!st && !(l->name = strdup(path)))
        st = vkm_fail(err, VKM_FAILED, "%s: out of host memory", path);
    if (st)
        vkm_jsonl_free(l);
    else
        *out = l;
    return st;
}

vkm_status vkm_jsonl_next(vkm_jsonl *l, vkm_json **doc, vkm_err *err) {
    *doc = NULL;
    while (l->at < l->n) {
        const char *from = l->text + l->at;
        const char *nl = memchr(from, '\n', l->n - l->at);
        size_t n = nl ? (size_t)(nl - from) : l->n - l->at;
        l->at += n + (nl != NULL);
        l->line++;
        size_t blank = 0;
        while (blank < n && (from[blank] == ' ' || from[blank] == '\t' || from[blank] == '\r'))
            blank++;
        if (blank == n) continue;
        char *copy = vkm_calloc(n + 1, 1, l->name, err);
        if (!copy) return err->status;
        memcpy(copy, from, n);
        return parse_owned(copy, n, l->name, l->line - 1, &l->limits, doc, err);
    }
    return VKM_OK;
}

size_t vkm_jsonl_line(const vkm_jsonl *l) {
    return l->line;
}

vkm_status vkm_jsonl_each(const char *path, const vkm_json_limits *given,
                          vkm_status (*see)(vkm_jv root, void *ctx, vkm_err *err), void *ctx,
                          vkm_err *err) {
    vkm_jsonl *lines = NULL;
    vkm_json *doc = NULL;
    vkm_status st = vkm_jsonl_open(path, given, &lines, err);
    while (!st && !(st = vkm_jsonl_next(lines, &doc, err)) && doc) {
        st = see(vkm_json_root(doc), ctx, err);
        vkm_json_free(doc);
    }
    vkm_jsonl_free(lines);
    return st;
}

void vkm_jsonl_free(vkm_jsonl *l) {
    if (!l) return;
    free(l->text);
    free(l->name);
    free(l);
}
