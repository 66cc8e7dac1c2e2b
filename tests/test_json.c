/* The strict JSON layer, the writer, files, hashes and word distance. */
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>
#include <dirent.h>
#include <zlib.h>
#include <cmocka.h>
#include "tmpdir.h"

static vkm_status parse(const char *text, size_t n, vkm_json **doc, vkm_err *err) {
    *err = (vkm_err){0};
    return vkm_json_parse(text, n, "t.json", NULL, doc, err);
}

static void refuses_what_is_not_json(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "t.json:1:1: the text ends where a value is expected"},
        {"{\"a\": 1, \"a\": 2}", "t.json:1:15: a: this key occurs twice; remove one"},
        {"{\"a\": 1, \"\\u0061\": 2}", "t.json:1:20: a: this key occurs twice; remove one"},
        {"{\"x\": [1, {\"b\":0,\"b\":0}]}",
         "t.json:1:22: x[1].b: this key occurs twice; remove one"},
        {"{} x", "t.json:1:4: text after the value"},
        {"[1,\n 012]", "t.json:2:3: a number with a leading zero"},
        {"1e400", "t.json:1:1: a number too large for a double"},
        {"-", "t.json:1:2: not a number"},
        {"1.", "t.json:1:3: a number needs digits after its point"},
        {"1e", "t.json:1:3: a number needs digits in its exponent"},
        {".5", "t.json:1:1: expected a value"},
        {"+1", "t.json:1:1: expected a value"},
        {"\"\xff\"", "t.json:1:2: invalid UTF-8; save the file as UTF-8"},
        {"\"\xc0\x80\"", "t.json:1:2: invalid UTF-8; save the file as UTF-8"},
        {"\"\xed\xa0\x80\"", "t.json:1:2: invalid UTF-8; save the file as UTF-8"},
        {"\"\\ud800x\"", "t.json:1:8: a lone surrogate (\\uD800 to \\uDBFF)"},
        {"\"\\u0000\"", "t.json:1:2: a NUL (\\u0000) in a string is not supported; leave it out"},
        {"\"\\x41\"", "t.json:1:2: unknown escape in a string"},
        {"\"a\nb\"", "t.json:1:3: a control character in a string (is the closing quote missing?)"},
        {"\"abc", "t.json:1:5: the text ends inside a string"},
        {"[1, 2", "t.json:1:6: the text ends inside an object or array"},
        {"[1,]", "t.json:1:4: expected a value"},
        {"[1 2]", "t.json:1:4: expected ',' or ']'"},
        {"{\"a\" 1}", "t.json:1:6: expected ':' after a key"},
        {"{a: 1}", "t.json:1:2: expected a key in double quotes"},
        {"{\"a\": 1,}", "t.json:1:9: expected a key in double quotes"},
        {"[NaN]", "t.json:1:2: NaN and Infinity are not JSON; write null or a number"},
        {"-Infinity", "t.json:1:1: NaN and Infinity are not JSON; write null or a number"},
        {"nul", "t.json:1:1: expected a value"},
        {"// no\n1", "t.json:1:1: expected a value"},
        {"0.00000000000000000000000000000000000000000000000000000000000000001",
         "t.json:1:1: a number of more than 63 characters; shorten it"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_json *doc;
        vkm_err err;
        assert_int_equal(parse(cases[i].text, strlen(cases[i].text), &doc, &err), VKM_FAILED);
        assert_null(doc);
        assert_string_equal(err.msg, cases[i].message);
    }
    vkm_json *doc;
    vkm_err err;
    assert_int_equal(parse("1\0", 2, &doc, &err), VKM_FAILED);
    assert_string_equal(err.msg, "t.json:1:2: a NUL after the value");
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    assert_int_equal(parse(deep, 200, &doc, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "nested too deeply"));
    err = (vkm_err){0};
    vkm_json_limits small = {.max_bytes = 4};
    assert_int_equal(vkm_json_parse("[1,2]", 5, "t.json", &small, &doc, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "4 bytes allowed"));
}

static void refuses_every_truncation(void **state) {
    (void)state;
    static const char text[] = "{\"a\": [1, -2.5e3, \"x\\u00e9\\ud83d\\ude00\xc3\xa9\"], \"b\": "
                               "{\"c\": null, \"d\": true}}";
    vkm_json *doc;
    vkm_err err;
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_int_equal(parse(text, n, &doc, &err), VKM_FAILED);
    assert_int_equal(parse(text, sizeof text - 1, &doc, &err), VKM_OK);
    vkm_json_free(doc);
}

static void repeated_keys_in_large_objects(void **state) {
    (void)state;
    vkm_strbuf b = {0};
    vkm_strbuf_puts(&b, "{");
    for (int i = 0; i < 5000; i++) vkm_strbuf_printf(&b, "\"k%d\": %d, ", i, i);
    size_t n = b.n;
    vkm_strbuf_puts(&b, "\"z\": 0}");
    vkm_json *doc;
    vkm_err err;
    assert_int_equal(parse(b.data, b.n, &doc, &err), VKM_OK);
    assert_int_equal(vkm_json_count(vkm_json_root(doc)), 5001);
    vkm_json_free(doc);
    b.n = n;
    vkm_strbuf_puts(&b, "\"k1234\": 0}");
    assert_int_equal(parse(b.data, b.n, &doc, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "k1234: this key occurs twice"));
    vkm_strbuf_free(&b);
}

static void typed_values(void **state) {
    (void)state;
    static const char text[] =
        "{\"i\": 9007199254740993, \"min\": -9223372036854775808, \"u\": 18446744073709551615,\n"
        " \"e\": 1e3, \"f\": 2.5, \"s\": \"a\\u00e9\\n\", \"t\": true, \"z\": null,\n"
        " \"o\": {\"k\": [1, \"x\"]}, \"big\": 1e300, \"neg\": -1}";
    vkm_json *doc;
    vkm_err err;
    assert_int_equal(parse(text, sizeof text - 1, &doc, &err), VKM_OK);
    vkm_jv root = vkm_json_root(doc);
    int64_t i = 0;
    uint64_t u = 0;
    double d = 0;
    bool t = false;
    const char *s = NULL;
    assert_int_equal(vkm_json_get_i64(root, "i", VKM_JSON_REQ, INT64_MIN, INT64_MAX, &i, &err),
                     VKM_OK);
    assert_true(i == 9007199254740993);
    assert_int_equal(vkm_json_get_i64(root, "min", VKM_JSON_REQ, INT64_MIN, INT64_MAX, &i, &err),
                     VKM_OK);
    assert_true(i == INT64_MIN);
    assert_int_equal(vkm_json_get_u64(root, "u", VKM_JSON_REQ, &u, &err), VKM_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(vkm_json_get_i64(root, "e", VKM_JSON_REQ, 0, 1000, &i, &err), VKM_OK);
    assert_true(i == 1000);
    assert_int_equal(vkm_json_get_i64(root, "z", VKM_JSON_OPT, 0, 1, &i, &err), VKM_OK);
    assert_int_equal(vkm_json_get_i64(root, "none", VKM_JSON_OPT, 0, 1, &i, &err), VKM_OK);
    assert_true(i == 1000);
    assert_int_equal(vkm_json_get_double(root, "f", VKM_JSON_REQ, 0, 3, &d, &err), VKM_OK);
    assert_true(d == 2.5);
    assert_int_equal(vkm_json_get_str(root, "s", VKM_JSON_REQ, &s, &err), VKM_OK);
    assert_string_equal(s, "a\xc3\xa9\n");
    assert_int_equal(vkm_json_get_bool(root, "t", VKM_JSON_REQ, &t, &err), VKM_OK);
    assert_true(t);

#define REFUSED(call, message)                                                                     \
    err = (vkm_err){0};                                                                            \
    assert_int_equal(call, VKM_FAILED);                                                            \
    assert_string_equal(err.msg, message)
    REFUSED(vkm_json_get_i64(root, "u", VKM_JSON_REQ, 0, 9, &i, &err),
            "t.json:1:59: u: must be from 0 to 9, is 18446744073709551615");
    REFUSED(vkm_json_get_i64(root, "f", VKM_JSON_REQ, 0, 9, &i, &err),
            "t.json:2:17: f: must be an integer, is 2.5");
    REFUSED(vkm_json_get_i64(root, "big", VKM_JSON_REQ, 0, 9, &i, &err),
            "t.json:3:31: big: 1.0000000000000001e+300 does not fit a 64-bit integer; "
            "write it in plain digits");
    REFUSED(vkm_json_get_u64(root, "neg", VKM_JSON_REQ, &u, &err),
            "t.json:3:45: neg: must not be negative");
    REFUSED(vkm_json_get_double(root, "f", VKM_JSON_REQ, 0, 1, &d, &err),
            "t.json:2:17: f: must be from 0 to 1, is 2.5");
    REFUSED(vkm_json_get_str(root, "f", VKM_JSON_REQ, &s, &err),
            "t.json:2:17: f: must be a string, is a number");
    REFUSED(vkm_json_get_bool(root, "z", VKM_JSON_REQ, &t, &err),
            "t.json:2:56: z: must be true or false, is null");
    REFUSED(vkm_json_get_bool(root, "none", VKM_JSON_REQ, &t, &err),
            "t.json:1:1: the key \"none\" is missing; add it");
    vkm_jv o, k;
    REFUSED(vkm_json_get_array(root, "o", VKM_JSON_REQ, &k, &err),
            "t.json:3:7: o: must be an array, is an object");
    err = (vkm_err){0};
    assert_int_equal(vkm_json_get_object(root, "o", VKM_JSON_REQ, &o, &err), VKM_OK);
    assert_int_equal(vkm_json_get_array(o, "k", VKM_JSON_REQ, &k, &err), VKM_OK);
    assert_int_equal(vkm_json_count(k), 2);
    vkm_jv e = vkm_json_first(k);
    assert_int_equal(vkm_json_i64(e, 0, 9, &i, &err), VKM_OK);
    REFUSED(vkm_json_i64(vkm_json_next(e), 0, 9, &i, &err),
            "t.json:3:17: o.k[1]: must be an integer, is a string");
    static const char *const known[] = {"key", "kernel"};
    REFUSED(vkm_json_known_keys(o, known, 2, &err),
            "t.json:3:13: o.k: unknown key; remove it or correct its name");
    static const char *const spelled[] = {"i", "min", "u", "e", "f", "s", "t", "z", "o", "bug"};
    REFUSED(vkm_json_known_keys(root, spelled, VKM_COUNTOF(spelled), &err),
            "t.json:3:31: big: unknown key (did you mean 'bug'?); remove it or correct its name");
    vkm_json_free(doc);
}

static void nan_is_null_when_asked(void **state) {
    (void)state;
    vkm_json *doc;
    vkm_err err = {0};
    vkm_json_limits l = {.nan_as_null = true};
    static const char text[] = "[NaN, \"NaN\", -Infinity, 1, Infinity]";
    assert_int_equal(vkm_json_parse(text, sizeof text - 1, "t", &l, &doc, &err), VKM_OK);
    static const vkm_json_type types[] = {VKM_JSON_NULL, VKM_JSON_STRING, VKM_JSON_NULL,
                                          VKM_JSON_NUMBER, VKM_JSON_NULL};
    size_t i = 0;
    for (vkm_jv e = vkm_json_first(vkm_json_root(doc)); e.v; e = vkm_json_next(e))
        assert_int_equal(vkm_json_typeof(e), types[i++]);
    assert_int_equal(i, 5);
    vkm_json_free(doc);
}

static void writes_what_it_reads(void **state) {
    (void)state;
    vkm_strbuf b = {0};
    vkm_jw w = vkm_jw_begin(&b, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "s", "q\"\\\n\t\x01\xc3\xa9\xff");
    vkm_jw_i64(&w, "i", INT64_MIN);
    vkm_jw_u64(&w, "u", UINT64_MAX);
    vkm_jw_double(&w, "d", 0.1);
    vkm_jw_double(&w, "whole", 10000);
    vkm_jw_double(&w, "large", 1.5e300);
    vkm_jw_double(&w, "third", 1.0 / 3);
    vkm_jw_float(&w, "f", 0.1f);
    vkm_jw_double(&w, "nan", NAN);
    vkm_jw_float(&w, "inf", INFINITY);
    vkm_jw_arr(&w, "a");
    vkm_jw_bool(&w, NULL, true);
    vkm_jw_null(&w, NULL);
    vkm_jw_obj(&w, NULL);
    vkm_jw_end_obj(&w);
    vkm_jw_end_arr(&w);
    vkm_jw_end_obj(&w);
    assert_string_equal(vkm_strbuf_str(&b),
                        "{\"s\": \"q\\\"\\\\\\n\\t\\u0001\xc3\xa9\xef\xbf\xbd\", "
                        "\"i\": -9223372036854775808, \"u\": 18446744073709551615, \"d\": 0.1, "
                        "\"whole\": 10000.0, \"large\": 1.5e+300, "
                        "\"third\": 0.3333333333333333, \"f\": 0.1, \"nan\": null, \"inf\": null, "
                        "\"a\": [true, null, {}]}");
    vkm_json *doc;
    vkm_err err;
    assert_int_equal(parse(b.data, b.n, &doc, &err), VKM_OK);
    double third;
    assert_int_equal(
        vkm_json_get_double(vkm_json_root(doc), "third", VKM_JSON_REQ, 0, 1, &third, &err), VKM_OK);
    assert_true(third == 1.0 / 3);
    vkm_json_free(doc);
    vkm_strbuf_clear(&b);
    w = vkm_jw_begin(&b, 2);
    vkm_jw_obj(&w, NULL);
    vkm_jw_arr(&w, "a");
    vkm_jw_i64(&w, NULL, 1);
    vkm_jw_i64(&w, NULL, 2);
    vkm_jw_end_arr(&w);
    vkm_jw_obj(&w, "o");
    vkm_jw_end_obj(&w);
    vkm_jw_end_obj(&w);
    assert_string_equal(vkm_strbuf_str(&b), "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"o\": {}\n}");
    vkm_strbuf_free(&b);
}

/* ---- files -------------------------------------------------------------------------------------
 */

static int files_in_dir(void) {
    int n = 0;
    DIR *d = opendir(tmpdir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void saves_are_atomic(void **state) {
    (void)state;
    vkm_err err = {0};
    const char *path = in_dir("a.txt");
    int before = files_in_dir();
    assert_int_equal(vkm_file_save(path, "old", 3, &err), VKM_OK);
    vkm_save s;
    assert_int_equal(vkm_save_begin(&s, path, &err), VKM_OK);
    assert_int_equal(vkm_save_write(&s, "new", 3, &err), VKM_OK);
    char *data;
    size_t n;
    assert_int_equal(vkm_file_read(path, 100, &data, &n, &err), VKM_OK);
    assert_string_equal(data, "old");
    free(data);
    vkm_save_abort(&s);
    vkm_save_abort(&s);
    assert_int_equal(files_in_dir(), before + 1);

    /* a disk that is full after 4 KiB: the old file stays, no temporary file does */
    struct rlimit old_limit, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
    limit = old_limit;
    limit.rlim_cur = 4096;
    void (*old_handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    char big[8192] = {0};
    vkm_status st = vkm_file_save(path, big, sizeof big, &err);
    setrlimit(RLIMIT_FSIZE, &old_limit);
    signal(SIGXFSZ, old_handler);
    assert_int_equal(st, VKM_FAILED);
    assert_non_null(strstr(err.msg, "cannot write"));
    assert_int_equal(files_in_dir(), before + 1);
    err = (vkm_err){0};
    assert_int_equal(vkm_file_read(path, 100, &data, &n, &err), VKM_OK);
    assert_string_equal(data, "old");
    free(data);

    assert_int_equal(vkm_file_save("/nonexistent/x", "", 0, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "is the path right?"));
}

static void reads_and_maps(void **state) {
    (void)state;
    vkm_err err = {0};
    char *data;
    size_t n;
    gzFile f = gzopen(in_dir("z.gz"), "wb");
    assert_non_null(f);
    char line[1000];
    memset(line, 'x', sizeof line);
    for (int i = 0; i < 100; i++) assert_int_equal(gzwrite(f, line, sizeof line), sizeof line);
    gzclose(f);
    assert_int_equal(vkm_file_read(in_dir("z.gz"), 100000, &data, &n, &err), VKM_OK);
    assert_int_equal(n, 100000);
    assert_int_equal(data[n], 0);
    free(data);
    assert_int_equal(vkm_file_read(in_dir("z.gz"), 99999, &data, &n, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "unpacks to more than"));
    err = (vkm_err){0};
    vkm_map m;
    assert_int_equal(vkm_map_open(&m, in_dir("z.gz"), &err), VKM_OK);
    assert_int_equal(vkm_file_save(in_dir("cut.gz"), m.data, m.n - 6, &err), VKM_OK);
    vkm_map_close(&m);
    assert_int_equal(vkm_file_read(in_dir("cut.gz"), 1 << 20, &data, &n, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "gzip"));
    err = (vkm_err){0};
    assert_int_equal(vkm_file_save(in_dir("empty"), NULL, 0, &err), VKM_OK);
    assert_int_equal(vkm_map_open(&m, in_dir("empty"), &err), VKM_OK);
    assert_int_equal(m.n, 0);
    vkm_map_close(&m);
    assert_int_equal(vkm_file_read(in_dir("empty"), 0, &data, &n, &err), VKM_OK);
    assert_int_equal(n, 0);
    free(data);
    assert_int_equal(vkm_file_read(tmpdir, 10, &data, &n, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "is a folder"));
    err = (vkm_err){0};
    assert_int_equal(vkm_dir_make(in_dir("p/q//r"), &err), VKM_OK);
    assert_int_equal(vkm_dir_make(in_dir("p/q//r/"), &err), VKM_OK);
    assert_true(vkm_dir_exists(in_dir("p/q/r")));
    assert_false(vkm_file_exists(in_dir("p/q/r")));
    assert_int_equal(vkm_dir_make(in_dir("empty/x"), &err), VKM_FAILED);
    err = (vkm_err){0};
    assert_int_equal(vkm_file_append(in_dir("log"), "a\n", 2, &err), VKM_OK);
    assert_int_equal(vkm_file_append(in_dir("log"), "[1]\n\n [2 ", 9, &err), VKM_OK);
    assert_int_equal(vkm_file_read(in_dir("log"), 10, &data, &n, &err), VKM_FAILED);
    err = (vkm_err){0};
    vkm_jsonl *l;
    vkm_json *doc;
    assert_int_equal(vkm_jsonl_open(in_dir("log"), NULL, &l, &err), VKM_OK);
    assert_int_equal(vkm_jsonl_next(l, &doc, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "log:1:1: expected a value"));
    err = (vkm_err){0};
    assert_int_equal(vkm_jsonl_next(l, &doc, &err), VKM_OK);
    assert_int_equal(vkm_jsonl_line(l), 2);
    vkm_json_free(doc);
    assert_int_equal(vkm_jsonl_next(l, &doc, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "log:4:5: the text ends inside"));
    err = (vkm_err){0};
    assert_int_equal(vkm_jsonl_next(l, &doc, &err), VKM_OK);
    assert_null(doc);
    vkm_jsonl_free(l);
}

static void hashes_do_not_depend_on_cuts(void **state) {
    (void)state;
    char hex[VKM_HASH_HEX];
    vkm_hash_hex(vkm_hash("", 0), hex); /* xxHash's published value for empty input */
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    unsigned char data[5000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7 + i / 256);
    vkm_hash128 whole = vkm_hash(data, sizeof data);
    for (size_t cut = 1; cut < sizeof data; cut = cut * 3 + 1) {
        vkm_hash_state s;
        vkm_hash_begin(&s);
        for (size_t at = 0; at < sizeof data; at += cut)
            vkm_hash_add(&s, data + at, cut < sizeof data - at ? cut : sizeof data - at);
        vkm_hash128 h = vkm_hash_now(&s);
        assert_true(h.lo == whole.lo && h.hi == whole.hi);
    }
    data[4999] ^= 1;
    assert_true(vkm_hash(data, sizeof data).lo != whole.lo);
}

/* What a file says may be quoted; the message stays one line and commands no terminal. */
static void a_message_is_one_line(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_fail(&err, VKM_FAILED, "'%s' is no name", "a\nb\x1b[2J\tc\x7f\xC3\xA9");
    assert_string_equal(err.msg, "'a?b?[2J?c?\xC3\xA9' is no name");
    vkm_fail_in(&err, "line\r%d", 3);
    assert_string_equal(err.msg, "line?3: 'a?b?[2J?c?\xC3\xA9' is no name");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_one_line),
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(repeated_keys_in_large_objects),
        cmocka_unit_test(typed_values),
        cmocka_unit_test(nan_is_null_when_asked),
        cmocka_unit_test(writes_what_it_reads),
        cmocka_unit_test(saves_are_atomic),
        cmocka_unit_test(reads_and_maps),
        cmocka_unit_test(hashes_do_not_depend_on_cuts),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
