/* Shared by the environment's tests: a problem file in a temporary folder, and one grade at a time.
 */
#ifndef VKM_ENV_FIXTURE_H
#define VKM_ENV_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "env/grade.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHARED_DATA VKM_SOURCE_DIR "/../shared/data"

static inline const char *scratch_path(const char *name) {
    static char path[VKM_PATH_MAX];
    snprintf(path, sizeof path, "%s/env-%d-%s", VKM_BINARY_DIR, (int)getpid(), name);
    return path;
}

/* Writes text to a scratch file that the caller unlinks. */
static inline const char *scratch_file(const char *name, const char *text) {
    vkm_err err = {0};
    const char *path = scratch_path(name);
    if (vkm_file_save(path, text, strlen(text), &err)) fail_msg("%s", err.msg);
    return path;
}

static inline vkm_problems *load_problems(const char *path) {
    vkm_problems *p;
    vkm_err err = {0};
    if (vkm_problems_load(path, &p, &err)) fail_msg("%s", err.msg);
    return p;
}

/* NULL, with the reason printed, where sandboxes cannot be made. */
static inline vkm_grader *try_grader(const vkm_grade_config *c) {
    vkm_grader *g;
    vkm_err err = {0};
    if (!vkm_grader_open(c, &g, &err)) return g;
    print_message("NO SANDBOX CAN BE MADE HERE, tests that need one are skipped: %s\n", err.msg);
    return NULL;
}

/* Opens a grader, or skips the test. */
static inline vkm_grader *open_grader(const vkm_grade_config *c) {
    vkm_grader *g = try_grader(c);
    if (!g) skip();
    return g;
}

static inline vkm_grade grade_one(vkm_grader *g, const vkm_problem *p, const vkm_mode *mode,
                                  const char *text, size_t n) {
    vkm_err err = {0};
    vkm_grade out;
    uint64_t sent, got;
    if (vkm_grader_submit(g, p, mode, text, n, &sent, &err)) fail_msg("%s", err.msg);
    assert_true(vkm_grader_next(g, true, &got, &out));
    assert_int_equal(sent, got);
    if (out.infra_error) fail_msg("infrastructure error: %s", out.reason);
    return out;
}

/* Grades code put into a fence. */
static inline vkm_grade grade_code(vkm_grader *g, const vkm_problem *p, const vkm_mode *mode,
                                   const char *code) {
    vkm_strbuf b = {0};
    vkm_strbuf_printf(&b, "```python\n%s\n```", code);
    vkm_grade out = grade_one(g, p, mode, b.data, b.n);
    vkm_strbuf_free(&b);
    return out;
}

/* ---- a problem, answers to it, and a grader
 * ------------------------------------------------------
 */

#define PROBLEM                                                                                    \
    "{\"id\": 1, \"difficulty\": \"easy\", \"prompt\": [{\"role\": \"system\", \"content\": "      \
    "\"s\"}, "                                                                                     \
    "{\"role\": \"user\", \"content\": \"Return n * n and should pass all tests.\"}], "            \
    "\"func_name\": "                                                                              \
    "\"Solution().f\", \"setup_code\": \"import math\\nfrom typing import *\\n\", \"gt_answer\": " \
    "[\"assert Solution().f(n = 2) == 4\", \"assert Solution().f(n = 3) == 9\", \"assert "         \
    "Solution().f(n = -12345678901) == 152415787526596567801\"], \"canonical_solution\": "         \
    "\"class Solution:\\n    def f(self, n):\\n        return self.g(n)\\n    def g(self, n):\\n"  \
    "        return n * n\\n\"}\n"

#define HEAD          "class Solution:\n"
#define RIGHT         "class Solution:\n    def f(self, n):\n        return n * n\n"
#define WRONG         "class Solution:\n    def f(self, n):\n        return n\n"
#define AT_CALL(body) HEAD "    def f(self, n):\n        " body "\n"

typedef struct env_scene {
    vkm_problems *problems; /* one: n * n for 2, 3 and -12345678901 */
    vkm_grader *grader;     /* NULL where sandboxes cannot be made */
} env_scene;

static inline const vkm_mode *mode_named(const char *name) {
    vkm_err err = {0};
    const vkm_mode *mode = vkm_mode_find(name, &err);
    if (!mode) fail_msg("%s", err.msg);
    return mode;
}

/* For a group's set-up: opens both. */
static inline int env_open(void **state, const vkm_grade_config *c) {
    static env_scene e;
    const char *path = scratch_file("env.jsonl", PROBLEM);
    e.problems = load_problems(path);
    unlink(path);
    e.grader = try_grader(c);
    *state = &e;
    return 0;
}

static inline int env_close(void **state) {
    env_scene *e = *state;
    vkm_grader_close(e->grader);
    vkm_problems_free(e->problems);
    return 0;
}

/* For a test: skips it where sandboxes cannot be made. */
static inline env_scene *env_of(void **state) {
    env_scene *e = *state;
    if (!e->grader) skip();
    return e;
}

/* Short limits: hostile code often uses up all of them. */
static inline vkm_grade_config short_limits(void) {
    vkm_grade_config c = vkm_grade_config_default();
    c.sandbox.cpu_time_s = 1;
    c.sandbox.wall_time_s = 3;
    c.workers = 2;
    return c;
}

/* Queues code put into a fence. */
static inline void submit_code(env_scene *e, const vkm_mode *mode, const char *code) {
    vkm_err err = {0};
    vkm_strbuf b = {0};
    uint64_t t;
    vkm_strbuf_printf(&b, "```python\n%s\n```", code);
    if (vkm_grader_submit(e->grader, e->problems->items, mode, b.data, b.n, &t, &err))
        fail_msg("%s", err.msg);
    vkm_strbuf_free(&b);
}

#endif
