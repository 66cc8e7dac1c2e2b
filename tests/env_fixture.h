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

/* Opens a grader, or skips the test where sandboxes cannot be made. */
static inline vkm_grader *open_grader(const vkm_grade_config *c) {
    vkm_grader *g;
    vkm_err err = {0};
    if (!vkm_grader_open(c, &g, &err)) return g;
    print_message("no sandbox here: %s\n", err.msg);
    skip();
    return NULL;
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

#endif
