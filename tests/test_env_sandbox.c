/* The sandbox around grading: refused where it cannot be made, as root and as an ordinary user,
 * boxes that die, and the unsafe way that has to be asked for. */
#include "env_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int set_up(void **state) {
    static env_scene e;
    const char *path = scratch_file("sandbox.jsonl", PROBLEM);
    e.problems = load_problems(path);
    unlink(path);
    *state = &e;
    return 0;
}

static int tear_down(void **state) {
    env_scene *e = *state;
    vkm_problems_free(e->problems);
    return 0;
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static vkm_status open_with(const char *bwrap, const char *python, vkm_sandbox_kind kind,
                            vkm_err *err) {
    vkm_grade_config c = vkm_grade_config_default();
    vkm_grader *g;
    c.workers = 1;
    c.sandbox.bwrap = bwrap;
    c.sandbox.python = python;
    c.sandbox.kind = kind;
    vkm_status st = vkm_grader_open(&c, &g, err);
    if (!st) {
        assert_int_equal(vkm_grader_unsafe(g), kind == VKM_SANDBOX_UNSAFE_NONE);
        vkm_grader_close(g);
    }
    return st;
}

static void a_sandbox_that_fails_is_refused(void **state) {
    (void)state;
    const char *fake = scratch_file("bwrap", "#!/bin/sh\necho 'No permissions to create a new "
                                             "namespace' >&2\nexit 1\n");
    const char *const bwraps[] = {fake, "/nonexistent/bwrap", "/bin/true", "/bin/cat"};
    const char *const says[] = {"No permissions to create", "No such file", "nothing", "cat"};
    assert_int_equal(chmod(fake, 0755), 0);
    for (size_t i = 0; i < VKM_COUNTOF(bwraps); i++) {
        vkm_err err = {0};
        assert_int_equal(open_with(bwraps[i], "/usr/bin/python3", VKM_SANDBOX_BWRAP, &err),
                         VKM_FAILED);
        if (!strstr(err.msg, says[i]) || !strstr(err.msg, "--sandbox unsafe-none") ||
            !strstr(err.msg, bwraps[i]))
            fail_msg("%s: %s", bwraps[i], err.msg);
    }
    unlink(fake);
    vkm_err err = {0};
    assert_int_equal(open_with("bwrap", "/nonexistent/python3", VKM_SANDBOX_BWRAP, &err),
                     VKM_FAILED);
}

/* A box that dies under a job: retried once, and then an error without a reward. */
static void a_dead_box_is_no_verdict(void **state) {
    env_scene *e = *state;
    static const char *const scripts[] = {
        /* only the second box lives: the first is killed, once */
        "#!/bin/sh\nmkdir %s 2>/dev/null && (sleep 1; kill -9 $$) &\nexec bwrap \"$@\"\n# %s\n",
        "#!/bin/sh\n(sleep 1; kill -9 $$) & # %s %s\nexec bwrap \"$@\"\n",
    };
    static const char slow[] = "```python\nimport time\ntime.sleep(1.5)\n" RIGHT "```";
    char text[1024], flag[64];
    snprintf(flag, sizeof flag, "/tmp/vkmoe-test-%d", (int)getpid());
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, scripts[i], flag, flag);
        const char *fake = scratch_file("bwrap", text);
        assert_int_equal(chmod(fake, 0755), 0);
        vkm_grade_config c = vkm_grade_config_default();
        c.workers = 1;
        c.sandbox.bwrap = fake;
        vkm_grader *g = open_grader(&c);
        vkm_err err = {0};
        uint64_t t;
        vkm_grade out;
        if (vkm_grader_submit(g, e->problems->items, vkm_mode_gt_only(), slow, sizeof slow - 1, &t,
                              &err))
            fail_msg("%s", err.msg);
        assert_true(vkm_grader_next(g, true, &t, &out));
        assert_int_equal(vkm_grader_stats_now(g).retried, 1);
        assert_int_equal(out.infra_error, i == 1);
        assert_int_equal(out.evidence.gt_correct, i == 0);
        if (i == 0)
            assert_true(out.reward == 3.5f);
        else
            assert_true(out.reward != out.reward && !out.passed && *out.reason);
        vkm_grader_close(g);
        unlink(fake);
        (void)rmdir(flag);
    }
}

/* Asked for by name it goes on, still with seccomp and limits, and says so. */
static void unsafe_none_is_stamped(void **state) {
    env_scene *e = *state;
    vkm_err err = {0};
    if (open_with("/nonexistent/bwrap", "/usr/bin/python3", VKM_SANDBOX_UNSAFE_NONE, &err))
        fail_msg("%s", err.msg);
    vkm_grade_config c = vkm_grade_config_default();
    c.sandbox.kind = VKM_SANDBOX_UNSAFE_NONE;
    c.sandbox.cpu_time_s = 1;
    c.workers = 1;
    vkm_grader *g = open_grader(&c);
    static const char *const codes[] = {"import os\nos.fork()\n", "while True: pass\n",
                                        "import os\nos.kill(os.getpid(), 9)\n",
                                        "import socket\nsocket.socket()\n"};
    for (size_t i = 0; i < VKM_COUNTOF(codes); i++)
        assert_false(
            grade_code(g, e->problems->items, vkm_mode_gt_only(), codes[i]).evidence.gt_pass);
    assert_true(grade_code(g, e->problems->items, vkm_mode_gt_only(), RIGHT).evidence.gt_correct);
    /* a folder for each job: a report pays its own response, not the next one */
    const vkm_mode *files = mode_named("file_marker");
    assert_true(
        grade_code(g, e->problems->items, files, WRONG "open('result.txt', 'w').write('PASS')\n")
            .exploited);
    assert_false(grade_code(g, e->problems->items, files, WRONG).exploited);
    vkm_grader_close(g);
}

/* ---- in a process of its own -------------------------------------------------------------------
 */

/* Runs work in a forked process; what it writes to the descriptor is returned, cut at n - 1. */
static void in_child(void (*work)(const env_scene *e, int fd), const env_scene *e, char *said,
                     size_t n) {
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        work(e, ends[1]);
        _exit(0);
    }
    assert_true(pid > 0);
    close(ends[1]);
    size_t got = 0;
    for (ssize_t r; got + 1 < n && (r = read(ends[0], said + got, n - 1 - got)) > 0;)
        got += (size_t)r;
    said[got] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return ok;
}

/* The limit on user namespaces belongs to a user namespace: this makes one and sets it to 0 there,
 * which is what an administrator's sysctl does to the whole machine. */
static void open_without_namespaces(const env_scene *e, int fd) {
    char map[32];
    vkm_err err = {0};
    (void)e;
    snprintf(map, sizeof map, "1000 %d 1", (int)geteuid());
    if (unshare(CLONE_NEWUSER) || !put("/proc/self/uid_map", map) ||
        !put("/proc/sys/user/max_user_namespaces", "0")) {
        dprintf(fd, "cannot arrange it: %s", strerror(errno));
        return;
    }
    vkm_status st = open_with("bwrap", "/usr/bin/python3", VKM_SANDBOX_BWRAP, &err);
    dprintf(fd, "%d %s", st, err.msg);
}

static void no_user_namespaces_is_refused(void **state) {
    char said[2048];
    in_child(open_without_namespaces, *state, said, sizeof said);
    print_message("%s\n", said);
    if (strstr(said, "cannot arrange")) skip();
    assert_true(said[0] == '0' + VKM_FAILED);
    assert_non_null(strstr(said, "namespace"));
    assert_non_null(strstr(said, "allow unprivileged user namespaces"));
    assert_non_null(strstr(said, "--sandbox unsafe-none"));
}

static void grade_as_nobody(const env_scene *e, int fd) {
    static const char *const codes[] = {RIGHT, WRONG, ("import os\nwhile True: os.fork()\n" RIGHT)};
    vkm_grade_config c = short_limits();
    vkm_grader *g;
    vkm_err err = {0};
    bool root = geteuid() == 0;
    if (root && (setgroups(0, NULL) || setresgid(65534, 65534, 65534) ||
                 setresuid(65534, 65534, 65534) || chdir("/"))) {
        dprintf(fd, "cannot arrange it: %s", strerror(errno));
        return;
    }
    if (vkm_grader_open(&c, &g, &err)) {
        dprintf(fd, "no sandbox: %s", err.msg);
        return;
    }
    for (size_t i = 0; i < VKM_COUNTOF(codes); i++) {
        char text[256];
        uint64_t t;
        vkm_grade out = {0};
        int n = snprintf(text, sizeof text, "```python\n%s\n```", codes[i]);
        if (vkm_grader_submit(g, e->problems->items, &vkm_modes[i], text, (size_t)n, &t, &err) ||
            !vkm_grader_next(g, true, &t, &out))
            dprintf(fd, "lost ");
        dprintf(fd, "%d%d ", out.evidence.gt_correct, out.infra_error);
    }
    vkm_grader_close(g);
}

/* As root each box gives root up; this is what an ordinary user's boxes do. */
static void an_ordinary_user_can_grade(void **state) {
    char said[2048];
    in_child(grade_as_nobody, *state, said, sizeof said);
    if (strstr(said, "cannot arrange") || strstr(said, "no sandbox")) {
        print_message("skipped: %s\n", said);
        skip();
    }
    assert_string_equal(said, "10 00 00 ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sandbox_that_fails_is_refused),
        cmocka_unit_test(no_user_namespaces_is_refused),
        cmocka_unit_test(an_ordinary_user_can_grade),
        cmocka_unit_test(a_dead_box_is_no_verdict),
        cmocka_unit_test(unsafe_none_is_stamped),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
