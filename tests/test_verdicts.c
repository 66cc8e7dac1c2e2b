/* The table of remembered verdicts: what is kept, what is shared through a file, and files that are
 * none of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "env/verdicts.h"
#include "tmpdir.h"

static vkm_verdicts *table(const char *path, int log2) {
    vkm_verdicts *v = NULL;
    vkm_err err = {0};
    if (vkm_verdicts_open(path, log2, &v, &err)) fail_msg("%s", err.msg);
    return v;
}

static void a_verdict_comes_back_whole(void **state) {
    (void)state;
    const vkm_hash128 key = {5, 6}, other = {5, 7};
    vkm_verdicts *v = table(NULL, 4);
    vkm_grade got;
    assert_false(vkm_verdicts_get(v, key, &got));
    for (int bits = 0; bits < 256; bits++) {
        vkm_grade g = {.evidence = {bits & 1, bits & 2, bits & 4, bits & 8, bits & 16, bits & 32,
                                    bits & 64, bits & 128},
                       .cpu_limited = bits == 3,
                       .cpu_s = 0.25};
        vkm_verdicts_put(v, key, &g);
        assert_true(vkm_verdicts_get(v, key, &got));
        assert_memory_equal(&got.evidence, &g.evidence, sizeof g.evidence);
        assert_true(got.cpu_limited == g.cpu_limited && got.from_cache && got.cpu_s == 0.25);
        assert_false(vkm_verdicts_get(v, other, &got)); /* of the same place */
    }
    vkm_verdicts_put(v, other, &(vkm_grade){.infra_error = true});
    vkm_verdicts_put(v, other, &(vkm_grade){.wall_limited = true});
    assert_false(vkm_verdicts_get(v, other, &got));
    vkm_verdicts_put(v, other, &(vkm_grade){.evidence = {.gt_correct = true}});
    assert_true(vkm_verdicts_get(v, other, &got) && got.evidence.gt_correct);
    assert_false(vkm_verdicts_get(v, key, &got)); /* its place is taken */
    vkm_verdicts_close(v);
}

static void a_file_is_shared(void **state) {
    (void)state;
    const vkm_hash128 key = {1, 2};
    vkm_verdicts *a = table(in_dir("verdicts"), 6), *b = table(in_dir("verdicts"), 6);
    vkm_grade got;
    vkm_verdicts_put(a, key, &(vkm_grade){.evidence = {.fired = true}});
    assert_true(vkm_verdicts_get(b, key, &got) && got.evidence.fired);
    vkm_verdicts_close(a);
    vkm_verdicts_close(b);
    b = table(in_dir("verdicts"), 6);
    assert_true(vkm_verdicts_get(b, key, &got));
    vkm_verdicts_close(b);
    /* a place that is half another's reads as absent */
    FILE *f = fopen(in_dir("verdicts"), "r+");
    assert_non_null(f);
    assert_int_equal(fseek(f, 32 + 32 * 1 + 16, SEEK_SET), 0);
    assert_int_equal(fputc(0xff, f), 0xff);
    assert_int_equal(fclose(f), 0);
    b = table(in_dir("verdicts"), 6);
    assert_false(vkm_verdicts_get(b, key, &got));
    vkm_verdicts_close(b);
}

static void other_files_are_refused(void **state) {
    (void)state;
    vkm_verdicts *v = NULL;
    vkm_err err = {0};
    put_file("text", "not a table", 11);
    assert_int_equal(vkm_verdicts_open(in_dir("text"), 6, &v, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "no file of verdicts"));
    vkm_verdicts_close(table(in_dir("small"), 5));
    assert_int_equal(vkm_verdicts_open(in_dir("small"), 6, &v, &err), VKM_FAILED);
    assert_int_equal(vkm_verdicts_open(in_dir("no/such/folder"), 6, &v, &err), VKM_FAILED);
    assert_null(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_verdict_comes_back_whole),
                                       cmocka_unit_test(a_file_is_shared),
                                       cmocka_unit_test(other_files_are_refused)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
