/* The shipped warm starts of the tiny testbed: their files are those that were recorded, and the
 * first steps of their making give the recorded weights. All of it: tools/make_tiny_warm.sh, or
 * this test with VKMOE_LONG_TESTS=1 (ten minutes). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/json.h"
#include "tmpdir.h"

#define TINY VKM_SOURCE_DIR "/data/tiny"

static vkm_jv recorded(const vkm_json *doc, const char *name) {
    vkm_jv row = {0};
    vkm_err err = {0};
    if (vkm_json_get_object(vkm_json_root(doc), name, VKM_JSON_REQ, &row, &err))
        fail_msg("%s", err.msg);
    return row;
}

static const char *text_of(vkm_jv row, const char *key) {
    const char *text = NULL;
    vkm_err err = {0};
    if (vkm_json_get_str(row, key, VKM_JSON_REQ, &text, &err)) fail_msg("%s", err.msg);
    return text;
}

static void run(const char *line) {
    if (system(line)) fail_msg("failed: %s", line); // NOLINT: the line is this file's
}

static void check(const vkm_json *doc, const char *name, int seed) {
    char path[VKM_PATH_MAX], hex[VKM_HASH_HEX], line[4 * VKM_PATH_MAX], want[64], *text = NULL;
    size_t n;
    vkm_err err = {0};
    vkm_map model;
    snprintf(path, sizeof path, TINY "/%s/model.safetensors", name);
    if (vkm_map_open(&model, path, &err)) fail_msg("%s", err.msg);
    vkm_hash_hex(vkm_hash(model.data, model.n), hex);
    vkm_map_close(&model);
    assert_string_equal(hex, text_of(recorded(doc, name), "model.safetensors"));
    snprintf(
        line, sizeof line,
        "cd '%s' && '%s/vkmoe' init-model --preset mini --tokenizer data/tiny --seed %d --quiet "
        "--output '%s' >/dev/null && '%s/vkmoe' sft tiny-warm --model '%s' --seed %d --backend cpu "
        "--stop_at_step 4 --quiet --output_dir '%s-sft' >'%s.out'",
        VKM_SOURCE_DIR, VKM_BINARY_DIR, seed, in_dir(name), VKM_BINARY_DIR, in_dir(name), seed,
        in_dir(name), in_dir(name));
    run(line);
    snprintf(path, sizeof path, "%s.out", in_dir(name));
    if (vkm_file_read(path, 1 << 20, &text, &n, &err)) fail_msg("%s", err.msg);
    snprintf(want, sizeof want, "step 4 weights_hash %s\n", text_of(recorded(doc, name), "step 4"));
    if (!strstr(text, want)) fail_msg("%s: '%s' is not in\n%s", name, want, text);
    free(text);
}

static void warm_starts_are_as_recorded(void **state) {
    (void)state;
    vkm_json *doc = NULL;
    vkm_err err = {0};
    if (vkm_json_load(TINY "/warm.json", NULL, &doc, &err)) fail_msg("%s", err.msg);
    check(doc, "warm1", 1);
    check(doc, "warm2", 2);
    vkm_json_free(doc);
}

static void they_are_made_again(void **state) {
    (void)state;
    char line[VKM_PATH_MAX + 256];
    if (!getenv("VKMOE_LONG_TESTS")) {
        print_message("the whole making takes ten minutes: VKMOE_LONG_TESTS=1 runs it\n");
        skip();
    }
    snprintf(line, sizeof line, VKM_SOURCE_DIR "/tools/make_tiny_warm.sh '%s'", in_dir("made"));
    run(line);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(warm_starts_are_as_recorded),
                                       cmocka_unit_test(they_are_made_again)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
