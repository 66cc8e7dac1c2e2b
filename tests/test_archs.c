/* Every architecture and odd shapes against tests/golden/archs.json, which
 * tools/make_golden_archs.py made with torch: a float64 forward that rounds the operands of
 * products as we do, and transformers in fp32. Both backends give the same lines. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "tmpdir.h"
#include "program.h"

static const char *text_of(vkm_jv object, const char *key) {
    const char *s;
    vkm_err err = {0};
    assert_int_equal(vkm_json_get_str(object, key, VKM_JSON_REQ, &s, &err), VKM_OK);
    return s;
}

static void put_ids(vkm_strbuf *b, vkm_jv row, const char *key) {
    char sign = '[';
    vkm_err err = {0};
    vkm_strbuf_printf(b, "\"%s\": ", key);
    for (vkm_jv e = vkm_json_first(vkm_json_find(row, key)); e.v; e = vkm_json_next(e)) {
        int64_t id;
        assert_int_equal(vkm_json_i64(e, 0, 1 << 20, &id, &err), VKM_OK);
        vkm_strbuf_printf(b, "%c%lld", sign, (long long)id);
        sign = ',';
    }
    vkm_strbuf_putc(b, ']');
}

/* The largest difference of the lines in `out` from the golden rows. */
static double difference(vkm_jv model, const char *of) {
    const char *at = out;
    double most = 0;
    size_t n = 0;
    vkm_err err = {0};
    for (vkm_jv row = vkm_json_first(vkm_json_find(model, of)); row.v; row = vkm_json_next(row)) {
        at = strstr(at, "\"logprobs\": [");
        assert_non_null(at);
        at += 13;
        for (vkm_jv e = vkm_json_first(row); e.v; e = vkm_json_next(e), n++) {
            double x;
            char *end;
            assert_int_equal(vkm_json_double(e, -1e3, 0, &x, &err), VKM_OK);
            double d = fabs(strtod(at, &end) - x);
            most = d > most ? d : most;
            at = end + 1;
        }
    }
    assert_int_equal(n, 360);
    return most;
}

static void every_architecture_equals_torch(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_json *golden;
    size_t n = 0;
    if (vkm_json_load(VKM_SOURCE_DIR "/tests/golden/archs.json", NULL, &golden, &err))
        fail_msg("%s", err.msg);
    vkm_jv models = vkm_json_find(vkm_json_root(golden), "models");
    for (vkm_jv m = vkm_json_first(models); m.v; m = vkm_json_next(m), n++) {
        vkm_strbuf lines = {0};
        for (vkm_jv r = vkm_json_first(vkm_json_find(m, "rows")); r.v; r = vkm_json_next(r)) {
            vkm_strbuf_putc(&lines, '{');
            put_ids(&lines, r, "prompt_ids");
            vkm_strbuf_puts(&lines, ", ");
            put_ids(&lines, r, "completion_ids");
            vkm_strbuf_puts(&lines, "}\n");
        }
        put_file("rows.jsonl", lines.data, lines.n);
        vkm_strbuf_free(&lines);
        works(vkmoe("init-model %s --force --output '%s'", text_of(m, "init"), in_dir("model")));
        works(vkmoe("score --device lavapipe --model '%s' --data '%s'", in_dir("model"),
                    in_dir("rows.jsonl")));
        char *device = strdup(out);
        works(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir("model"),
                    in_dir("rows.jsonl")));
        assert_string_equal(out, device);
        free(device);
        double rounded = difference(m, "rounded"), plain = difference(m, "transformers");
        print_message("%-26s %.1e nats from the rounded reference, %.1e from transformers\n",
                      text_of(m, "name"), rounded, plain);
        /* sums in fp32 flip roundings of operands; transformers does not round them at all */
        assert_true(rounded < 3e-3 && plain < 5e-3);
    }
    assert_int_equal(n, 8);
    vkm_json_free(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_architecture_equals_torch)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
