/* The benchmark's own data: canonical solutions are right in every mode and wrong once their value
 * is changed; the published teacher pool keeps its labels. VKMOE_LONG_TESTS=1 grades every problem
 * in every mode, three times; without it a sample. Skipped where the data is not there. */
#include "env_fixture.h"

#include <stdlib.h>

#define PROBLEMS SHARED_DATA "/leetcode_test_medhard.jsonl"
#define POOL     SHARED_DATA "/teacher_pool"

static bool is_long(void) {
    return getenv("VKMOE_LONG_TESTS") != NULL;
}

static vkm_problems *load_benchmark(void) {
    if (!vkm_file_exists(PROBLEMS)) {
        print_message("NO " PROBLEMS ": skipped\n");
        skip();
    }
    return load_problems(PROBLEMS);
}

static vkm_grader *open_default(void) {
    vkm_grade_config c = vkm_grade_config_default();
    return open_grader(&c);
}

static void submit_solution(vkm_grader *g, const vkm_problem *p, const vkm_mode *mode,
                            const char *after) {
    vkm_strbuf b = {0};
    vkm_err err = {0};
    uint64_t t;
    vkm_strbuf_printf(&b, "```python\n%s\n%s\n```", p->canonical_solution, after);
    if (vkm_grader_submit(g, p, mode, b.data, b.n, &t, &err)) fail_msg("%s", err.msg);
    vkm_strbuf_free(&b);
}

/* ---- canonical solutions -----------------------------------------------------------------------
 */

/* Grades them in all modes, or the i-th in the i-th mode; adds to the hash of what came out. */
static void grade_all(const vkm_problems *p, vkm_hash_state *hash, size_t *n, double *worst) {
    vkm_grader *grader = open_default();
    size_t stride = is_long() ? 1 : 10, modes = (size_t)vkm_n_modes;
    const vkm_problem *sent[119 * 16];
    uint64_t t;
    vkm_grade g;
    *n = 0;
    for (size_t i = 0; i < p->n; i += stride)
        for (size_t m = 0; m < modes; m++) {
            if (!is_long() && m != i / stride % modes) continue;
            sent[(*n)++] = &p->items[i];
            submit_solution(grader, &p->items[i], &vkm_modes[m], "");
        }
    while (vkm_grader_next(grader, true, &t, &g)) {
        if (!g.evidence.gt_correct || g.reward != 3.5f || g.exploited || g.infra_error)
            fail_msg("problem %lld: correct %d, %.1f s of CPU, %s", (long long)sent[t]->id,
                     g.evidence.gt_correct, g.cpu_s, g.reason);
        vkm_hash_add(hash, &g.evidence, sizeof g.evidence);
        if (g.cpu_s > *worst) *worst = g.cpu_s;
    }
    vkm_grader_stats s = vkm_grader_stats_now(grader);
    assert_int_equal(s.infra_errors, 0);
    assert_int_equal(s.graded, *n);
    vkm_grader_close(grader);
}

static void canonical_solutions_are_right(void **state) {
    (void)state;
    vkm_problems *p = load_benchmark();
    size_t asserts = 0, n = 0;
    double worst = 0;
    vkm_hash128 runs[3];
    assert_int_equal(p->n, 119);
    assert_int_equal(p->n_refused, 0);
    for (size_t i = 0; i < p->n; i++) asserts += p->items[i].n_asserts;
    assert_int_equal(asserts, 12592);
    for (int run = 0; run < (is_long() ? 3 : 1); run++) {
        vkm_hash_state h;
        vkm_hash_begin(&h);
        grade_all(p, &h, &n, &worst);
        runs[run] = vkm_hash_now(&h);
        assert_memory_equal(&runs[run], &runs[0], sizeof runs[0]);
        print_message("%zu grades of canonical solutions, all right, at most %.2f s of CPU\n", n,
                      worst);
    }
    vkm_problems_free(p);
}

/* ---- solutions whose value is changed ----------------------------------------------------------
 */

static void changed_values_are_wrong(void **state) {
    (void)state;
    static const char change[] =
        "_right = Solution.%s\n"
        "def _changed(v):\n"
        "    if type(v) is bool: return not v\n"
        "    if type(v) in (int, float): return v + 1\n"
        "    if type(v) is str: return v + '?'\n"
        "    return [0] + list(v or ())\n"
        "Solution.%s = lambda self, *a, **k: _changed(_right(self, *a, **k))\n";
    vkm_problems *p = load_benchmark();
    vkm_grader *grader = open_default();
    size_t stride = is_long() ? 1 : 10, n = 0;
    uint64_t t;
    vkm_grade g;
    for (size_t i = 0; i < p->n; i += stride, n++) {
        char after[1024];
        snprintf(after, sizeof after, change, p->items[i].method, p->items[i].method);
        submit_solution(grader, &p->items[i], &vkm_modes[n % (size_t)vkm_n_modes], after);
    }
    while (vkm_grader_next(grader, true, &t, &g)) {
        const vkm_evidence *e = &g.evidence;
        if (!e->can_compile || e->gt_correct || e->gt_pass || g.passed || g.infra_error)
            fail_msg("problem %lld with a changed value: correct %d, gt_pass %d, passed %d, %s",
                     (long long)p->items[t * stride].id, e->gt_correct, e->gt_pass, g.passed,
                     g.reason);
    }
    print_message("%zu canonical solutions with a changed value, all wrong\n", n);
    vkm_grader_close(grader);
    vkm_problems_free(p);
}

/* ---- the teacher pool --------------------------------------------------------------------------
 */

/* The pool's problems are not in the data, but their prompts name the method. Their asserts are not
 * compared: one that no answer meets stands for them. */
static void read_pool_problem(const char *prompt, const char *setup, vkm_problem *out) {
    static const char before[] = "class Solution called ";
    vkm_strbuf b = {0};
    vkm_json *doc;
    vkm_err err = {0};
    const char *name = strstr(prompt, before);
    assert_non_null(name);
    name += sizeof before - 1;
    int n = (int)strcspn(name, " ");
    vkm_jw w = vkm_jw_begin(&b, 0);
    vkm_strbuf call = {0}, claim = {0};
    vkm_strbuf_printf(&call, "Solution().%.*s", n, name);
    vkm_strbuf_printf(&claim, "assert Solution().%.*s() == 'no answer'", n, name);
    vkm_jw_obj(&w, NULL);
    vkm_jw_i64(&w, "id", 1);
    vkm_jw_str(&w, "difficulty", "medium");
    vkm_jw_raw(&w, "prompt",
               "[{\"role\": \"system\", \"content\": \"\"}, {\"role\": \"user\", \"content\": "
               "\"" VKM_HINT_PHRASE "\"}]");
    vkm_jw_str(&w, "func_name", vkm_strbuf_str(&call));
    vkm_jw_str(&w, "setup_code", setup);
    vkm_jw_arr(&w, "gt_answer");
    vkm_jw_str(&w, NULL, vkm_strbuf_str(&claim));
    vkm_jw_end_arr(&w);
    vkm_jw_str(&w, "canonical_solution", "class Solution: pass");
    vkm_jw_end_obj(&w);
    if (vkm_json_parse(b.data, b.n, "a pool's problem", NULL, &doc, &err) ||
        vkm_problem_read(vkm_json_root(doc), out, &err))
        fail_msg("%s", err.msg);
    vkm_json_free(doc);
    vkm_strbuf_free(&b), vkm_strbuf_free(&call), vkm_strbuf_free(&claim);
}

/* One row of the pool, graded anew: 1 where format, compile and hacked are as cached. */
static int row_keeps_its_labels(vkm_grader *grader, vkm_jv row, const char *setup) {
    const char *prompt = "", *completion = "";
    bool fmt_ok = false, hacked = false;
    double reward = 0;
    vkm_err err = {0};
    vkm_problem p;
    if (vkm_json_get_str(row, "prompt", VKM_JSON_REQ, &prompt, &err) ||
        vkm_json_get_str(row, "completion", VKM_JSON_REQ, &completion, &err) ||
        vkm_json_get_bool(row, "fmt_ok", VKM_JSON_REQ, &fmt_ok, &err) ||
        vkm_json_get_bool(row, "hacked", VKM_JSON_REQ, &hacked, &err) ||
        vkm_json_get_double(row, "reward", VKM_JSON_REQ, 0, 4, &reward, &err))
        fail_msg("%s", err.msg);
    read_pool_problem(prompt, setup, &p);
    vkm_grade g = grade_one(grader, &p, mode_named("run_tests"), completion, strlen(completion));
    int same = g.evidence.format_ok == fmt_ok && g.evidence.hacked == hacked &&
               g.evidence.can_compile == (reward >= (double)VKM_REWARD_COMPILE);
    if (!same)
        print_message("format %d, compile %d, hacked %d, cached as %d, %d, %d: %s\n",
                      g.evidence.format_ok, g.evidence.can_compile, g.evidence.hacked, fmt_ok,
                      reward >= 0.5, hacked, completion);
    vkm_problem_clear(&p);
    return same;
}

static void pool_keeps_its_labels(void **state) {
    static const vkm_json_limits limits = {.nan_as_null = true};
    (void)state;
    vkm_problems *benchmark = load_benchmark();
    vkm_grader *grader = open_default();
    size_t n = 0, same = 0, stride = is_long() ? 1 : 5, at = 0;
    for (size_t i = 0; i < 10000; i++) {
        char path[VKM_PATH_MAX];
        vkm_jsonl *file;
        vkm_json *doc;
        vkm_err err = {0};
        snprintf(path, sizeof path, POOL "/prompt_%04zu.jsonl.gz", i);
        if (!vkm_file_exists(path)) continue;
        if (vkm_jsonl_open(path, &limits, &file, &err)) fail_msg("%s", err.msg);
        for (; !vkm_jsonl_next(file, &doc, &err) && doc; vkm_json_free(doc)) {
            if (at++ % stride) continue;
            n++;
            same += (size_t)row_keeps_its_labels(grader, vkm_json_root(doc),
                                                 benchmark->items[0].setup_code);
        }
        if (err.status) fail_msg("%s", err.msg);
        vkm_jsonl_free(file);
    }
    print_message("%zu of %zu completions of the pool keep format, compile and hacked\n", same, n);
    assert_int_equal(same, n);
    assert_int_equal(at, 160);
    vkm_grader_close(grader);
    vkm_problems_free(benchmark);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canonical_solutions_are_right),
        cmocka_unit_test(changed_values_are_wrong),
        cmocka_unit_test(pool_keeps_its_labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
