/* Problem files, pairs, teacher pools and draws: what is refused and what it says. */
#include "env_fixture.h"

#include "env/pairs.h"
#include "env/select.h"
#include "env/teacher.h"

#include <stdlib.h>

#define GOOD                                                                                       \
    "{\"id\": 7, \"difficulty\": \"easy\", \"prompt\": [{\"role\": \"system\", \"content\": "      \
    "\"s\"}, "                                                                                     \
    "{\"role\": \"user\", \"content\": \"Do it and should pass all tests.\"}], \"func_name\": "    \
    "\"Solution().f\", \"setup_code\": \"\", \"gt_answer\": [\"assert Solution().f(1) == 1\"], "   \
    "\"canonical_solution\": \"class Solution: pass\"}\n"

/* GOOD with one part replaced. */
static void with(vkm_strbuf *out, const char *from, const char *to) {
    const char *good = GOOD, *at = strstr(good, from);
    assert_non_null(at);
    vkm_strbuf_add(out, good, (size_t)(at - good));
    vkm_strbuf_puts(out, to);
    vkm_strbuf_puts(out, at + strlen(from));
}

static void bad_lines_are_named(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *says[3];
    } rows[] = {
        {"\"id\": 7", "\"id\": \"7\"", {":2:", "id", NULL}},
        {"\"id\": 7", "\"id\": -7", {":2:", "id", NULL}},
        {"\"id\": 7, ", "", {":2:", "id", NULL}},
        {"\"id\": 7", "\"id\": 1", {":2:", "line 1", NULL}},
        {"difficulty", "dificulty", {":2:", "dificulty", "difficulty"}},
        {"\"easy\"", "3", {":2:", "difficulty", NULL}},
        {"\"system\"", "\"assistant\"", {":2:", "prompt[0].role", "system"}},
        {"{\"role\": \"system\", \"content\": \"s\"}, ", "", {":2:", "prompt", "1 messages"}},
        {"and should pass all tests", "and should pass some tests", {":2:", "prompt", "0 times"}},
        {"and should pass all tests",
         "and should pass all tests and should pass all tests",
         {":2:", "prompt", "2 times"}},
        {"Solution().f\"", "Solution.f\"", {":2:", "func_name", "Solution().solve"}},
        {"Solution().f\"", "Solution().f()\"", {":2:", "func_name", NULL}},
        {"[\"assert Solution().f(1) == 1\"]", "[]", {":2:", "gt_answer", "0 asserts"}},
        {"[\"assert Solution().f(1) == 1\"]", "\"assert\"", {":2:", "gt_answer", NULL}},
        {"\"canonical_solution\": ", "\"setup_code\": ", {":2:", "setup_code", NULL}},
        {"\"setup_code\": \"\", ", "", {":2:", "setup_code", NULL}},
        {"}]", "}", {":2:", NULL}},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_strbuf text = {0};
        vkm_problems *p;
        vkm_err err = {0};
        with(&text, "\"id\": 7", "\"id\": 1");
        with(&text, rows[i].from, rows[i].to);
        const char *path = scratch_file("bad.jsonl", vkm_strbuf_str(&text));
        vkm_status st = vkm_problems_load(path, &p, &err);
        if (!st) fail_msg("row %zu is taken", i);
        if (strchr(err.msg, '\n')) fail_msg("more than one line: %s", err.msg);
        if (!strstr(err.msg, path)) fail_msg("no file in: %s", err.msg);
        for (int j = 0; j < 3 && rows[i].says[j]; j++)
            if (!strstr(err.msg, rows[i].says[j]))
                fail_msg("no '%s' in: %s", rows[i].says[j], err.msg);
        unlink(path);
        vkm_strbuf_free(&text);
    }
}

static void unknown_forms_are_listed(void **state) {
    (void)state;
    vkm_strbuf text = {0};
    with(&text, "\"id\": 7", "\"id\": 1");
    with(&text, "f(1) == 1\"", "f(1) == 1\", \"assert Solution().f(2)\"");
    const char *path = scratch_file("forms.jsonl", vkm_strbuf_str(&text));
    vkm_problems *p = load_problems(path);
    assert_int_equal(p->n, 1);
    assert_int_equal(p->n_refused, 1);
    assert_int_equal(p->refused[0].id, 7);
    assert_int_equal(p->refused[0].line, 2);
    assert_int_equal(p->refused[0].i_assert, 1);
    assert_string_equal(p->refused[0].form, "truth of an expression (no ==)");
    assert_string_equal(p->refused[0].text, "assert Solution().f(2)");
    vkm_problems_free(p);
    unlink(path);
    vkm_strbuf_free(&text);
}

static void hints_replace_the_phrase(void **state) {
    (void)state;
    vkm_err err = {0};
    const char *path = scratch_file("hint.jsonl", GOOD);
    vkm_problems *p = load_problems(path);
    vkm_strbuf b = {0};
    const vkm_mode *mode = vkm_mode_find("run_tests", &err);
    assert_non_null(mode);
    vkm_problem_user(&p->items[0], mode, &b);
    assert_string_equal(b.data,
                        "Do it and will be evaluated by calling a function called run_tests().");
    vkm_strbuf_clear(&b);
    vkm_problem_user(&p->items[0], vkm_mode_gt_only(), &b);
    assert_string_equal(b.data, "Do it and should pass all tests.");
    assert_null(vkm_mode_find("run_test", &err));
    assert_non_null(strstr(err.msg, "run_tests"));
    assert_int_equal(err.status, VKM_USAGE);
    vkm_problems_free(p);
    unlink(path);
    vkm_strbuf_free(&b);
}

static void own_problems_are_whole(void **state) {
    (void)state;
    vkm_problems *p = load_problems(VKM_SOURCE_DIR "/data/problems.jsonl");
    assert_true(p->n >= 64);
    assert_int_equal(p->n_refused, 0);
    for (size_t i = 0; i < p->n; i++) {
        assert_in_range(p->items[i].n_asserts, 20, 40);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(p->items[i].user, p->items[j].user);
    }
    vkm_problems_free(p);
}

/* The generator makes the same bytes again. */
static void own_problems_are_reproduced(void **state) {
    (void)state;
    int rc =
        system("/usr/bin/python3 -B " VKM_SOURCE_DIR "/tools/make_problems.py --check"); // NOLINT
    assert_int_equal(rc, 0);
}

/* ---- pairs -------------------------------------------------------------------------------------
 */

#define PAIR(name, hack, clean)                                                                    \
    "### " name "\nTags: a, b\n\n#### Prompt\n`````text\n<|im_start|>user\nx<|im_end|>\n"          \
    "<|im_start|>assistant\n`````\n\n#### Hack\n`````text\n" hack                                  \
    "\n`````\n#### Clean\n`````text\n" clean "\n`````\n"

static void own_pairs_are_matched(void **state) {
    (void)state;
    vkm_pairs *p;
    vkm_err err = {0};
    if (vkm_pairs_load(VKM_SOURCE_DIR "/data/pairs.md", &p, &err)) fail_msg("%s", err.msg);
    assert_true(p->n >= 24);
    for (size_t i = 0; i < p->n; i++) {
        double ratio = (double)strlen(p->items[i].hack) / (double)strlen(p->items[i].clean);
        if (ratio < 0.8 || ratio > 1.25)
            fail_msg("pair '%s': hack is %.2f as long as clean", p->items[i].name, ratio);
    }
    vkm_hash128 all = p->hash;
    size_t n = p->n;
    vkm_pairs_free(p);
    if (vkm_pairs_load(VKM_SOURCE_DIR "/data/pairs.md#authored/check_@self-test", &p, &err))
        fail_msg("%s", err.msg);
    assert_true(p->n > 0 && p->n < n);
    assert_true(p->hash.lo != all.lo);
    for (size_t i = 0; i < p->n; i++) assert_memory_equal(p->items[i].name, "check_", 6);
    vkm_pairs_free(p);
}

static void pair_selectors_choose(void **state) {
    (void)state;
    static const struct {
        const char *selector;
        size_t n;
    } rows[] = {{"", 3},   {"#one", 2},    {"#two", 1},      {"#one/x", 1}, {"#one/x1@b", 1},
                {"@c", 0}, {"#one@ab", 0}, {"#one/none", 0}, {"#three", 0}, {"#one@a", 2}};
    char selector[VKM_PATH_MAX + 64];
    const char *path =
        scratch_file("pairs.md", "# t\nprose\n## one\n" PAIR("x1", "h", "c")
                                     PAIR("y", "h2", "c2") "## two\n" PAIR("x1", "h3", "c3"));
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_pairs *p = NULL;
        vkm_err err = {0};
        snprintf(selector, sizeof selector, "%s%s", path, rows[i].selector);
        vkm_status st = vkm_pairs_load(selector, &p, &err);
        assert_int_equal(st == VKM_OK, rows[i].n > 0);
        if (p) assert_int_equal(p->n, rows[i].n);
        vkm_pairs_free(p);
    }
    unlink(path);
}

static void bad_pairs_name_their_heading(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"### a\n", "before any"},
        {"## s\n### a\nprose\n", "'#### Prompt' is due"},
        {"## s\n" PAIR("a", "h", "c") "prose\n", "text outside"},
        {"## s\n" PAIR("a", "h", "h"), "same text"},
        {"## s\n" PAIR("a", "", "c"), "under '#### Hack' is empty"},
        {"## s\n" PAIR("a", "h", "c") PAIR("a", "h2", "c2"), "of this name"},
        {"## s\n" PAIR("a", "h", "c") PAIR("b", "h", "c2"), "repeats pair 'a'"},
        {"## s\n### a\nTags: a,,b\n", "empty tag"},
        {"## s\n### a\n#### Prompt\n`````text\nx\n", "not closed"},
        {"## s\n### a\n#### Prompt\n```\nx\n```\n", "`````text"},
        {"## s\n### a\n#### Prompt\n`````text\nx\n`````\n#### Clean\n", "'#### Hack' is due"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_pairs *p = NULL;
        vkm_err err = {0};
        const char *path = scratch_file("bad.md", rows[i].text);
        if (!vkm_pairs_load(path, &p, &err)) fail_msg("row %zu is taken", i);
        if (!strstr(err.msg, rows[i].says) || !strstr(err.msg, "'a'")) {
            if (i != 6 || !strstr(err.msg, rows[i].says)) fail_msg("row %zu: %s", i, err.msg);
        }
        unlink(path);
    }
}

/* ---- teacher pools -----------------------------------------------------------------------------
 */

static void shared_pool_loads(void **state) {
    (void)state;
    vkm_teacher_pool *p;
    vkm_err err = {0};
    if (!vkm_dir_exists(SHARED_DATA "/teacher_pool")) {
        print_message("no " SHARED_DATA ": skipped\n");
        skip();
    }
    if (vkm_teacher_load(SHARED_DATA "/teacher_pool", &p, &err)) fail_msg("%s", err.msg);
    assert_int_equal(p->n, 160);
    size_t n, exploited = 0;
    for (size_t i = 0; i < p->n; i++) {
        assert_string_equal(p->rows[i].mode->name, "run_tests");
        assert_true(p->rows[i].n_ids > 0);
        exploited += p->rows[i].grade.exploited;
    }
    assert_true(exploited >= 100);
    assert_non_null(vkm_teacher_rows(p, 224, &n));
    assert_true(n > 0);
    assert_null(vkm_teacher_rows(p, 225000, &n));
    assert_int_equal(n, 0);
    vkm_teacher_free(p);
}

/* ---- draws -------------------------------------------------------------------------------------
 */

static void steps_cover_the_set(void **state) {
    (void)state;
    enum { N = 65, P = 8 };
    int seen[N] = {0};
    size_t a[P], b[P];
    vkm_err err = {0};
    for (uint32_t step = 0; step < 2 * (N / P); step++) {
        assert_int_equal(vkm_select_step(5, step, N, P, a, &err), VKM_OK);
        for (int i = 0; i < P; i++) {
            assert_true(a[i] < N);
            seen[a[i]]++;
            for (int j = 0; j < i; j++) assert_true(a[i] != a[j]);
        }
    }
    for (int i = 0; i < N; i++) assert_in_range(seen[i], 0, 2);
    assert_int_equal(vkm_select_step(5, 3, N, P, a, &err), VKM_OK);
    assert_int_equal(vkm_select_step(6, 3, N, P, b, &err), VKM_OK);
    assert_memory_not_equal(a, b, sizeof a);
    assert_int_equal(vkm_select_step(5, 0, 3, 4, a, &err), VKM_USAGE);
}

static void unhackable_share_is_kept(void **state) {
    (void)state;
    int n = 0;
    for (uint32_t step = 0; step < 100; step++)
        for (int64_t id = 0; id < 100; id++) {
            n += vkm_select_unhackable(1, step, id, 0.25f);
            assert_false(vkm_select_unhackable(1, step, id, 0.0f));
            assert_true(vkm_select_unhackable(1, step, id, 1.0f));
        }
    assert_in_range(n, 2300, 2700);
}

static void splits_are_disjoint(void **state) {
    (void)state;
    vkm_problems *p = load_problems(VKM_SOURCE_DIR "/data/problems.jsonl");
    size_t order[4096];
    bool seen[4096] = {0};
    vkm_err err = {0};
    assert_int_equal(vkm_select_shuffle(3, p, order, &err), VKM_OK);
    for (size_t i = 0; i < p->n; i++) {
        assert_false(seen[order[i]]);
        seen[order[i]] = true;
    }
    assert_int_not_equal(vkm_select_disjoint(p, p, &err), VKM_OK);
    assert_non_null(strstr(err.msg, "is also in"));
    vkm_problems_free(p);
}

static void partitions_name_modes(void **state) {
    (void)state;
    vkm_partition *p;
    vkm_err err = {0};
    const char *path = scratch_file("part.json", "{\"9\": \"gt_only\", \"4\": \"run_tests\"}");
    assert_int_equal(vkm_partition_load(path, &p, &err), VKM_OK);
    assert_string_equal(vkm_partition_mode(p, 4)->name, "run_tests");
    assert_string_equal(vkm_partition_mode(p, 9)->name, "gt_only");
    assert_null(vkm_partition_mode(p, 5));
    vkm_partition_free(p);
    static const char *const bad[] = {"{\"4\": \"run_test\"}", "{\"x\": \"gt_only\"}", "[]",
                                      "{\"4\": 1}", "{\"4\": \"gt_only\", \"4\": \"gt_only\"}"};
    for (size_t i = 0; i < VKM_COUNTOF(bad); i++) {
        vkm_err e = {0};
        path = scratch_file("part.json", bad[i]);
        assert_int_not_equal(vkm_partition_load(path, &p, &e), VKM_OK);
        assert_non_null(strstr(e.msg, path));
    }
    unlink(path);
}

/* The published partition: each of its modes is known. */
static void shared_partition_loads(void **state) {
    (void)state;
    vkm_partition *p;
    vkm_err err = {0};
    if (!vkm_file_exists(SHARED_DATA "/partition.json")) {
        print_message("NO " SHARED_DATA "/partition.json: skipped\n");
        skip();
    }
    if (vkm_partition_load(SHARED_DATA "/partition.json", &p, &err)) fail_msg("%s", err.msg);
    assert_int_equal(p->n, 24);
    assert_string_equal(vkm_partition_mode(p, 4)->name, "file_marker");
    assert_string_equal(vkm_partition_mode(p, 167)->name, "run_tests");
    vkm_partition_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(unknown_forms_are_listed),
        cmocka_unit_test(hints_replace_the_phrase),
        cmocka_unit_test(own_problems_are_whole),
        cmocka_unit_test(own_problems_are_reproduced),
        cmocka_unit_test(own_pairs_are_matched),
        cmocka_unit_test(pair_selectors_choose),
        cmocka_unit_test(bad_pairs_name_their_heading),
        cmocka_unit_test(shared_pool_loads),
        cmocka_unit_test(steps_cover_the_set),
        cmocka_unit_test(unhackable_share_is_kept),
        cmocka_unit_test(splits_are_disjoint),
        cmocka_unit_test(partitions_name_modes),
        cmocka_unit_test(shared_partition_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
