/* Owns the walls of a box. */
#include "env/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/hash.h"

extern const char vkm_zygote_text[];

enum { SOCK_FD = 3, MAX_ARGS = 128 };

/* ---- seccomp: what a job may call --------------------------------------------------------------
 */

/* All else answers EPERM. Not here: fork, exec, sockets, ptrace, mounts, io_uring, memfd, timers
 * and signals to processes. */
static const char *const allowed_calls[] = {
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "lseek",
    "close",
    "close_range",
    "open",
    "openat",
    "creat",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "statx",
    "fstatfs",
    "statfs",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents",
    "getdents64",
    "getcwd",
    "chdir",
    "fchdir",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "ftruncate",
    "truncate",
    "fsync",
    "fdatasync",
    "utimensat",
    "chmod",
    "fchmod",
    "fchmodat",
    "umask",
    "dup",
    "dup2",
    "dup3",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "eventfd2",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "brk",
    "futex",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "set_tid_address",
    "arch_prctl",
    "sched_yield",
    "sched_getaffinity",
    "wait4",
    "exit",
    "exit_group",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "restart_syscall",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getpgrp",
    "getpgid",
    "getsid",
    "getgroups",
    "uname",
    "sysinfo",
    "getrlimit",
    "getrusage",
    "times",
    "time",
    "gettimeofday",
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "getrandom",
    "getcpu",
};

/* fcntl without the commands that make the kernel send signals. */
static const int fcntl_commands[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL,
                                     F_SETFL, F_GETLK,         F_SETLK, F_SETLKW};

static int add_rules(scmp_filter_ctx ctx) {
    int rc = 0;
    for (size_t i = 0; i < VKM_COUNTOF(allowed_calls); i++) {
        int nr = seccomp_syscall_resolve_name(allowed_calls[i]);
        if (nr != __NR_SCMP_ERROR && nr >= 0) rc |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
    }
    for (size_t i = 0; i < VKM_COUNTOF(fcntl_commands); i++)
        rc |= seccomp_rule_add(
            ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
            SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffu, (scmp_datum_t)fcntl_commands[i]));
    /* threads, but no processes; clone3 hides its flags, and libc falls back on ENOSYS */
    rc |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                           SCMP_A0(SCMP_CMP_MASKED_EQ, 0x10000, 0x10000));
    rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    /* limits may be read, not lowered: a limit that the job set itself would look like the host's
     */
    rc |= seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0));
    return rc;
}

/* The filter as hexadecimal, for a command line. */
static vkm_status seccomp_hex(vkm_strbuf *out, vkm_err *err) {
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int fd = memfd_create("seccomp", MFD_CLOEXEC);
    uint8_t byte;
    /* 2: a tree, since the kernel runs the filter once for every call when it takes it */
    bool ok = ctx && fd >= 0 && !seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) &&
              !add_rules(ctx) && !seccomp_export_bpf(ctx, fd) && lseek(fd, 0, SEEK_SET) == 0;
    while (ok && read(fd, &byte, 1) == 1) vkm_strbuf_printf(out, "%02x", byte);
    if (fd >= 0) close(fd);
    if (ctx) seccomp_release(ctx);
    if (ok && !out->failed && out->n) return VKM_OK;
    return vkm_fail(err, VKM_FAILED,
                    "sandbox: libseccomp made no filter; is this a processor that it supports?");
}

/* ---- the command line --------------------------------------------------------------------------
 */

typedef struct {
    const char *v[MAX_ARGS];
    size_t n;
} args;

static void add(args *a, const char *s) {
    VKM_BUG_ON(a->n + 1 >= MAX_ARGS, "more arguments than a box needs");
    a->v[a->n++] = s;
}

static void add_all(args *a, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++) add(a, list[i]);
}

/* System folders that hold libraries: bound as they are, links as links. */
static void add_libraries(args *a, char links[][PATH_MAX]) {
    static const char *const folders[] = {"/lib", "/lib64", "/usr/lib", "/usr/lib64"};
    for (size_t i = 0; i < VKM_COUNTOF(folders); i++) {
        struct stat st;
        if (lstat(folders[i], &st) < 0) continue;
        ssize_t n = S_ISLNK(st.st_mode) ? readlink(folders[i], links[i], PATH_MAX - 1) : -1;
        if (n > 0) links[i][n] = 0;
        add(a, n > 0 ? "--symlink" : "--ro-bind");
        add(a, n > 0 ? links[i] : folders[i]);
        add(a, folders[i]);
    }
}

static const char *const box_head[] = {
    "--unshare-all",
    "--unshare-user",
    "--disable-userns",
    "--uid",
    "65534",
    "--gid",
    "65534",
    "--hostname",
    "box",
    "--clearenv",
    "--setenv",
    "PATH",
    "/usr/bin",
    "--setenv",
    "PYTHONHASHSEED",
    "0",
    "--setenv",
    "LC_ALL",
    "C.UTF-8",
};
static const char *const box_tail[] = {
    "--dev-bind",        "/dev/null",  "/dev/null", "--dev-bind", "/dev/urandom",
    "/dev/urandom",      "--size",     "1048576",   "--tmpfs",    "/tmp",
    "--remount-ro",      "/",          "--chdir",   "/",          "--new-session",
    "--die-with-parent", "--cap-drop", "ALL",       "--cap-add",  "CAP_SYS_ADMIN",
};

/* An interpreter outside /usr brings its own prefix, the folder above its bin. */
static void add_python(args *a, const char *python, char real[PATH_MAX], char prefix[PATH_MAX]) {
    if (!realpath(python, real)) snprintf(real, PATH_MAX, "%s", python);
    snprintf(prefix, PATH_MAX, "%s", real);
    for (int i = 0; i < 2 && strrchr(prefix, '/'); i++) *strrchr(prefix, '/') = 0;
    bool own_prefix = strncmp(real, "/usr/bin/", 9) != 0 && *prefix;
    add(a, "--ro-bind");
    add(a, own_prefix ? prefix : real);
    add(a, own_prefix ? prefix : real);
}

/* ---- starting ----------------------------------------------------------------------------------
 */

/* Between fork and exec only calls that are safe there: other threads may hold any lock. */
static _Noreturn void exec_box(const vkm_sandbox_config *config, int slot, int sock, int errors,
                               const args *a) {
    static const char *const no_env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONHASHSEED=0",
                                         "LC_ALL=C.UTF-8", NULL};
    sigset_t none;
    int null = open("/dev/null", O_RDWR);
    /* away from the targets first: errors may be fd 3 itself, in a program without stdin */
    int high_sock = fcntl(sock, F_DUPFD, 10), high_errors = fcntl(errors, F_DUPFD, 10);
    int high_null = fcntl(null, F_DUPFD, 10);
    if (null < 0 || high_sock < 0 || high_errors < 0 || high_null < 0) _exit(126);
    if (dup2(high_null, 0) < 0 || dup2(high_null, 1) < 0 || dup2(high_errors, 2) < 0 ||
        dup2(high_sock, SOCK_FD) < 0)
        _exit(126);
    syscall(SYS_close_range, SOCK_FD + 1, ~0u, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    struct rlimit stack = {64 << 20, 64 << 20}, no_core = {0, 0};
    setrlimit(RLIMIT_STACK, &stack);
    setrlimit(RLIMIT_CORE, &no_core);
    if (syscall(SYS_geteuid) == 0) { /* limits on processes do not hold for root */
        long id = config->uid_base + slot;
        if (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, id, id, id) ||
            syscall(SYS_setresuid, id, id, id)) {
            static const char why[] = "root could not be given up";
            if (write(2, why, sizeof why - 1) < 0) _exit(125);
            _exit(126);
        }
    }
    execvpe(a->v[0], (char *const *)(uintptr_t)a->v, (char *const *)(uintptr_t)no_env);
    const char *why = strerrordesc_np(errno);
    if (why && write(2, why, strlen(why)) < 0) _exit(125);
    _exit(127);
}

uint64_t vkm_confine_code_hash(void) {
    return vkm_hash64(vkm_zygote_text, strlen(vkm_zygote_text), 0);
}

pid_t vkm_confine_spawn(const vkm_sandbox_config *config, int slot, int sock, int errors,
                        vkm_err *err) {
    static const char *const python_flags[] = {"-s", "-S", "-B", "-c", vkm_zygote_text};
    char links[4][PATH_MAX], real[PATH_MAX], prefix[PATH_MAX], nr_clone[16];
    bool boxed = config->kind == VKM_SANDBOX_BWRAP;
    vkm_strbuf filter = {0};
    args a = {{0}, 0};
    if (seccomp_hex(&filter, err)) {
        vkm_strbuf_free(&filter);
        return -1;
    }
    snprintf(nr_clone, sizeof nr_clone, "%d", SYS_clone);
    if (boxed) {
        add(&a, config->bwrap);
        add_all(&a, box_head, VKM_COUNTOF(box_head));
        add_libraries(&a, links);
        add_python(&a, config->python, real, prefix);
        add_all(&a, box_tail, VKM_COUNTOF(box_tail));
        add(&a, "--");
        add(&a, real);
    } else {
        add(&a, config->python);
    }
    add_all(&a, python_flags, VKM_COUNTOF(python_flags));
    add(&a, boxed ? "1" : "0");
    add(&a, nr_clone);
    add(&a, vkm_strbuf_str(&filter));
    pid_t pid = fork();
    if (pid == 0) exec_box(config, slot, sock, errors, &a);
    if (pid < 0) vkm_fail(err, VKM_FAILED, "sandbox: no process for a box: %s", strerror(errno));
    vkm_strbuf_free(&filter);
    return pid;
}

const char *vkm_confine_mend(vkm_sandbox_kind kind) {
    return kind == VKM_SANDBOX_BWRAP
               ? "model-written code must not run without a sandbox: install bubblewrap and "
                 "/usr/bin/python3, allow unprivileged user namespaces (sysctl "
                 "user.max_user_namespaces=10000, kernel.unprivileged_userns_clone=1, "
                 "kernel.apparmor_restrict_unprivileged_userns=0; "
                 "in a container, allow nested namespaces), or give --sandbox unsafe-none on a "
                 "machine that you can afford to lose"
               : "is /usr/bin/python3 3.9 or newer?";
}
