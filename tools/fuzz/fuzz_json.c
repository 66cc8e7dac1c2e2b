/* libFuzzer target: the strict JSON layer. Finds crashes, and texts that are taken but not written
 * back the same. Build and run: tools/fuzz/run. */
#include "base/json.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The document again, by the writer. */
static void rewrite(vkm_jw *w, vkm_jv v) {
    const char *key = vkm_json_key(v), *s = NULL;
    bool b = false;
    double d = 0;
    vkm_err err = {0};
    switch (vkm_json_typeof(v)) {
    case VKM_JSON_OBJECT:
    case VKM_JSON_ARRAY:
        if (vkm_json_typeof(v) == VKM_JSON_OBJECT)
            vkm_jw_obj(w, key);
        else
            vkm_jw_arr(w, key);
        for (vkm_jv e = vkm_json_first(v); e.v; e = vkm_json_next(e)) rewrite(w, e);
        if (vkm_json_typeof(v) == VKM_JSON_OBJECT)
            vkm_jw_end_obj(w);
        else
            vkm_jw_end_arr(w);
        break;
    case VKM_JSON_STRING:
        if (vkm_json_str(v, &s, &err)) abort();
        vkm_jw_str(w, key, s);
        break;
    case VKM_JSON_BOOL:
        if (vkm_json_bool(v, &b, &err)) abort();
        vkm_jw_bool(w, key, b);
        break;
    case VKM_JSON_NUMBER: {
        int64_t i;
        uint64_t u;
        vkm_err ignored = {0};
        if (vkm_json_i64(v, INT64_MIN, INT64_MAX, &i, &ignored)) ignored = (vkm_err){0};
        if (vkm_json_u64(v, &u, &ignored)) ignored = (vkm_err){0};
        if (vkm_json_double(v, -INFINITY, INFINITY, &d, &err)) abort();
        vkm_jw_double(w, key, d);
        break;
    }
    default:
        vkm_jw_null(w, key);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    vkm_json *doc, *again;
    vkm_err err = {0};
    vkm_json_limits limits = {
        .max_bytes = 1 << 20, .max_depth = 32, .nan_as_null = n && data[0] == 'N'};
    if (vkm_json_parse((const char *)data, n, "fuzz", &limits, &doc, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    vkm_strbuf a = {0}, b = {0};
    vkm_jw w = vkm_jw_begin(&a, 0);
    rewrite(&w, vkm_json_root(doc));
    if (vkm_json_parse(a.data, a.n, "again", NULL, &again, &err)) abort();
    w = vkm_jw_begin(&b, 0);
    rewrite(&w, vkm_json_root(again));
    if (a.n != b.n || memcmp(a.data, b.data, a.n) != 0) abort();
    vkm_json_free(again);
    vkm_json_free(doc);
    vkm_strbuf_free(&a);
    vkm_strbuf_free(&b);
    return 0;
}
