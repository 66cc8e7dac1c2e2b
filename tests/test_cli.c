/* The program as a user meets it: exit codes, streams, help, and one line an error. */
#include "base/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

static char out[1 << 16];

/* Runs `vkmoe <args>`; what it printed is in `out`. Returns its exit code. */
static int vkmoe(const char *args) {
    char command[1024];
    snprintf(command, sizeof command, "cd %s && %s/vkmoe %s", VKM_SOURCE_DIR, VKM_BINARY_DIR, args);
    FILE *f = popen(command, "r"); // NOLINT: the arguments are this file's
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    int rc = pclose(f);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

static void help_is_a_result_and_usage_an_error(void **state) {
    (void)state;
    assert_int_equal(vkmoe("--help 2>/dev/null"), 0);
    assert_non_null(strstr(out, "  kernels "));
    assert_int_equal(vkmoe("2>/dev/null"), 2);
    assert_string_equal(out, "");
    assert_int_equal(vkmoe("--version"), 0);
    assert_memory_equal(out, "vkmoe ", 6);
    assert_non_null(strstr(out, vkm_version()));
}

static void every_command_has_help(void **state) {
    (void)state;
    static char all[sizeof out];
    assert_int_equal(vkmoe("--help"), 0);
    strcpy(all, out);
    int n = 0;
    for (char *line = strtok(all, "\n"); line; line = strtok(NULL, "\n")) {
        char name[32], args[64];
        if (line[0] != ' ' || line[1] != ' ' || sscanf(line, " %31s", name) != 1) continue;
        snprintf(args, sizeof args, "%s --help", name);
        if (vkmoe(args) != 0) fail_msg("%s: %s", args, out);
        if (!strstr(out, "--help")) fail_msg("%s: %s", args, out);
        snprintf(args, sizeof args, "%s --no-such-option 2>&1", name);
        assert_int_equal(vkmoe(args), 2);
        n++;
    }
    assert_true(n >= 2);
}

static void errors_are_one_line_and_exit_2(void **state) {
    (void)state;
    static const struct {
        const char *args, *message;
    } cases[] = {
        {"kernles",
         "unknown command 'kernles' (did you mean 'kernels'?); `vkmoe --help` lists them"},
        {"kernels --jsn", "unknown option '--jsn' (did you mean '--json'?); `vkmoe kernels --help` "
                          "lists them"},
        {"kernels -j", "unknown option '--j'; `vkmoe kernels --help` lists them"},
        {"kernels --json=1", "--json takes no value"},
        {"kernels a b", "'b' is one argument too many; `vkmoe kernels --help`"},
        {"kernels no_such", "no kernel's name contains 'no_such'; `vkmoe kernels` lists all"},
        {"config --preset", "--preset needs a value"},
        {"config --set beta", "--set: 'beta' is not KEY=VALUE"},
        {"config --set beta=-1", "beta: -1 is out of range, it must be from 0 to 100"},
        {"config --top-k x", "top_k: 'x' is not an integer"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        char args[256], want[512];
        snprintf(args, sizeof args, "%s 2>&1 >/dev/null", cases[i].args);
        snprintf(want, sizeof want, "vkmoe %.*s: %s\n", (int)strcspn(cases[i].args, " "),
                 cases[i].args, cases[i].message);
        assert_int_equal(vkmoe(args), 2);
        assert_string_equal(out, want);
    }
}

static void options_win_over_the_file_wherever_they_stand(void **state) {
    (void)state;
    assert_int_equal(vkmoe("config --max-steps=7 smoke --set seed=5 --json"), 0);
    assert_non_null(strstr(out, "\"max_steps\": 7,"));
    assert_non_null(strstr(out, "\"seed\": 5,"));
    assert_non_null(strstr(out, "\"num_prompts\": 2,"));
}

static void a_full_stdout_is_an_error(void **state) {
    (void)state;
    assert_int_equal(vkmoe("kernels 2>&1 >/dev/full"), 1);
    assert_non_null(strstr(out, "stdout could not be written"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(help_is_a_result_and_usage_an_error),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(errors_are_one_line_and_exit_2),
        cmocka_unit_test(options_win_over_the_file_wherever_they_stand),
        cmocka_unit_test(a_full_stdout_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
