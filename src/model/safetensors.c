/* Owns reading safetensors; safetensors_write.c owns writing. Hostile input: nothing is used before
 * it is checked against the size of the map. */
#include "model/safetensors.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "ops/numerics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    HEADER_BYTES_MAX = 100000000, /* the format's own cap */
    TENSORS_MAX = 200000,
    SHARDS_MAX = 2000,
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[VKM_ST_N_DTYPES] = {
#define X(name, bytes) {#name, bytes},
    VKM_ST_DTYPES(X)
#undef X
};

const char *vkm_st_dtype_name(vkm_st_dtype t) {
    return dtypes[t].name;
}
size_t vkm_st_dtype_bytes(vkm_st_dtype t) {
    return dtypes[t].bytes;
}

typedef struct shard {
    char *path;
    vkm_map map;
    vkm_json *header; /* owns the names */
} shard;

struct vkm_st {
    char *path;
    shard *shards;
    size_t n_shards;
    vkm_st_tensor *tensors;
    size_t n, cap;
    uint32_t *slots; /* hash table: index + 1 into tensors; n_slots a power of two */
    size_t n_slots;
};

/* ---- one file ----------------------------------------------------------------------------------
 */

static void shape_text(const uint64_t *shape, uint32_t n, char out[128]) {
    int at = snprintf(out, 128, "(");
    for (uint32_t i = 0; i < n && at < 100; i++)
        at += snprintf(out + at, (size_t)(128 - at), "%s%" PRIu64, i ? "," : "", shape[i]);
    snprintf(out + at, (size_t)(128 - at), ")");
}

static vkm_status read_dtype(vkm_jv v, vkm_st_tensor *t, vkm_err *err) {
    const char *name = NULL;
    vkm_status st = vkm_json_get_str(v, "dtype", VKM_JSON_REQ, &name, err);
    if (st) return st;
    for (int i = 0; i < VKM_ST_N_DTYPES; i++)
        if (!strcmp(name, dtypes[i].name)) {
            t->dtype = (vkm_st_dtype)i;
            return VKM_OK;
        }
    return vkm_json_fail(vkm_json_find(v, "dtype"), err,
                         "unknown dtype \"%.20s\"; save the model as BF16, F16 or F32", name);
}

static vkm_status read_shape(vkm_jv v, vkm_st_tensor *t, vkm_err *err) {
    vkm_jv shape = {0};
    vkm_status st = vkm_json_get_array(v, "shape", VKM_JSON_REQ, &shape, err);
    if (st) return st;
    t->n_elems = 1;
    for (vkm_jv e = vkm_json_first(shape); e.v; e = vkm_json_next(e)) {
        int64_t dim = 0;
        if (t->n_dims == VKM_ST_DIMS)
            return vkm_json_fail(shape, err, "more than %d dimensions are not supported",
                                 VKM_ST_DIMS);
        if (vkm_json_i64(e, 0, INT64_MAX, &dim, err)) return err->status;
        t->shape[t->n_dims++] = (uint64_t)dim;
        if (__builtin_mul_overflow(t->n_elems, (uint64_t)dim, &t->n_elems))
            return vkm_json_fail(shape, err, "the number of elements overflows 64 bits");
    }
    if (__builtin_mul_overflow(t->n_elems, (uint64_t)dtypes[t->dtype].bytes, &t->n_bytes))
        return vkm_json_fail(shape, err, "the number of bytes overflows 64 bits");
    return VKM_OK;
}

/* Leaves the offset of the first byte in *begin. */
static vkm_status read_offsets(vkm_jv v, const vkm_st_tensor *t, uint64_t data_bytes,
                               uint64_t *begin, vkm_err *err) {
    vkm_jv pair = {0};
    int64_t at[2] = {0, 0};
    vkm_status st = vkm_json_get_array(v, "data_offsets", VKM_JSON_REQ, &pair, err);
    if (st) return st;
    if (vkm_json_count(pair) != 2)
        return vkm_json_fail(pair, err, "must be two integers, begin and end");
    vkm_jv e = vkm_json_first(pair);
    for (int i = 0; i < 2; i++, e = vkm_json_next(e))
        if (vkm_json_i64(e, 0, INT64_MAX, &at[i], err)) return err->status;
    if (at[1] < at[0]) return vkm_json_fail(pair, err, "ends before it begins");
    if ((uint64_t)at[1] > data_bytes)
        return vkm_json_fail(pair, err,
                             "ends at byte %" PRId64 " of %" PRIu64
                             " data bytes: the file is truncated; fetch it again",
                             at[1], data_bytes);
    if ((uint64_t)(at[1] - at[0]) != t->n_bytes) {
        char text[128];
        shape_text(t->shape, t->n_dims, text);
        return vkm_json_fail(pair, err, "%" PRId64 " bytes, but %s of %s needs %" PRIu64,
                             at[1] - at[0], text, dtypes[t->dtype].name, t->n_bytes);
    }
    *begin = (uint64_t)at[0];
    return VKM_OK;
}

static int by_place(const void *pa, const void *pb) {
    const vkm_st_tensor *a = pa, *b = pb;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    if (a->n_bytes != b->n_bytes) return a->n_bytes < b->n_bytes ? -1 : 1; /* empty ones first */
    return strcmp(a->name, b->name);
}

/* The tensors of one file, sorted by place, must follow one another and fill the file. */
static vkm_status check_cover(const shard *f, vkm_st_tensor *t, size_t n, const uint8_t *data,
                              uint64_t data_bytes, vkm_err *err) {
    uint64_t at = 0;
    if (n) qsort(t, n, sizeof *t, by_place);
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = (uint64_t)(t[i].data - data);
        if (begin != at)
            return vkm_fail(err, VKM_FAILED,
                            "%s: '%.200s' begins at data byte %" PRIu64 ", %s byte %" PRIu64
                            " where the tensor before it ends; save the file again",
                            f->path, t[i].name, begin, begin < at ? "before" : "after", at);
        at += t[i].n_bytes;
    }
    if (at != data_bytes)
        return vkm_fail(err, VKM_FAILED,
                        "%s: %" PRIu64 " bytes after the last tensor belong to none; save the file "
                        "again",
                        f->path, data_bytes - at);
    return VKM_OK;
}

static vkm_status reserve(vkm_st *s, vkm_err *err) {
    if (s->n < s->cap) return VKM_OK;
    size_t cap = s->cap ? 2 * s->cap : 256;
    vkm_st_tensor *p = realloc(s->tensors, cap * sizeof *p);
    if (!p)
        return vkm_fail(err, VKM_FAILED, "%s: out of host memory for %zu tensors", s->path, cap);
    s->tensors = p;
    s->cap = cap;
    return VKM_OK;
}

static vkm_status check_metadata(vkm_jv meta, vkm_err *err) {
    if (vkm_json_typeof(meta) != VKM_JSON_OBJECT)
        return vkm_json_fail(meta, err, "must be an object of strings");
    for (vkm_jv e = vkm_json_first(meta); e.v; e = vkm_json_next(e)) {
        const char *value;
        if (vkm_json_str(e, &value, err)) return err->status;
    }
    return VKM_OK;
}

static vkm_status read_shard(vkm_st *s, shard *f, vkm_err *err) {
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    vkm_status st = vkm_map_open(&f->map, f->path, err);
    if (st) return st;
    uint64_t len = 0;
    if (f->map.n < 8)
        return vkm_fail(err, VKM_FAILED,
                        "%s: only %zu bytes, too short for a safetensors file; fetch it again",
                        f->path, f->map.n);
    for (int i = 7; i >= 0; i--) len = len << 8 | f->map.data[i];
    if (len > HEADER_BYTES_MAX)
        return vkm_fail(err, VKM_FAILED,
                        "%s: a header of %" PRIu64 " bytes (at most %d): not a safetensors file",
                        f->path, len, HEADER_BYTES_MAX);
    if (len > f->map.n - 8)
        return vkm_fail(err, VKM_FAILED,
                        "%s: the header says %" PRIu64 " bytes, the file has %zu after it begins: "
                        "truncated; fetch it again",
                        f->path, len, f->map.n - 8);
    vkm_json_limits limits = {.max_bytes = HEADER_BYTES_MAX, .max_depth = 4};
    char name[VKM_PATH_MAX + 16];
    snprintf(name, sizeof name, "%s (header)", f->path);
    st = vkm_json_parse((const char *)f->map.data + 8, len, name, &limits, &f->header, err);
    if (st) return st;
    vkm_jv root = vkm_json_root(f->header);
    if (vkm_json_typeof(root) != VKM_JSON_OBJECT)
        return vkm_json_fail(root, err, "must be an object of tensors");
    const uint8_t *data = f->map.data + 8 + len;
    uint64_t data_bytes = f->map.n - 8 - len;
    size_t first = s->n;
    for (vkm_jv e = vkm_json_first(root); e.v && !st; e = vkm_json_next(e)) {
        if (!strcmp(vkm_json_key(e), "__metadata__")) {
            st = check_metadata(e, err);
            continue;
        }
        if (s->n == TENSORS_MAX)
            return vkm_json_fail(e, err, "more than %d tensors are not supported", TENSORS_MAX);
        vkm_st_tensor t = {.name = vkm_json_key(e), .file = f->path};
        uint64_t begin = 0;
        st = vkm_json_known_keys(e, keys, VKM_COUNTOF(keys), err);
        if (!st) st = read_dtype(e, &t, err);
        if (!st) st = read_shape(e, &t, err);
        if (!st) st = read_offsets(e, &t, data_bytes, &begin, err);
        if (!st) st = reserve(s, err);
        if (st) break;
        t.data = data + begin;
        s->tensors[s->n++] = t;
    }
    if (st) return st;
    vkm_st_tensor *own = s->n > first ? s->tensors + first : NULL;
    return check_cover(f, own, s->n - first, data, data_bytes, err);
}

/* ---- names -------------------------------------------------------------------------------------
 */

static size_t slot_of(const vkm_st *s, const char *name) {
    size_t i = vkm_hash64(name, strlen(name), 0) & (s->n_slots - 1);
    while (s->slots[i] && strcmp(s->tensors[s->slots[i] - 1].name, name) != 0)
        i = (i + 1) & (s->n_slots - 1);
    return i;
}

static vkm_status index_names(vkm_st *s, vkm_err *err) {
    s->n_slots = 16;
    while (s->n_slots < 2 * s->n + 2) s->n_slots *= 2;
    s->slots = vkm_calloc(s->n_slots, sizeof *s->slots, "tensor names", err);
    if (!s->slots) return err->status;
    for (size_t i = 0; i < s->n; i++) {
        size_t at = slot_of(s, s->tensors[i].name);
        if (s->slots[at])
            return vkm_fail(err, VKM_FAILED, "'%.200s' is in both %s and %s; save the model again",
                            s->tensors[i].name, s->tensors[s->slots[at] - 1].file,
                            s->tensors[i].file);
        s->slots[at] = (uint32_t)i + 1;
    }
    return VKM_OK;
}

const vkm_st_tensor *vkm_st_find(const vkm_st *s, const char *name) {
    size_t at = slot_of(s, name);
    return s->slots[at] ? &s->tensors[s->slots[at] - 1] : NULL;
}

/* ---- folders -----------------------------------------------------------------------------------
 */

static vkm_status add_shard(vkm_st *s, const char *path, vkm_err *err) {
    shard *p = realloc(s->shards, (s->n_shards + 1) * sizeof *p);
    if (p) s->shards = p;
    char *copy = p ? strdup(path) : NULL;
    if (!copy) return vkm_fail(err, VKM_FAILED, "%s: out of host memory", path);
    s->shards[s->n_shards++] = (shard){.path = copy};
    return VKM_OK;
}

/* weight_map: tensor -> file name in the same folder. */
static vkm_status list_shards(vkm_st *s, const char *folder, vkm_jv map, vkm_err *err) {
    for (vkm_jv e = vkm_json_first(map); e.v; e = vkm_json_next(e)) {
        const char *file;
        char path[VKM_PATH_MAX];
        if (vkm_json_str(e, &file, err)) return err->status;
        if (!*file || *file == '.' || strchr(file, '/'))
            return vkm_json_fail(e, err, "must be the name of a file in the same folder");
        if (vkm_path_join(path, folder, file, err)) return err->status;
        size_t i = 0;
        while (i < s->n_shards && strcmp(s->shards[i].path, path) != 0) i++;
        if (i < s->n_shards) continue;
        if (i == SHARDS_MAX)
            return vkm_json_fail(e, err, "more than %d files are not supported", SHARDS_MAX);
        if (add_shard(s, path, err)) return err->status;
    }
    return VKM_OK;
}

static vkm_status check_map(const vkm_st *s, vkm_jv map, vkm_err *err) {
    for (vkm_jv e = vkm_json_first(map); e.v; e = vkm_json_next(e)) {
        const vkm_st_tensor *t = vkm_st_find(s, vkm_json_key(e));
        const char *file = NULL;
        if (vkm_json_str(e, &file, err)) return err->status;
        const char *base = t ? strrchr(t->file, '/') : NULL;
        if (!t || strcmp(base ? base + 1 : t->file, file) != 0)
            return vkm_json_fail(e, err, "the tensor is not in that file; fetch the folder again");
    }
    size_t n = vkm_json_count(map);
    if (n != s->n)
        return vkm_json_fail(
            map, err, "names %zu tensors, the files hold %zu; fetch the folder again", n, s->n);
    return VKM_OK;
}

static vkm_status read_all(vkm_st *s, vkm_err *err) {
    vkm_status st = VKM_OK;
    for (size_t i = 0; i < s->n_shards && !st; i++) st = read_shard(s, &s->shards[i], err);
    return st ? st : index_names(s, err);
}

static vkm_status open_folder(vkm_st *s, const char *folder, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_status st = vkm_path_join(path, folder, "model.safetensors", err);
    if (st) return st;
    if (vkm_file_exists(path)) {
        st = add_shard(s, path, err);
        return st ? st : read_all(s, err);
    }
    st = vkm_path_join(path, folder, "model.safetensors.index.json", err);
    if (st) return st;
    if (!vkm_file_exists(path))
        return vkm_fail(
            err, VKM_FAILED,
            "%s: has neither model.safetensors nor model.safetensors.index.json; is it a "
            "model folder? (convert .bin weights to safetensors first)",
            folder);
    vkm_json *doc = NULL;
    vkm_jv map = {0};
    vkm_json_limits limits = {.max_bytes = HEADER_BYTES_MAX, .max_depth = 8};
    st = vkm_json_load(path, &limits, &doc, err);
    if (!st) st = vkm_json_get_object(vkm_json_root(doc), "weight_map", VKM_JSON_REQ, &map, err);
    if (!st) st = list_shards(s, folder, map, err);
    if (!st) st = read_all(s, err);
    if (!st) st = check_map(s, map, err);
    vkm_json_free(doc);
    return st;
}

vkm_status vkm_st_open(const char *path, vkm_st **out, vkm_err *err) {
    *out = NULL;
    vkm_st *s = vkm_calloc(1, sizeof *s, path, err);
    if (!s) return err->status;
    vkm_status st = VKM_OK;
    if (!(s->path = strdup(path)))
        st = vkm_fail(err, VKM_FAILED, "%s: out of host memory", path);
    else if (vkm_dir_exists(path))
        st = open_folder(s, path, err);
    else if (!(st = add_shard(s, path, err)))
        st = read_all(s, err);
    if (st)
        vkm_st_close(s);
    else
        *out = s;
    return st;
}

void vkm_st_close(vkm_st *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_shards; i++) {
        vkm_json_free(s->shards[i].header);
        vkm_map_close(&s->shards[i].map);
        free(s->shards[i].path);
    }
    free(s->shards);
    free(s->tensors);
    free(s->slots);
    free(s->path);
    free(s);
}

size_t vkm_st_count(const vkm_st *s) {
    return s->n;
}
const vkm_st_tensor *vkm_st_at(const vkm_st *s, size_t i) {
    return &s->tensors[i];
}

const char *vkm_st_metadata(const vkm_st *s, const char *key) {
    for (size_t i = 0; i < s->n_shards; i++) {
        vkm_jv v =
            vkm_json_find(vkm_json_find(vkm_json_root(s->shards[i].header), "__metadata__"), key);
        const char *value = NULL;
        vkm_err err = {0};
        if (v.v && !vkm_json_str(v, &value, &err)) return value;
    }
    return NULL;
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

vkm_status vkm_st_expect(const vkm_st *s, const char *name, uint32_t n_dims, const uint64_t *shape,
                         const vkm_st_tensor **out, vkm_err *err) {
    const vkm_st_tensor *t = vkm_st_find(s, name);
    if (!t) {
        char hint[VKM_CHOICE_BYTES * 2] = "";
        const char **names = calloc(s->n + 1, sizeof *names);
        for (size_t i = 0; i < s->n && names; i++) names[i] = s->tensors[i].name;
        if (names) vkm_text_hint(name, "", names, s->n, hint);
        free(names);
        return vkm_fail(err, VKM_FAILED,
                        "%s: '%s' is not among its %zu tensors%s; fetch or save it again", s->path,
                        name, s->n, hint);
    }
    if (t->n_dims != n_dims || (n_dims && memcmp(t->shape, shape, n_dims * sizeof *shape) != 0)) {
        char is[128], need[128];
        shape_text(t->shape, t->n_dims, is);
        shape_text(shape, n_dims, need);
        return vkm_fail(err, VKM_FAILED,
                        "%s: '%s' is %s, %s is needed; does it belong to this "
                        "config?",
                        t->file, name, is, need);
    }
    *out = t;
    return VKM_OK;
}

vkm_status vkm_st_get(const vkm_st *s, const char *name, vkm_st_dtype dtype, uint32_t n_dims,
                      const uint64_t *shape, const vkm_st_tensor **out, vkm_err *err) {
    vkm_status st = vkm_st_expect(s, name, n_dims, shape, out, err);
    if (!st && (*out)->dtype != dtype)
        st = vkm_fail(err, VKM_FAILED, "%s: '%s' is %s, %s is needed; save it again so",
                      (*out)->file, name, dtypes[(*out)->dtype].name, dtypes[dtype].name);
    return st;
}

static float load(const vkm_st_tensor *t, uint64_t i) {
    uint16_t h;
    float f;
    if (t->dtype == VKM_ST_F32) {
        memcpy(&f, t->data + 4 * i, 4);
        return f;
    }
    memcpy(&h, t->data + 2 * i, 2);
    if (t->dtype == VKM_ST_BF16) return vkm_from_bits((uint32_t)h << 16);
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF;
    if (exponent == 31) return vkm_from_bits(sign | 0x7F800000u | mantissa << 13);
    if (exponent) return vkm_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    f = (float)mantissa * 0x1p-24f;
    return sign ? -f : f;
}

static vkm_status fail_value(const vkm_st_tensor *t, uint64_t i, vkm_err *err) {
    return vkm_fail(err, VKM_FAILED,
                    "%s: '%.200s' holds NaN or Inf at element %" PRIu64
                    "; the file is damaged (fetch it again) or its training diverged",
                    t->file, t->name, i);
}

static vkm_status check_convertible(const vkm_st_tensor *t, uint64_t first, uint64_t n,
                                    vkm_err *err) {
    VKM_BUG_ON(first > t->n_elems || n > t->n_elems - first, "%s: %" PRIu64 " + %" PRIu64, t->name,
               first, n);
    if (t->dtype == VKM_ST_BF16 || t->dtype == VKM_ST_F16 || t->dtype == VKM_ST_F32) return VKM_OK;
    return vkm_fail(err, VKM_FAILED, "%s: '%.200s' is %s; save the model as BF16, F16 or F32",
                    t->file, t->name, dtypes[t->dtype].name);
}

vkm_status vkm_st_to_bf16(const vkm_st_tensor *t, uint64_t first, uint64_t n, uint16_t *out,
                          vkm_err *err) {
    vkm_status st = check_convertible(t, first, n, err);
    if (st) return st;
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        out[i] = (uint16_t)vkm_bf16z(load(t, first + i));
        bad |= (out[i] & 0x7F80u) == 0x7F80u; /* also an F32 that rounds to Inf */
    }
    if (!bad) return VKM_OK;
    for (uint64_t i = 0;; i++)
        if ((out[i] & 0x7F80u) == 0x7F80u) return fail_value(t, first + i, err);
}

vkm_status vkm_st_to_f32(const vkm_st_tensor *t, uint64_t first, uint64_t n, float *out,
                         vkm_err *err) {
    vkm_status st = check_convertible(t, first, n, err);
    if (st) return st;
    uint32_t bad = 0;
    for (uint64_t i = 0; i < n; i++) {
        out[i] = vkm_canon(load(t, first + i));
        bad |= (vkm_bits(out[i]) & 0x7F800000u) == 0x7F800000u;
    }
    if (!bad) return VKM_OK;
    for (uint64_t i = 0;; i++)
        if ((vkm_bits(out[i]) & 0x7F800000u) == 0x7F800000u) return fail_value(t, first + i, err);
}

void vkm_st_done(const vkm_st_tensor *t, uint64_t first, uint64_t n) {
    enum { PAGE = 1 << 12 };
    uint64_t bytes = vkm_st_dtype_bytes(t->dtype), at = (uint64_t)(uintptr_t)t->data;
    uint64_t from = (at + first * bytes + PAGE - 1) / PAGE * PAGE,
             to = (at + (first + n) * bytes) / PAGE * PAGE;
    if (to > from) (void)madvise((void *)(uintptr_t)from, to - from, MADV_DONTNEED);
}
