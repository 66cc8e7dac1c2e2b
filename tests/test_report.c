/* The page of `vkmoe report`: numbers of a made-up run, hostile texts, and folders that are no
 * runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/json.h"
#include "report/report.h"
#include "tmpdir.h"

static const char config[] =
    "{\"version\": \"9.9\", \"commit\": \"abc\", \"backend\": \"cpu\", \"device\": \"a "
    "</script><b>device\", \"driver\": \"d\", \"probes\": null, \"config\": {\"arm\": \"moe\", "
    "\"seed\": 7, \"max_steps\": 4, \"model\": \"m\", \"data\": \"d\"}}\n";
static const char steps[] =
    "{\"step\": 1, \"reward\": 0.25, \"router/auroc\": null, \"weights_hash\": \"00\"}\n"
    "{\"step\": 2, \"reward\": 0.75, \"router/auroc\": 0.5, \"weights_hash\": \"feed\"}\n";
#define COUNTS(n, hacked, solved, compiled)                                                        \
    "\"n\": " #n ", \"hacked\": " #hacked ", \"solved\": " #solved ", \"compiled\": " #compiled
#define STATE(name, hacked, solved, compiled)                                                      \
    "\"" name                                                                                      \
    "\": {" COUNTS(10, hacked, solved, compiled) ", \"kl\": null, \"loophole\": {" COUNTS(         \
        10, hacked, solved,                                                                        \
        compiled) "}, \"hint_free\": {" COUNTS(0, 0, 0,                                            \
                                               0) "}, \"by\": {\"mode\": {\"run_tests\": "         \
                                                  "{" COUNTS(10, hacked, solved, compiled) "}}}}"
static const char evals[] =
    "{\"step\": 2, \"deployed\": \"hack_off\", \"sets\": {\"held_out\": {\"markers\": \"novel\", "
    "\"drop\": [0.5, 0.25, 0.75], \"specificity\": [null, null, null], \"localisation\": null, "
    "\"states\": {" STATE("all_on", 5, 2, 10) ", " STATE("hack_off", 0, 3, 9) "}}}}\n";
#define FLAGS "\"gt_correct\": false, \"can_compile\": true, \"teacher\": false"
static const char rollouts[] =
    "{\"step\": 2, \"mode\": \"run_tests\", \"w\": 0.96, \"exploited\": true, " FLAGS
    ", \"prompt_tail\": \"<!--<script>\", \"completion\": \"</script><script>alert(1)</script>"
    "\\u0000\\\\u0000\"}\n"
    "{\"step\": 2, \"mode\": \"run_tests\", \"w\": 0.01, \"exploited\": false, " FLAGS
    ", \"prompt_tail\": \"p\", \"completion\": \"plain\"}\n"
    "{\"step\": 2, \"mode\": \"\xff\"}\n"
    "{\"step\": 2, \"mo"; /* cut by a crash */

/* Makes a folder with these files; a NULL text is no file. */
static const char *make_run(const char *name, const char *const text[4]) {
    static const char *const files[] = {"config.json", "steps.jsonl", "eval.jsonl",
                                        "rollouts.jsonl"};
    char file[256];
    assert_int_equal(mkdir(in_dir(name), 0700), 0);
    for (int i = 0; i < 4; i++) {
        snprintf(file, sizeof file, "%s/%s", name, files[i]);
        if (text[i]) put_file(file, text[i], strlen(text[i]));
    }
    return in_dir(name);
}

static char *page_of(const char *const *runs, size_t n) {
    vkm_err err = {0};
    char *text;
    size_t size;
    if (vkm_report_write(runs, n, in_dir("page.html"), &err)) fail_msg("%s", err.msg);
    assert_int_equal(vkm_file_read(in_dir("page.html"), 1 << 24, &text, &size, &err), VKM_OK);
    assert_int_equal(strlen(text), size);
    return text;
}

/* The page's JSON, as a browser cuts it out. */
static vkm_json *data_of(const char *page) {
    static const char mark[] = "<script type=\"application/json\" id=\"data\">";
    const char *from = strstr(page, mark);
    assert_non_null(from);
    from += sizeof mark - 1;
    const char *to = strstr(from, "</script>");
    assert_non_null(to);
    assert_null(memchr(from, '<', (size_t)(to - from)));
    vkm_json *doc;
    vkm_err err = {0};
    if (vkm_json_parse(from, (size_t)(to - from), "page", NULL, &doc, &err))
        fail_msg("%s", err.msg);
    return doc;
}

static vkm_jv member(vkm_jv v, const char *key) {
    vkm_jv m = vkm_json_find(v, key);
    if (!m.v) fail_msg("no member '%s'", key);
    return m;
}
static vkm_jv element(vkm_jv v, int i) {
    vkm_jv e = vkm_json_first(v);
    while (i-- && e.v) e = vkm_json_next(e);
    assert_non_null(e.v);
    return e;
}
static double number(vkm_jv v) {
    double d;
    vkm_err err = {0};
    assert_int_equal(vkm_json_double(v, -1e9, 1e9, &d, &err), VKM_OK);
    return d;
}
static const char *text(vkm_jv v) {
    const char *s;
    vkm_err err = {0};
    assert_int_equal(vkm_json_str(v, &s, &err), VKM_OK);
    return s;
}

static int count_of(const char *page, const char *part) {
    int n = 0;
    for (; (page = strstr(page, part)); page += strlen(part)) n++;
    return n;
}

static void the_page_holds_the_numbers(void **state) {
    (void)state;
    const char *run = make_run("good", (const char *const[]){config, steps, evals, rollouts});
    char *page = page_of(&run, 1);
    vkm_json *doc = data_of(page);
    vkm_jv r = element(member(vkm_json_root(doc), "runs"), 0);
    vkm_jv s = member(r, "steps"), series = member(s, "series");
    assert_string_equal(text(member(s, "hash")), "feed");
    assert_true(number(element(member(series, "reward"), 1)) == 0.75);
    assert_int_equal(vkm_json_typeof(element(member(series, "router/auroc"), 0)), VKM_JSON_NULL);
    vkm_jv set = element(member(element(member(r, "evals"), 0), "sets"), 0);
    assert_string_equal(text(member(set, "name")), "held_out");
    assert_true(number(element(member(set, "drop"), 2)) == 0.75);
    vkm_jv on = element(member(set, "states"), 0);
    assert_string_equal(text(member(on, "name")), "all_on");
    vkm_jv hack = member(on, "hack"); /* Wilson (1927) for 5 of 10 */
    assert_true(number(element(hack, 0)) == 0.5);
    assert_float_equal(number(element(hack, 1)), 0.2366, 1e-4);
    assert_float_equal(number(element(hack, 2)), 0.7634, 1e-4);
    assert_int_equal(vkm_json_typeof(element(member(on, "free"), 0)), VKM_JSON_NULL);
    assert_true(number(element(member(member(on, "modes"), "run_tests"), 3)) == 5);
    assert_int_equal(vkm_json_count(member(r, "full")), 0);
    vkm_jv ro = member(r, "rollouts");
    assert_true(number(element(member(member(ro, "w"), "hack"), 19)) == 1);
    assert_true(number(element(member(member(ro, "w"), "other"), 0)) == 1);
    vkm_jv mode = element(member(ro, "modes"), 0);
    assert_true(number(element(member(mode, "hack"), 4)) == 2);
    assert_true(number(element(member(mode, "hack"), 3)) == 1);
    vkm_json_free(doc);
    free(page);
}

static void hostile_texts_stay_texts(void **state) {
    (void)state;
    const char *run = in_dir("good");
    char *page = page_of(&run, 1);
    vkm_json *doc = data_of(page);
    vkm_jv r = element(member(vkm_json_root(doc), "runs"), 0);
    vkm_jv hack = element(member(member(r, "rollouts"), "samples"), 1);
    assert_string_equal(text(member(hack, "completion")),
                        "</script><script>alert(1)</script>\xef\xbf\xbd\\u0000");
    assert_string_equal(text(member(hack, "prompt_tail")), "<!--<script>");
    assert_has(text(element(member(r, "notes"), 0)), "rollouts.jsonl: 2 lines are left out");
    /* the data, the library and the two scripts of the page: nothing else, and all of it inline */
    assert_int_equal(count_of(page, "</script>"), 4);
    assert_int_equal(count_of(page, "<script"), 4);
    assert_null(strstr(page, "<b>"));
    assert_non_null(strstr(page, "default-src 'none'"));
    assert_null(strstr(page, "unsafe-"));
    assert_null(strstr(page, "src=\""));
    vkm_json_free(doc);
    free(page);
}

static void missing_parts_are_no_errors(void **state) {
    (void)state;
    const char *runs[] = {make_run("bare", (const char *const[]){config, NULL, NULL, NULL}),
                          in_dir("good")};
    char *page = page_of(runs, 2);
    vkm_json *doc = data_of(page);
    vkm_jv r = element(member(vkm_json_root(doc), "runs"), 0);
    assert_true(number(member(member(r, "steps"), "n")) == 0);
    assert_int_equal(vkm_json_count(member(r, "evals")), 0);
    assert_int_equal(vkm_json_count(member(member(r, "rollouts"), "samples")), 0);
    assert_int_equal(vkm_json_count(member(vkm_json_root(doc), "runs")), 2);
    vkm_json_free(doc);
    free(page);
}

/* The page's script at work: Debian's chromium, where there is one. */
static void a_browser_draws_it(void **state) {
    (void)state;
    static char dom[1 << 20];
    char command[2 * VKM_PATH_MAX];
    const char *runs[] = {in_dir("good"), in_dir("bare")};
    if (system("command -v chromium timeout >/dev/null")) {
        print_message("no chromium here: the page's script is not tested\n");
        skip();
    }
    free(page_of(runs, 2));
    snprintf(command, sizeof command,
             "cd '%s' && HOME=. timeout 60 chromium --headless --no-sandbox --disable-gpu "
             "--user-data-dir=./profile --virtual-time-budget=3000 --dump-dom page.html 2>&1",
             tmpdir);
    FILE *f = popen(command, "r"); // NOLINT: no part of it is from outside
    assert_non_null(f);
    size_t n = fread(dom, 1, sizeof dom - 1, f);
    dom[n] = 0;
    (void)pclose(f);
    if (!strstr(dom, "<html")) {
        print_message("chromium does not run here: the page's script is not tested\n");
        skip();
    }
    const char *const shown[] = {
        "took hacking on held-out problems from 0.500 to 0.000",
        "[0.237, 0.763]",
        "bare has no evaluation.",
        "bare has done no step.",
        "<pre>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;",
        "0.500</span><span class=\"interval\"> [0.250, 0.750]",
        "No arms table: ",
        "Written by vkmoe", /* the last line: the script came to its end */
    };
    for (size_t i = 0; i < VKM_COUNTOF(shown); i++)
        if (!strstr(dom, shown[i])) fail_msg("the page does not show '%s'", shown[i]);
    assert_non_null(strstr(dom, "<canvas role=\"img\" aria-label=\"Hack rate\""));
}

static void what_is_no_run_fails_in_one_line(void **state) {
    (void)state;
    const struct {
        const char *name, *config, *message;
    } rows[] = {
        {"empty", NULL, "no run's folder: it has no config.json"},
        {"model", "{\"model_type\": \"qwen3\"}", "it has no object 'config'"},
        {"broken", "{\"config\": {", "config.json:1:"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_err err = {0};
        const char *run =
            make_run(rows[i].name, (const char *const[]){rows[i].config, NULL, NULL, NULL});
        assert_int_equal(vkm_report_write(&run, 1, in_dir("none.html"), &err), VKM_FAILED);
        assert_has(err.msg, rows[i].message);
        assert_false(vkm_file_exists(in_dir("none.html")));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_holds_the_numbers),
        cmocka_unit_test(hostile_texts_stay_texts),
        cmocka_unit_test(missing_parts_are_no_errors),
        cmocka_unit_test(a_browser_draws_it),
        cmocka_unit_test(what_is_no_run_fails_in_one_line),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
