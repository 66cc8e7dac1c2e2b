/* Runs the program as a user does. Include after <cmocka.h> and tmpdir.h. */
#ifndef VKM_TESTS_PROGRAM_H
#define VKM_TESTS_PROGRAM_H

#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

static char out[1 << 18]; /* what it printed on stdout */

/* `vkmoe ARGS` (printf); stderr goes to the file `stderr` of the test's folder. Returns the exit
 * code.
 */
__attribute__((unused, format(printf, 1, 2))) static int vkmoe(const char *fmt, ...) {
    char args[4096], command[8192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    snprintf(command, sizeof command, "%s/vkmoe %s 2>'%s' </dev/null", VKM_BINARY_DIR, args,
             in_dir("stderr"));
    FILE *f = popen(command, "r"); // NOLINT: the arguments are the tests'
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    int rc = pclose(f);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

/* What it printed on stderr, to be freed. */
__attribute__((unused)) static char *stderr_text(void) {
    char *text = NULL;
    size_t n;
    vkm_err err = {0};
    if (vkm_file_read(in_dir("stderr"), 1 << 20, &text, &n, &err)) fail_msg("%s", err.msg);
    return text;
}

/* Fails, with what was printed, unless the exit code is 0. */
__attribute__((unused)) static void works(int rc) {
    if (rc) fail_msg("exit %d: %s", rc, stderr_text());
}

/* The exit code is `wanted`, and the last line on stderr has `part`. */
__attribute__((unused)) static void fails_with(int rc, int wanted, const char *part) {
    char *text = stderr_text();
    size_t n = strlen(text);
    assert_int_equal(rc, wanted);
    while (n && text[n - 1] == '\n') text[--n] = 0;
    char *last = strrchr(text, '\n');
    assert_has(last ? last + 1 : text, part);
    free(text);
}

#endif
