/* Owns reading members of JSON objects: needed or optional, of a type, and none that is unknown. */
#include "base/json.h"

#include <string.h>

#include "base/text.h"

static vkm_status member(vkm_jv object, const char *key, vkm_json_need need, vkm_jv *v,
                         vkm_err *err) {
    *v = (vkm_jv){object.doc, NULL};
    if (vkm_json_typeof(object) != VKM_JSON_OBJECT)
        return vkm_json_fail_type(object, "an object", err);
    vkm_jv m = vkm_json_find(object, key);
    if (!m.v && need == VKM_JSON_REQ)
        return vkm_json_fail(object, err, "the key \"%s\" is missing; add it", key);
    if (need == VKM_JSON_REQ || vkm_json_typeof(m) != VKM_JSON_NULL) *v = m;
    return VKM_OK;
}

#define GET(call)                                                                                  \
    vkm_jv v;                                                                                      \
    vkm_status st = member(object, key, need, &v, err);                                            \
    return st || !v.v ? st : (call)

vkm_status vkm_json_get_i64(vkm_jv object, const char *key, vkm_json_need need, int64_t min,
                            int64_t max, int64_t *out, vkm_err *err) {
    GET(vkm_json_i64(v, min, max, out, err));
}

vkm_status vkm_json_get_u64(vkm_jv object, const char *key, vkm_json_need need, uint64_t *out,
                            vkm_err *err) {
    GET(vkm_json_u64(v, out, err));
}

vkm_status vkm_json_get_double(vkm_jv object, const char *key, vkm_json_need need, double min,
                               double max, double *out, vkm_err *err) {
    GET(vkm_json_double(v, min, max, out, err));
}

vkm_status vkm_json_get_bool(vkm_jv object, const char *key, vkm_json_need need, bool *out,
                             vkm_err *err) {
    GET(vkm_json_bool(v, out, err));
}

vkm_status vkm_json_get_str(vkm_jv object, const char *key, vkm_json_need need, const char **out,
                            vkm_err *err) {
    GET(vkm_json_str(v, out, err));
}

vkm_status vkm_json_get_array(vkm_jv object, const char *key, vkm_json_need need, vkm_jv *out,
                              vkm_err *err) {
    vkm_status st = member(object, key, need, out, err);
    if (st || !out->v || vkm_json_typeof(*out) == VKM_JSON_ARRAY) return st;
    return vkm_json_fail_type(*out, "an array", err);
}

vkm_status vkm_json_get_object(vkm_jv object, const char *key, vkm_json_need need, vkm_jv *out,
                               vkm_err *err) {
    vkm_status st = member(object, key, need, out, err);
    if (st || !out->v || vkm_json_typeof(*out) == VKM_JSON_OBJECT) return st;
    return vkm_json_fail_type(*out, "an object", err);
}

vkm_status vkm_json_known_keys(vkm_jv object, const char *const *known, size_t n, vkm_err *err) {
    if (vkm_json_typeof(object) != VKM_JSON_OBJECT)
        return vkm_json_fail_type(object, "an object", err);
    for (vkm_jv m = vkm_json_first(object); m.v; m = vkm_json_next(m)) {
        size_t i = 0;
        while (i < n && strcmp(known[i], vkm_json_key(m)) != 0) i++;
        if (i < n) continue;
        char hint[VKM_CHOICE_BYTES * 2];
        return vkm_json_fail(m, err, "unknown key%s; remove it or correct its name",
                             vkm_text_hint(vkm_json_key(m), "", known, n, hint));
    }
    return VKM_OK;
}
