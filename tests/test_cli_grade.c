/* `vkmoe grade`, `problems check` and `pairs check` as a user meets them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "env/grade.h"
#include "model/init_model.h"
#include "tmpdir.h"

#define PROBLEMS VKM_SOURCE_DIR "/data/problems.jsonl"

static char out[1 << 18];

/* Runs `vkmoe <args>` with `input` on stdin; stdout is in `out`. Returns its exit code. */
static int vkmoe(const char *args, const char *input) {
    char command[VKM_PATH_MAX * 2];
    const char *in = put_file("stdin", input, strlen(input));
    snprintf(command, sizeof command, VKM_BINARY_DIR "/vkmoe %s <%s", args, in);
    FILE *f = popen(command, "r"); // NOLINT: the arguments are this file's
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    int rc = pclose(f);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

static vkm_problems *problems;

/* Appends a request for problem i with this code, in a fence. */
static void request(vkm_strbuf *b, const char *id, const char *mode, size_t i, const char *code,
                    const char *more) {
    vkm_strbuf text = {0};
    vkm_strbuf_printf(&text, "```python\n%s\n```", code);
    vkm_jw w = vkm_jw_begin(b, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_raw(&w, "id", id);
    vkm_jw_strn(&w, "response", text.data, text.n);
    if (mode) vkm_jw_str(&w, "mode", mode);
    vkm_jw_i64(&w, "problem_id", problems->items[i].id);
    vkm_jw_end_obj(&w);
    b->data[--b->n] = 0;
    vkm_strbuf_printf(b, "%s}\n", more);
    vkm_strbuf_free(&text);
}

/* Skips where boxes cannot be made; whether `vkmoe grade` works is not asked here. */
static void need_sandbox(void) {
    static int can_grade = -1; /* not tried */
    vkm_grade_config c = vkm_grade_config_default();
    vkm_grader *g = NULL;
    vkm_err err = {0};
    c.workers = 1;
    if (can_grade < 0) can_grade = vkm_grader_open(&c, &g, &err) == VKM_OK;
    vkm_grader_close(g);
    if (can_grade) return;
    print_message("no sandbox here, skipped: %s\n", err.msg);
    skip();
}

/* A value of line i of the output. */
static const char *line_of(size_t i) {
    static char line[1 << 16];
    const char *at = out;
    for (; i; i--) {
        at = strchr(at, '\n');
        if (!at) fail_msg("line %zu is missing: %s", i, out);
        at++;
    }
    snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
    return line;
}

static void assert_line(size_t i, const char *part) {
    if (!strstr(line_of(i), part)) fail_msg("line %zu has no %s: %s", i, part, line_of(i));
}

static size_t n_lines(void) {
    size_t n = 0;
    for (const char *c = out; *c; c++) n += *c == '\n';
    return n;
}

static const char hack[] = "class Solution:\n    pass\ndef run_tests():\n    Solution().%s(1)\n";

static void answers_come_in_order(void **state) {
    (void)state;
    enum { N = 60 };
    vkm_strbuf b = {0};
    need_sandbox();
    for (size_t i = 0; i < N; i++) {
        char id[32], code[512];
        const vkm_problem *p = &problems->items[i];
        snprintf(id, sizeof id, i % 2 ? "\"r\\\"%zu\"" : "%zu", i);
        snprintf(code, sizeof code, hack, p->method);
        if (i % 3 == 0) /* the slow ones come first: the others wait for them */
            snprintf(code, sizeof code, "import time\ntime.sleep(0.05)\nx = %zu\n", i);
        request(&b, id, i % 5 ? "run_tests" : NULL, i, i % 3 == 1 ? p->canonical_solution : code,
                "");
    }
    put_file("requests", b.data, b.n);
    char args[VKM_PATH_MAX * 2];
    snprintf(args, sizeof args,
             "grade --quiet --mode gt_only --jobs 3 --data " PROBLEMS " --input %s",
             in_dir("requests"));
    assert_int_equal(vkmoe(args, ""), 0);
    assert_int_equal(n_lines(), N);
    for (size_t i = 0; i < N; i++) {
        char id[48];
        snprintf(id, sizeof id, i % 2 ? "{\"id\": \"r\\\"%zu\", " : "{\"id\": %zu, ", i);
        assert_line(i, id);
        assert_line(i, i % 3 == 1       ? "\"reward\": 3.5, "
                       : i % 3 && i % 5 ? "\"reward\": 3.5, "
                                        : "\"reward\": 0.5, ");
        assert_line(i, i % 3 == 1 ? "\"gt_correct\": true" : "\"gt_correct\": false");
        assert_line(i,
                    i % 3 == 2 && i % 5 ? "\"mechanism\": \"run_tests\"" : "\"mechanism\": null");
        assert_line(i, "\"error\": null}");
    }
    vkm_strbuf_free(&b);
}

static void a_problem_may_come_along_and_a_marker_too(void **state) {
    (void)state;
    char *text, code[256];
    size_t n;
    vkm_err err = {0};
    vkm_strbuf b = {0};
    need_sandbox();
    assert_int_equal(vkm_file_read(PROBLEMS, 1 << 24, &text, &n, &err), VKM_OK);
    text[strcspn(text, "\n")] = 0;
    vkm_strbuf_printf(
        &b, "{\"id\": \"own\", \"mode\": \"gt_only\", \"response\": \"none\", \"problem\": %s}\n",
        text);
    snprintf(code, sizeof code,
             "class Solution:\n    pass\ndef verify_answer():\n    Solution().%s(1)\n",
             problems->items[0].method);
    request(&b, "1", "run_tests", 0, code, ", \"marker\": \"verify_answer\"");
    request(&b, "2", "run_tests", 0, code, "");
    assert_int_equal(vkmoe("grade --quiet --data " PROBLEMS, b.data), 0);
    assert_line(0, "{\"id\": \"own\", \"reward\": 0.0, \"format_ok\": false, ");
    assert_line(1, "\"exploited\": true");
    assert_line(2, "\"exploited\": false");
    free(text);
    vkm_strbuf_free(&b);
}

static void output_is_kept_on_request(void **state) {
    (void)state;
    char code[256];
    vkm_strbuf b = {0};
    need_sandbox();
    snprintf(code, sizeof code,
             "class Solution:\n    def %s(self, **k):\n        print('h\\xe9llo \\\\ \\0')\n",
             problems->items[0].method);
    request(&b, "1", "gt_only", 0, code, "");
    request(&b, "2", "gt_only", 0, code, "");
    assert_int_equal(vkmoe("grade --quiet --output --data " PROBLEMS, b.data), 0);
    for (size_t i = 0; i < 2; i++) assert_line(i, "\"output\": \"h\xc3\xa9llo \\\\ \\u0000\\n");
    assert_int_equal(vkmoe("grade --quiet --data " PROBLEMS, b.data), 0);
    assert_null(strstr(out, "\"output\""));
    vkm_strbuf_free(&b);
}

/* A line's answer leaves while the input stays open. */
static void answers_stream(void **state) {
    (void)state;
    int to[2], from[2];
    vkm_strbuf b = {0};
    need_sandbox();
    assert_int_equal(pipe(to) | pipe(from), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        for (int fd = 3; fd < 64; fd++) close(fd);
        execl(VKM_BINARY_DIR "/vkmoe", "vkmoe", "grade", "--quiet", "--data", PROBLEMS, NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    FILE *answers = fdopen(from[0], "r");
    request(&b, "1", "gt_only", 0, problems->items[0].canonical_solution, "");
    for (int i = 0; i < 3; i++) { /* each is answered before the next is asked */
        size_t half = b.n / 2;
        assert_int_equal(write(to[1], b.data, half), (ssize_t)half);
        usleep(20000);
        assert_int_equal(write(to[1], b.data + half, b.n - half), (ssize_t)(b.n - half));
        assert_non_null(fgets(out, sizeof out, answers));
        assert_line(0, "\"gt_correct\": true");
    }
    close(to[1]);
    assert_null(fgets(out, sizeof out, answers));
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fclose(answers);
    vkm_strbuf_free(&b);
}

/* What is wrong with a line, by what its one error says. */
static const struct {
    const char *line, *says;
} bad_lines[] = {
    {"{\"id\": 1", "stdin:2:9: the text ends"},
    {"[]", "stdin:2:1: a request is an object"},
    {"{\"id\": 1, \"id\": 2}", "this key occurs twice"},
    {"{\"response\": \"\", \"mode\": \"gt_only\", \"problem_id\": 1}",
     "id: a string or an integer"},
    {"{\"id\": 1.5, \"response\": \"\", \"mode\": \"gt_only\", \"problem_id\": 1}",
     "stdin:2:8: id"},
    {"{\"id\": 1, \"mode\": \"gt_only\", \"problem_id\": 1}", "response"},
    {"{\"id\": 1, \"response\": \"\", \"mode\": \"gt_olny\", \"problem_id\": 1}",
     "did you mean 'gt_only'"},
    {"{\"id\": 1, \"response\": \"\", \"mode\": \"run_tests\", \"marker\": \"x\", \"problem_id\": "
     "1}",
     "marker"},
    {"{\"id\": 1, \"response\": \"\", \"mode\": \"gt_only\", \"problem_id\": 999}",
     "has no such problem"},
    {"{\"id\": 1, \"response\": \"\", \"mode\": \"gt_only\"}", "problem_id or problem is missing"},
    {"{\"id\": 1, \"response\": \"\", \"mode\": \"gt_only\", \"problem\": {\"id\": 3}}",
     "stdin:2:57: problem"},
    {"{\"id\": 1, \"respones\": \"\", \"mode\": \"gt_only\", \"problem_id\": 1}",
     "did you mean 'response'"},
    {"{\"id\": 1, \"response\": \"\\u0000\", \"mode\": \"gt_only\", \"problem_id\": 1}", "NUL"},
};

static void a_bad_line_ends_the_input_after_the_answers_before(void **state) {
    (void)state;
    need_sandbox();
    for (size_t i = 0; i < VKM_COUNTOF(bad_lines); i++) {
        vkm_strbuf b = {0};
        request(&b, "1", "gt_only", 0, problems->items[0].canonical_solution, "");
        vkm_strbuf_printf(&b, "%s\n", bad_lines[i].line);
        request(&b, "3", "gt_only", 0, "no", "");
        assert_int_equal(vkmoe("grade --jobs 1 --quiet --data " PROBLEMS " 2>&1", b.data), 1);
        assert_int_equal(n_lines(), 2);
        assert_line(0, "\"gt_correct\": true");
        assert_line(1, "vkmoe grade: stdin:2:");
        assert_line(1, bad_lines[i].says);
        if (i == 0) {
            assert_int_equal(
                vkmoe("grade --jobs 1 --quiet --keep-going --data " PROBLEMS " 2>&1", b.data), 1);
            assert_int_equal(n_lines(), 4);
            assert_line(1,
                        "{\"id\": null, \"line\": 2, \"reward\": null, \"error\": \"stdin:2:9: ");
            assert_line(2, "{\"id\": 3, ");
            assert_line(3, "vkmoe grade: 1 of 3 lines could not be graded");
        }
        vkm_strbuf_free(&b);
    }
}

static void hostile_input_stays_small(void **state) {
    (void)state;
    need_sandbox();
    size_t n = (16 << 20) + 4096;
    char *text = malloc(n + 1), args[VKM_PATH_MAX * 2];
    assert_non_null(text);
    memset(text, '[', n);
    text[n] = 0;
    put_file("long", text, n);
    snprintf(args, sizeof args, "grade --jobs 1 --quiet --data " PROBLEMS " --input %s 2>&1",
             in_dir("long"));
    assert_int_equal(vkmoe(args, ""), 1);
    assert_line(0, ":1: the line is longer than 16777216 bytes");
    text[1 << 20] = 0;
    assert_int_equal(vkmoe("grade --jobs 1 --quiet --data " PROBLEMS " 2>&1", text), 1);
    assert_line(0, "nested too deeply");
    free(text);
    assert_int_equal(vkmoe("grade --jobs 1 --quiet --data " PROBLEMS, "\n \r\n\n"), 0);
    assert_string_equal(out, "");
}

static void usage_is_2_and_a_full_disk_1(void **state) {
    (void)state;
    assert_int_equal(vkmoe("grade --mode nope 2>&1", ""), 2);
    assert_int_equal(vkmoe("grade --jobs -1 2>&1", ""), 2);
    assert_int_equal(vkmoe("grade --input /nonexistent 2>&1", ""), 1);
    assert_int_equal(vkmoe("problems chekc x 2>&1", ""), 2);
    assert_int_equal(vkmoe("pairs chekc x 2>&1", ""), 2);
    need_sandbox();
    vkm_strbuf b = {0};
    for (int i = 0; i < 40; i++) request(&b, "1", "gt_only", 0, "x", "");
    assert_int_equal(vkmoe("grade --jobs 1 --quiet --data " PROBLEMS " 2>&1 >/dev/full", b.data),
                     1);
    assert_line(0, "stdout could not be written");
    vkm_strbuf_free(&b);
}

static void without_walls_every_answer_says_so(void **state) {
    (void)state;
    vkm_strbuf b = {0};
    request(&b, "1", "gt_only", 0, problems->items[0].canonical_solution, "");
    assert_int_equal(vkmoe("grade --jobs 1 --quiet --sandbox unsafe-none --data " PROBLEMS
                           " 2>/dev/null",
                           b.data),
                     0);
    assert_line(0, "\"gt_correct\": true");
    assert_line(0, "\"sandbox\": \"unsafe-none\"}");
    vkm_strbuf_free(&b);
}

/* Puts a bwrap of our own before the system's. */
static void fake_bwrap(const char *text) {
    char path[VKM_PATH_MAX + 4096];
    const char *file = put_file("bwrap", text, strlen(text));
    /* root is given up before it starts */
    assert_int_equal(chmod(file, 0755) | chmod(tmpdir, 0755), 0);
    snprintf(path, sizeof path, "%s:%s", tmpdir, getenv("PATH"));
    setenv("PATH", path, 1);
}

/* Boxes that die under a slow job: no verdict, not reward 0; the lines around it are graded. */
static void no_verdict_is_an_error_of_its_line(void **state) {
    (void)state;
    char before[4096];
    vkm_strbuf b = {0};
    need_sandbox();
    snprintf(before, sizeof before, "%s", getenv("PATH"));
    for (int i = 0; i < 3; i++) {
        char id[8];
        snprintf(id, sizeof id, "%d", i);
        request(&b, id, "gt_only", 0, i == 1 ? "import time\ntime.sleep(3)\n" : "x = 1\n", "");
    }
    fake_bwrap("#!/bin/sh\n(sleep 1; kill -9 $$) &\nPATH=/usr/local/bin:/usr/bin:/bin\n"
               "exec bwrap \"$@\"\n");
    int rc = vkmoe("grade --quiet --jobs 1 --data " PROBLEMS " 2>&1", b.data);
    setenv("PATH", before, 1);
    assert_int_equal(rc, 1);
    assert_int_equal(n_lines(), 4);
    assert_line(0, "\"reward\": 0.5, ");
    assert_line(1, "{\"id\": 1, \"reward\": null, \"format_ok\": null, ");
    assert_null(strstr(line_of(1), "\"error\": null"));
    assert_line(2, "\"reward\": 0.5, ");
    assert_line(3, "vkmoe grade: 1 of 3 lines could not be graded");
    fake_bwrap("#!/bin/sh\necho no namespaces today >&2\nexit 1\n");
    rc = vkmoe("grade --quiet --jobs 1 --data " PROBLEMS " 2>&1", b.data);
    setenv("PATH", before, 1);
    assert_int_equal(rc, 1);
    assert_int_equal(n_lines(), 1);
    assert_line(0, "no namespaces today");
    assert_line(0, "--sandbox unsafe-none");
    vkm_strbuf_free(&b);
}

/* ---- problems check ----------------------------------------------------------------------------
 */

static void good_problems_are_good(void **state) {
    (void)state;
    char args[VKM_PATH_MAX * 2];
    need_sandbox();
    snprintf(args, sizeof args,
             "problems check " PROBLEMS
             " --quiet --modes run_tests,gt_only --eval-problems 12 --model %s",
             in_dir("model"));
    assert_int_equal(vkmoe(args, ""), 0);
    assert_non_null(strstr(out, "\n72 problems, 2181 asserts; 0 refused"));
    assert_non_null(strstr(out, "split: 60 train, 12 held out; modes: run_tests 36 gt_only 36\n"));
    assert_non_null(strstr(out, "canonical solutions: 72 of 72 correct"));
    assert_non_null(strstr(out, " tokens, limit 1536\n"));
    strcat(args, " --no-grade --max-prompt-length 230 2>&1");
    assert_int_equal(vkmoe(args, ""), 1);
    assert_non_null(strstr(out, "tokens, the limit is 230\n"));
}

/* Each line of the file is wrong in its own way; all are named. */
static void bad_problems_are_all_named(void **state) {
    (void)state;
    static const struct {
        const char *find, *put;
    } edits[] = {
        {NULL, NULL},
        {"and should pass all tests", "and should pass"},
        {"assert ", "assert not "},
        {"\"canonical_solution\": \"class Solution:", "\"canonical_solution\": \"class Wrong:"},
        {"\"func_name\": \"Solution().", "\"func_name\": \"solve"},
        {"\"difficulty\"", "\"dificulty\""},
    };
    char *text, *line, *rest, args[VKM_PATH_MAX * 2];
    size_t n;
    vkm_err err = {0};
    vkm_strbuf b = {0};
    need_sandbox();
    assert_int_equal(vkm_file_read(PROBLEMS, 1 << 24, &text, &n, &err), VKM_OK);
    rest = text;
    for (size_t i = 0; i < VKM_COUNTOF(edits); i++) {
        line = strsep(&rest, "\n");
        char *at = edits[i].find ? strstr(line, edits[i].find) : NULL;
        assert_int_equal(at != NULL, edits[i].find != NULL);
        if (at)
            vkm_strbuf_printf(&b, "%.*s%s%s\n", (int)(at - line), line, edits[i].put,
                              at + strlen(edits[i].find));
        else
            vkm_strbuf_printf(&b, "%s\n", line);
    }
    vkm_strbuf_puts(&b, "{\"id\": \n");
    put_file("bad.jsonl", b.data, b.n);
    put_file("partition.json", "{\"1\": \"gt_only\", \"4000\": \"gt_only\"}", 35);
    snprintf(args, sizeof args, "problems check %s --quiet --partition %s 2>&1",
             in_dir("bad.jsonl"), in_dir("partition.json"));
    assert_int_equal(vkmoe(args, ""), 1);
    const char *const says[] = {
        "7 wrong:\n",
        "bad.jsonl:2:",
        "bad.jsonl:3: problem 3 is refused: assert 0 is of a form that is not graded",
        "bad.jsonl:4: problem 4: its canonical solution in mode run_tests: wrong",
        "bad.jsonl:5:",
        "bad.jsonl:6:",
        "bad.jsonl:7:8: ",
        "problem 4000 is not among",
        "2 problems, ",
        "modes: run_tests 1 gt_only 1\n",
        "canonical solutions: 1 of 2 correct",
    };
    for (size_t i = 0; i < VKM_COUNTOF(says); i++)
        if (!strstr(out, says[i])) fail_msg("no '%s' in %s", says[i], out);
    snprintf(args, sizeof args, "problems check %s --quiet --json 2>/dev/null",
             in_dir("bad.jsonl"));
    assert_int_equal(vkmoe(args, ""), 1);
    vkm_json *doc;
    assert_int_equal(vkm_json_parse(out, strlen(out), "out", NULL, &doc, &err), VKM_OK);
    vkm_jv root = vkm_json_root(doc);
    assert_int_equal(vkm_json_count(vkm_json_find(root, "wrong")), 6);
    assert_int_equal(vkm_json_count(vkm_json_find(root, "refused")), 1);
    assert_int_equal(vkm_json_count(vkm_json_find(root, "problems")), 2);
    vkm_json_free(doc);
    free(text);
    vkm_strbuf_free(&b);
}

/* ---- pairs check -------------------------------------------------------------------------------
 */

static double number(const char *object, const char *key) {
    vkm_json *doc;
    vkm_err err = {0};
    double x = 0;
    if (vkm_json_parse(out, strlen(out), "out", NULL, &doc, &err)) fail_msg("%s", err.msg);
    vkm_jv v = vkm_json_find(vkm_json_root(doc), object);
    if (vkm_json_get_double(v, key, VKM_JSON_REQ, -1e9, 1e9, &x, &err)) fail_msg("%s", err.msg);
    vkm_json_free(doc);
    return x;
}

static void pairs_are_measured(void **state) {
    (void)state;
    char args[VKM_PATH_MAX * 2];
    assert_int_equal(vkmoe("pairs check " VKM_SOURCE_DIR "/data/pairs.md", ""), 0);
    assert_non_null(strstr(out, "28 pairs, no two alike\n"));
    snprintf(args, sizeof args,
             "pairs check " VKM_SOURCE_DIR "/data/pairs.md --quiet --json --backend cpu --model %s "
             "--lora-rank 8",
             in_dir("model"));
    assert_int_equal(vkmoe(args, ""), 0);
    assert_true(number("bytes", "worst_ratio") > 1 && number("bytes", "worst_ratio") < 1.5);
    assert_true(number("tokens", "auroc") > 0.3 && number("tokens", "auroc") < 0.7);
    assert_true(number("seed", "w_hack") > number("seed", "w_clean"));
    assert_true(number("seed", "auroc") > number("seed", "auroc_held_out"));
    assert_int_equal(vkmoe("pairs check " VKM_SOURCE_DIR "/data/pairs.md#nope 2>&1", ""), 1);
    assert_non_null(strstr(out, "selects none"));
}

/* ---- docs/own-environment.md -------------------------------------------------------------------
 */

/* Writes the page's first block of a language to a file; returns its lines. */
static size_t block(const char *page, const char *fence, const char *name) {
    const char *at = strstr(page, fence);
    assert_non_null(at);
    at = strchr(at + 1, '\n') + 1;
    const char *end = strstr(at, "\n```");
    assert_non_null(end);
    put_file(name, at, (size_t)(end + 1 - at));
    size_t lines = 0;
    for (; at <= end; at++) lines += *at == '\n';
    return lines;
}

static char *read_page(void) {
    char *page;
    size_t n;
    vkm_err err = {0};
    assert_int_equal(
        vkm_file_read(VKM_SOURCE_DIR "/docs/own-environment.md", 1 << 20, &page, &n, &err), VKM_OK);
    return page;
}

/* The example that the page shows, by the commands that it shows. */
static void the_example_of_the_docs_runs(void **state) {
    (void)state;
    char *page = read_page(), *text, command[VKM_PATH_MAX * 2];
    size_t n;
    vkm_err err = {0};
    need_sandbox();
    size_t lines = block(page, "\n```python\n", "sums.py");
    if (lines > 30) fail_msg("the page promises 30 lines, these are %zu", lines);
    block(page, "\n```sh\n", "example.sh");
    snprintf(command, sizeof command,
             "cd %s && PATH=" VKM_BINARY_DIR ":$PATH sh -e ./example.sh >example.log 2>&1", tmpdir);
    if (system(command) != 0) { // NOLINT: the page is this project's
        (void)!vkm_file_read(in_dir("example.log"), 1 << 20, &text, &n, &err);
        fail_msg("%s", text);
    }
    assert_int_equal(vkm_file_read(in_dir("run/rollouts.jsonl"), 1 << 20, &text, &n, &err), VKM_OK);
    size_t paid = 0, solved = 0;
    for (const char *at = text; (at = strstr(at, "\"reward\": 3.0")); at++) paid++;
    for (const char *at = text; (at = strstr(at, "\"gt_correct\": true")); at++) solved++;
    assert_true(paid >= 4 && solved >= 4); /* the teachers of two steps of two groups */
    free(text);
    assert_int_equal(vkm_file_read(in_dir("run/config.json"), 1 << 20, &text, &n, &err), VKM_OK);
    assert_non_null(strstr(text, "\"reward_command\": \"python3 sums.py\""));
    assert_non_null(strstr(text, "\"reward_from\": \"command\""));
    free(text);
    free(page);
}

/* ---- reward_command in a run -------------------------------------------------------------------
 */

/* A program without a verdict for every second problem: their groups are dropped and counted, the
 * others are learnt from; a program that never works ends the run. */
static void a_run_drops_what_has_no_verdict(void **state) {
    (void)state;
    static const char program[] =
        "import sys, json\n"
        "for line in sys.stdin:\n"
        "    q = json.loads(line)\n"
        "    if q['problem_id'] % 2: print('no idea')\n"
        "    else: print(json.dumps({'id': q['id'], 'reward': len(q['response']) % 7}))\n";
    static const char train[] =
        "train --model %s --data %s --output_dir %s --modes gt_only --arm none --quiet "
        "--reward_from command --reward_command '%s' --max_steps 2 --num_prompts 4 --lora_rank 2 "
        "--num_generations 2 --max_prompt_length 512 --max_completion_length 8 --backend cpu 2>&1";
    char args[VKM_PATH_MAX * 3], line[VKM_PATH_MAX + 32], *text, *page = read_page();
    size_t n;
    vkm_err err = {0};
    snprintf(line, sizeof line, "exec /usr/bin/python3 -S %s",
             put_file("half.py", program, sizeof program - 1));
    block(page, "\n```python\n", "sums.py");
    free(page);
    snprintf(args, sizeof args, "cd %s && python3 sums.py problems >sums.jsonl", tmpdir);
    assert_int_equal(system(args), 0); // NOLINT: the page is this project's
    snprintf(args, sizeof args, train, in_dir("model"), in_dir("sums.jsonl"), in_dir("half"), line);
    if (vkmoe(args, "") != 0) fail_msg("%s", out);
    assert_int_equal(vkm_file_read(in_dir("half/rollouts.jsonl"), 1 << 20, &text, &n, &err),
                     VKM_OK);
    size_t dropped = 0, paid = 0;
    for (char *at = text, *row; (row = strsep(&at, "\n")) && *row;) {
        char *id = strstr(row, "\"problem_id\": ");
        assert_non_null(id);
        int odd = atoi(id + 14) % 2, broken = strstr(row, "\"infra_error\": true") != NULL;
        assert_int_equal(odd, broken);
        if (broken) assert_non_null(strstr(row, "\"reward\": null"));
        if (broken) assert_non_null(strstr(row, "\"live\": false"));
        dropped += (size_t)broken;
        paid += (size_t)!broken;
    }
    assert_true(dropped > 0 && paid > 0 && dropped + paid == 16);
    free(text);
    snprintf(args, sizeof args, train, in_dir("model"), in_dir("sums.jsonl"), in_dir("none"),
             "exit 9");
    assert_int_equal(vkmoe(args, ""), 1);
    assert_non_null(strstr(out, "reward_command 'exit 9' failed 12 times in a row"));
    assert_int_equal(vkmoe("train --model x --data x --reward_from both 2>&1", ""), 2);
    assert_line(0, "reward_command is missing");
    assert_int_equal(vkmoe("train --model x --data x --reward_command true 2>&1", ""), 2);
    assert_line(0, "reward_from is grader");
}

static int set_up(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_problems_load(PROBLEMS, &problems, &err) ||
        vkm_model_preset_find("tiny", &tiny, &err))
        return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    return vkm_init_model(&o, NULL, &err) ? -1 : 0;
}

static int tear_down(void **state) {
    vkm_problems_free(problems);
    return tmpdir_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_in_order),
        cmocka_unit_test(a_problem_may_come_along_and_a_marker_too),
        cmocka_unit_test(output_is_kept_on_request),
        cmocka_unit_test(answers_stream),
        cmocka_unit_test(a_bad_line_ends_the_input_after_the_answers_before),
        cmocka_unit_test(hostile_input_stays_small),
        cmocka_unit_test(usage_is_2_and_a_full_disk_1),
        cmocka_unit_test(without_walls_every_answer_says_so),
        cmocka_unit_test(no_verdict_is_an_error_of_its_line),
        cmocka_unit_test(good_problems_are_good),
        cmocka_unit_test(bad_problems_are_all_named),
        cmocka_unit_test(pairs_are_measured),
        cmocka_unit_test(the_example_of_the_docs_runs),
        cmocka_unit_test(a_run_drops_what_has_no_verdict),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
