/* Strict JSON: a layer over cJSON that refuses what cJSON takes in silence (repeated keys, trailing
 * text, `012`, invalid UTF-8, 1e400, rounded integers), and a writer.
 * Every error is one line: "file:line:column: key.path: what is wrong and what to do". */
#ifndef VKM_JSON_H
#define VKM_JSON_H

#include "base/status.h"
#include "base/strbuf.h"

#include <stdbool.h>

/* ---- reading --------------------------------------------------------------------------------- */

typedef struct vkm_json vkm_json; /* a parsed text */

typedef struct vkm_json_limits {
    size_t max_bytes; /* 0: 256 MiB */
    int max_depth;    /* 0: 64 */
    bool nan_as_null; /* Python's NaN, Infinity and -Infinity read as null; else an error */
} vkm_json_limits;    /* NULL wherever one is asked for: all defaults */

/* A value in a document: two words, passed by value, valid until the document is freed.
 * .v is NULL for "absent". */
typedef struct vkm_jv {
    const vkm_json *doc;
    const struct cJSON *v;
} vkm_jv;

typedef enum {
    VKM_JSON_ABSENT,
    VKM_JSON_NULL,
    VKM_JSON_BOOL,
    VKM_JSON_NUMBER,
    VKM_JSON_STRING,
    VKM_JSON_ARRAY,
    VKM_JSON_OBJECT
} vkm_json_type;

/* Parses n bytes; `name` (a path, or what the text is) begins error messages. */
vkm_status vkm_json_parse(const char *text, size_t n, const char *name,
                          const vkm_json_limits *limits, vkm_json **doc,
                          vkm_err *err) VKM_MUST_CHECK;
/* The same for line number `line` (from 1) of a longer text: errors name that line. */
vkm_status vkm_json_parse_line(const char *text, size_t n, const char *name, size_t line,
                               const vkm_json_limits *limits, vkm_json **doc,
                               vkm_err *err) VKM_MUST_CHECK;
/* Parses a file; gzip is unpacked. */
vkm_status vkm_json_load(const char *path, const vkm_json_limits *limits, vkm_json **doc,
                         vkm_err *err) VKM_MUST_CHECK;
void vkm_json_free(vkm_json *doc);

vkm_jv vkm_json_root(const vkm_json *doc);
vkm_json_type vkm_json_typeof(vkm_jv v);
/* Fails with "name:line:column: key.path: " before the message. */
vkm_status vkm_json_fail(vkm_jv v, vkm_err *err, const char *fmt, ...) VKM_PRINTF(3, 4);
/* The same: "must be `need`, is (its type)"; need is such as "an integer". */
vkm_status vkm_json_fail_type(vkm_jv v, const char *need, vkm_err *err);

/* Members of an object and elements of an array, in the order of the text:
 *   for (vkm_jv e = vkm_json_first(a); e.v; e = vkm_json_next(e)) ... */
size_t vkm_json_count(vkm_jv v);
vkm_jv vkm_json_first(vkm_jv v);
vkm_jv vkm_json_next(vkm_jv v);
const char *vkm_json_key(vkm_jv member);              /* the member's name; NULL for an element */
vkm_jv vkm_json_find(vkm_jv object, const char *key); /* absent: .v == NULL */

/* Values as C types, with the range [min, max]. Integers are exact over all of int64; 3.0 and 1e3
 * are integers, 3.5 is not. A string holds no NUL and lives as long as the document. */
vkm_status vkm_json_i64(vkm_jv v, int64_t min, int64_t max, int64_t *out,
                        vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_u64(vkm_jv v, uint64_t *out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_double(vkm_jv v, double min, double max, double *out,
                           vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_bool(vkm_jv v, bool *out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_str(vkm_jv v, const char **out, vkm_err *err) VKM_MUST_CHECK;

/* The same for a member of an object. VKM_JSON_OPT: *out keeps its value when the key is absent or
 * null. */
typedef enum { VKM_JSON_REQ, VKM_JSON_OPT } vkm_json_need;
vkm_status vkm_json_get_i64(vkm_jv object, const char *key, vkm_json_need need, int64_t min,
                            int64_t max, int64_t *out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_get_u64(vkm_jv object, const char *key, vkm_json_need need, uint64_t *out,
                            vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_get_double(vkm_jv object, const char *key, vkm_json_need need, double min,
                               double max, double *out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_get_bool(vkm_jv object, const char *key, vkm_json_need need, bool *out,
                             vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_get_str(vkm_jv object, const char *key, vkm_json_need need, const char **out,
                            vkm_err *err) VKM_MUST_CHECK;
/* A member that is an array or an object; absent and optional: out->v == NULL. */
vkm_status vkm_json_get_array(vkm_jv object, const char *key, vkm_json_need need, vkm_jv *out,
                              vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_json_get_object(vkm_jv object, const char *key, vkm_json_need need, vkm_jv *out,
                               vkm_err *err) VKM_MUST_CHECK;

/* Fails on the first key that is not among the n known ones, naming the nearest. */
vkm_status vkm_json_known_keys(vkm_jv object, const char *const *known, size_t n,
                               vkm_err *err) VKM_MUST_CHECK;

/* One JSON value a line (JSON Lines; gzip is unpacked; empty lines are skipped). */
typedef struct vkm_jsonl vkm_jsonl;
vkm_status vkm_jsonl_open(const char *path, const vkm_json_limits *limits, vkm_jsonl **l,
                          vkm_err *err) VKM_MUST_CHECK;
/* The next line's document (yours to free), or *doc == NULL at the end. */
vkm_status vkm_jsonl_next(vkm_jsonl *l, vkm_json **doc, vkm_err *err) VKM_MUST_CHECK;
size_t vkm_jsonl_line(const vkm_jsonl *l); /* 1-based line of the last document */
void vkm_jsonl_free(vkm_jsonl *l);
/* All of it: see(root, ctx) for each line, until it fails. */
vkm_status vkm_jsonl_each(const char *path, const vkm_json_limits *limits,
                          vkm_status (*see)(vkm_jv root, void *ctx, vkm_err *err), void *ctx,
                          vkm_err *err) VKM_MUST_CHECK;

/* ---- writing --------------------------------------------------------------------------------- */

/* Writes to a strbuf (whose failure is sticky; check it at the end). `key` is NULL in arrays and at
 * the root. Strings are UTF-8; bytes that are not become U+FFFD. */
typedef struct vkm_jw {
    vkm_strbuf *out;
    int indent; /* spaces a level; 0: everything on one line */
    int depth;
    bool comma; /* the next value needs one before it */
} vkm_jw;

vkm_jw vkm_jw_begin(vkm_strbuf *out, int indent);
void vkm_jw_obj(vkm_jw *w, const char *key);
void vkm_jw_end_obj(vkm_jw *w);
void vkm_jw_arr(vkm_jw *w, const char *key);
void vkm_jw_end_arr(vkm_jw *w);
void vkm_jw_str(vkm_jw *w, const char *key, const char *s); /* NULL writes null */
void vkm_jw_strn(vkm_jw *w, const char *key, const char *s, size_t n);
void vkm_jw_i64(vkm_jw *w, const char *key, int64_t v);
void vkm_jw_u64(vkm_jw *w, const char *key, uint64_t v);
void vkm_jw_bool(vkm_jw *w, const char *key, bool v);
void vkm_jw_null(vkm_jw *w, const char *key);
/* The fewest digits that read back as the same double or float; NaN and infinities are null. */
void vkm_jw_double(vkm_jw *w, const char *key, double v);
void vkm_jw_float(vkm_jw *w, const char *key, float v);
/* Text that is JSON already. */
void vkm_jw_raw(vkm_jw *w, const char *key, const char *json);

#endif
