/* The safetensors reader against hostile files, the writer, and the conversions. */
#include "base/strbuf.h"
#include "model/safetensors.h"
#include "ops/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tmpdir.h"

/* A file of a header text and n data bytes. */
static const char *put_st(const char *name, const char *header, size_t n) {
    vkm_strbuf b = {0};
    uint64_t len = strlen(header);
    unsigned char zero[256] = {0};
    for (int i = 0; i < 8; i++) vkm_strbuf_putc(&b, (char)(len >> 8 * i & 0xFF));
    vkm_strbuf_puts(&b, header);
    vkm_strbuf_add(&b, zero, n);
    const char *path = put_file(name, b.data, b.n);
    vkm_strbuf_free(&b);
    return path;
}

static void refuses_malformed_headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *message;
    } cases[] = {
        {"", 0, "ends where a value is expected"},
        {"[]", 0, "must be an object of tensors"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}", 4,
         "ends inside an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
         4, "a: this key occurs twice"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "a.dtype: unknown dtype \"F33\""},
        {"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "must be a string"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "\"dtype\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "\"shape\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "\"data_offsets\" is missing"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offset\":[0,4]}}", 4,
         "did you mean 'data_offsets'?"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "must be from 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4,
         "must be an integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "must be an array"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         "more than 8 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4,
         "elements overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 4,
         "bytes overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4,
         "ends before it begins"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4,
         "truncated; fetch it again"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
         "4 bytes, but (2) of F32 needs 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
         "'a' begins at data byte 4, after byte 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
         6, "'b' begins at data byte 2, before byte 4"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
         "1 bytes after the last tensor"},
        {"{\"a\":[]}", 0, "must be an object"},
        {"{\"__metadata__\":{\"x\":1}}", 0, "must be a string"},
        {"{\"__metadata__\":\"x\"}", 0, "must be an object of strings"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[[[[1]]]],\"data_offsets\":[0,4]}}", 4,
         "nested too deeply"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_st *s;
        vkm_err err = {0};
        const char *path = put_st("bad.safetensors", cases[i].header, cases[i].data);
        assert_int_equal(vkm_st_open(path, &s, &err), VKM_FAILED);
        assert_null(s);
        assert_has(err.msg, "bad.safetensors");
        assert_has(err.msg, cases[i].message);
    }
}

static const float some[6] = {1.5f, -2.25f, 0x1p-51f, 3.0e-39f, -0.0f, 1.00390625f};
static const uint16_t halves[4] = {0x3C00, 0xC000, 0x0001, 0x7BFF}; /* 1, -2, 2^-24, 65504 */
static const vkm_st_entry entries[] = {
    {"f", VKM_ST_F32, 2, {2, 3}},     {"h", VKM_ST_F16, 1, {4}}, {"scalar", VKM_ST_BF16, 0, {0}},
    {"empty", VKM_ST_F32, 2, {0, 7}}, {"n", VKM_ST_I64, 1, {1}},
};
static const struct {
    const void *bytes;
    size_t n;
} data[] = {{some, 24}, {halves, 8}, {"\x80\x3f", 2}, {"", 0}, {"\1\0\0\0\0\0\0\0", 8}};
static const vkm_st_meta meta[] = {{"format", "pt"}, {"step", "12"}};

/* Entries from `first` on. */
static void save(const char *path, size_t first, size_t n) {
    vkm_err err = {0};
    vkm_st_writer w;
    if (vkm_st_writer_begin(&w, path, entries + first, n, meta, VKM_COUNTOF(meta), &err))
        fail_msg("%s", err.msg);
    for (size_t i = first; i < first + n; i++)
        assert_int_equal(vkm_st_writer_add(&w, data[i].bytes, data[i].n, &err), VKM_OK);
    assert_int_equal(vkm_st_writer_commit(&w, &err), VKM_OK);
}

static void reads_what_it_wrote(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_st *s;
    const char *path = in_dir("good.safetensors");
    save(path, 0, VKM_COUNTOF(entries));
    assert_int_equal(vkm_st_open(path, &s, &err), VKM_OK);
    assert_int_equal(vkm_st_count(s), VKM_COUNTOF(entries));
    assert_string_equal(vkm_st_metadata(s, "step"), "12");
    assert_null(vkm_st_metadata(s, "none"));
    const vkm_st_tensor *t;
    for (size_t i = 0; i < VKM_COUNTOF(entries); i++) {
        const vkm_st_entry *e = &entries[i];
        assert_int_equal(vkm_st_get(s, e->name, e->dtype, e->n_dims, e->shape, &t, &err), VKM_OK);
        assert_memory_equal(t->data, data[i].bytes, t->n_bytes);
    }
    float f[6];
    uint16_t b[6];
    assert_int_equal(vkm_st_to_f32(vkm_st_find(s, "f"), 0, 6, f, &err), VKM_OK);
    static const float f_want[6] = {1.5f, -2.25f, 0x1p-51f, 0.0f, 0.0f, 1.00390625f};
    assert_memory_equal(f, f_want, sizeof f);
    assert_int_equal(vkm_st_to_bf16(vkm_st_find(s, "f"), 1, 5, b, &err), VKM_OK);
    static const uint16_t b_want[5] = {0xC010, 0, 0, 0, 0x3F80}; /* a tie goes to even */
    assert_memory_equal(b, b_want, sizeof b_want);
    assert_int_equal(vkm_st_to_f32(vkm_st_find(s, "h"), 0, 4, f, &err), VKM_OK);
    assert_true(f[0] == 1 && f[1] == -2 && f[2] == 0x1p-24f && f[3] == 65504);
    assert_int_equal(vkm_st_to_f32(vkm_st_find(s, "scalar"), 0, 1, f, &err), VKM_OK);
    assert_true(f[0] == 1);

    static const uint64_t shape[2] = {3, 2};
    assert_int_equal(vkm_st_expect(s, "f", 2, shape, &t, &err), VKM_FAILED);
    assert_has(err.msg, "'f' is (2,3), (3,2) is needed");
    err = (vkm_err){0};
    assert_int_equal(vkm_st_expect(s, "scalr", 0, NULL, &t, &err), VKM_FAILED);
    assert_has(err.msg, "'scalr' is not among its 5 tensors (did you mean 'scalar'?)");
    err = (vkm_err){0};
    assert_int_equal(vkm_st_get(s, "f", VKM_ST_BF16, 2, entries[0].shape, &t, &err), VKM_FAILED);
    assert_has(err.msg, "'f' is F32, BF16 is needed");
    err = (vkm_err){0};
    assert_int_equal(vkm_st_to_f32(vkm_st_find(s, "n"), 0, 1, f, &err), VKM_FAILED);
    assert_has(err.msg, "'n' is I64; save the model as BF16, F16 or F32");
    vkm_st_close(s);
}

static void a_file_may_hold_nothing(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_st *s;
    assert_int_equal(vkm_st_open(put_st("none.safetensors", "{}", 0), &s, &err), VKM_OK);
    assert_int_equal(vkm_st_count(s), 0);
    assert_null(vkm_st_find(s, "a"));
    vkm_st_close(s);
}

static void refuses_every_truncation(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_st *s;
    vkm_map m;
    const char *path = in_dir("good.safetensors");
    save(path, 0, VKM_COUNTOF(entries));
    assert_int_equal(vkm_map_open(&m, path, &err), VKM_OK);
    for (size_t n = 0; n < m.n; n++) {
        err = (vkm_err){0};
        assert_int_equal(vkm_st_open(put_file("cut.safetensors", m.data, n), &s, &err), VKM_FAILED);
        assert_has(err.msg, n < 8 ? "too short" : "truncated");
    }
    unsigned char longer[4096] = {0};
    memcpy(longer, m.data, m.n);
    err = (vkm_err){0};
    assert_int_equal(vkm_st_open(put_file("long.safetensors", longer, m.n + 1), &s, &err),
                     VKM_FAILED);
    longer[7] = 0x7F;
    err = (vkm_err){0};
    assert_int_equal(vkm_st_open(put_file("long.safetensors", longer, m.n), &s, &err), VKM_FAILED);
    assert_has(err.msg, "not a safetensors file");
    /* one changed byte of the header may be refused or read, never crash */
    uint64_t header = m.data[8] ? (uint64_t)m.data[0] | (uint64_t)m.data[1] << 8 : 0;
    for (size_t i = 0; i < 8 + header; i++)
        for (int bit = 0; bit < 8; bit += 3) {
            memcpy(longer, m.data, m.n);
            longer[i] ^= (unsigned char)(1 << bit);
            err = (vkm_err){0};
            if (!vkm_st_open(put_file("flip.safetensors", longer, m.n), &s, &err)) vkm_st_close(s);
        }
    vkm_map_close(&m);
}

static void refuses_nan_and_inf(void **state) {
    (void)state;
    static const struct {
        vkm_st_dtype dtype;
        const void *data;
    } cases[] = {
        {VKM_ST_F32, "\0\0\x80\x3f\0\0\xc0\x7f\0\0\x80\x3f"}, /* 1, NaN, 1 */
        {VKM_ST_F32, "\0\0\x80\x3f\0\0\x80\xff\0\0\x80\x3f"}, /* 1, -Inf, 1 */
        {VKM_ST_BF16, "\x80\x3f\x81\x7f\x80\x3f"},
        {VKM_ST_F16, "\x00\x3c\x00\x7c\x00\x3c"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_err err = {0};
        vkm_st *s;
        vkm_st_entry e = {"w", cases[i].dtype, 1, {3}};
        vkm_st_writer w;
        if (vkm_st_writer_begin(&w, in_dir("nan.safetensors"), &e, 1, NULL, 0, &err) ||
            vkm_st_writer_add(&w, cases[i].data, w.left, &err) || vkm_st_writer_commit(&w, &err))
            fail_msg("%s", err.msg);
        assert_int_equal(vkm_st_open(in_dir("nan.safetensors"), &s, &err), VKM_OK);
        float f[3];
        uint16_t b[3];
        assert_int_equal(vkm_st_to_f32(vkm_st_at(s, 0), 0, 3, f, &err), VKM_FAILED);
        assert_has(err.msg, "'w' holds NaN or Inf at element 1");
        err = (vkm_err){0};
        assert_int_equal(vkm_st_to_bf16(vkm_st_at(s, 0), 1, 2, b, &err), VKM_FAILED);
        assert_has(err.msg, "'w' holds NaN or Inf at element 1");
        vkm_st_close(s);
    }
}

static vkm_status open_sharded(const char *index, const char **message) {
    static vkm_err err;
    vkm_st *s;
    err = (vkm_err){0};
    put_file("model.safetensors.index.json", index, strlen(index));
    vkm_status st = vkm_st_open(tmpdir, &s, &err);
    vkm_st_close(s);
    *message = err.msg;
    return st;
}

static void reads_sharded_folders(void **state) {
    (void)state;
    vkm_err err = {0};
    const char *message;
    vkm_st *s;
    assert_int_equal(vkm_st_open(tmpdir, &s, &err), VKM_FAILED);
    assert_has(err.msg, "has neither model.safetensors nor");
    err = (vkm_err){0};
    save(in_dir("1.st"), 0, 2);
    save(in_dir("2.st"), 2, 1);
    static const struct {
        const char *index, *message;
    } cases[] = {
        {"{\"weight_map\":{\"f\":\"1.st\",\"h\":\"1.st\",\"scalar\":\"2.st\"}}", NULL},
        {"{\"weight_map\":{\"f\":\"1.st\",\"h\":\"2.st\",\"scalar\":\"2.st\"}}",
         "weight_map.h: the tensor is not"},
        {"{\"weight_map\":{\"f\":\"1.st\",\"g\":\"1.st\",\"scalar\":\"2.st\"}}",
         "weight_map.g: the tensor is not"},
        {"{\"weight_map\":{\"f\":\"1.st\",\"scalar\":\"2.st\"}}",
         "names 2 tensors, the files hold 3"},
        {"{\"weight_map\":{\"f\":\"3.st\"}}", "3.st: cannot open"},
        {"{\"weight_map\":{\"f\":\"../1.st\"}}", "name of a file in the same folder"},
        {"{\"weight_map\":{\"f\":\"..\"}}", "name of a file in the same folder"},
        {"{\"weight_map\":{\"f\":1}}", "must be a string"},
        {"{}", "\"weight_map\" is missing"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_status st = open_sharded(cases[i].index, &message);
        assert_int_equal(st, cases[i].message ? VKM_FAILED : VKM_OK);
        if (cases[i].message) assert_has(message, cases[i].message);
    }
    save(in_dir("2.st"), 0, 1);
    assert_int_equal(open_sharded(cases[0].index, &message), VKM_FAILED);
    assert_has(message, "'f' is in both");
}

static void a_given_up_save_leaves_nothing(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_st_writer w;
    assert_int_equal(vkm_st_writer_begin(&w, in_dir("x.st"), entries, 1, NULL, 0, &err), VKM_OK);
    assert_int_equal(vkm_st_writer_add(&w, some, 8, &err), VKM_OK);
    vkm_st_writer_abort(&w);
    assert_false(vkm_file_exists(in_dir("x.st")));
    assert_int_equal(vkm_st_writer_add(&w, some, 8, &err), VKM_FAILED);
    err = (vkm_err){0};
    assert_int_equal(vkm_st_writer_begin(&w, in_dir("no/x.st"), entries, 1, NULL, 0, &err),
                     VKM_FAILED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_malformed_headers),
        cmocka_unit_test(reads_what_it_wrote),
        cmocka_unit_test(a_file_may_hold_nothing),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(refuses_nan_and_inf),
        cmocka_unit_test(reads_sharded_folders),
        cmocka_unit_test(a_given_up_save_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
