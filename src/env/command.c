/* Owns the user's reward program: its process, the thread that talks to it, retries and order. */
#include "env/command.h"

#include "base/log.h"
#include "env/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    WINDOW = 64,          /* requests that may wait for an answer: a program may work on several */
    MAX_ANSWER = 1 << 20, /* bytes of a line */
    END_MS = 2000,        /* between closing its stdin and killing it */
};

extern char **environ;

typedef struct task {
    struct task *next;
    uint64_t id;
    char *request;
    size_t n;
    int failures;
    bool done;
    vkm_grade grade;
} task;

struct vkm_command {
    char *line;
    double timeout_s;
    pthread_t thread;
    int wake; /* an eventfd: more to do */
    pthread_mutex_t lock;
    pthread_cond_t done;
    /* under the lock; a task's request and its place are the thread's until it is done */
    task *first, *last; /* not collected */
    task *oldest;       /* not answered */
    uint64_t n_submitted;
    bool closing;
    vkm_err given_up;
    /* the thread's own */
    pid_t pid; /* 0: not running */
    int to, from;
    int n_asked;      /* begun, not answered */
    size_t sent;      /* bytes of the last of them, 0 once all are */
    double answer_by; /* when the next answer is due */
    bool one_by_one;  /* after a failure: whose fault it is shows when it is asked alone */
    int failures;     /* in a row */
    vkm_strbuf got;   /* answers, not yet read */
};

/* ---- the process -------------------------------------------------------------------------------
 */

/* A pipe away from stdin, stdout and stderr, which a parent may have closed. */
static int make_pipe(int fd[2]) {
    int raw[2];
    if (pipe2(raw, O_CLOEXEC)) return -1;
    for (int i = 0; i < 2; i++) {
        fd[i] = fcntl(raw[i], F_DUPFD_CLOEXEC, 3);
        close(raw[i]);
    }
    return fd[0] < 0 || fd[1] < 0 ? -1 : 0;
}

static void close_pair(int fd[2]) {
    for (int i = 0; i < 2; i++)
        if (fd[i] >= 0) close(fd[i]);
}

/* This environment and one variable more, so that a Python program answers line by line. */
static char **environment(void) {
    static char unbuffered[] = "PYTHONUNBUFFERED=1";
    size_t n = 0;
    while (environ[n]) n++;
    char **env = calloc(n + 2, sizeof(char *));
    if (!env) return NULL;
    env[0] = unbuffered;
    memcpy((void *)(env + 1), (void *)environ, n * sizeof(char *));
    return env;
}

static int spawn(vkm_command *c, int child_in, int child_out) {
    char shell[] = "/bin/sh", flag[] = "-c";
    char *const argv[] = {shell, flag, c->line, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char **env = environment();
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, child_in, 0);
    posix_spawn_file_actions_adddup2(&files, child_out, 1);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setpgroup(&attr, 0); /* Ctrl-C is for the run, which ends the program itself */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    int rc = env ? posix_spawn(&c->pid, shell, &files, &attr, argv, env) : ENOMEM;
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    free((void *)env);
    return rc;
}

static bool start(vkm_command *c, char reason[200]) {
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    int rc = make_pipe(in) || make_pipe(out) ? errno : spawn(c, in[0], out[1]);
    if (rc) {
        close_pair(in);
        close_pair(out);
        c->pid = 0;
        snprintf(reason, 200, "could not be started: %s", strerror(rc));
        return false;
    }
    close(in[0]);
    close(out[1]);
    c->to = in[1];
    c->from = out[0];
    fcntl(c->to, F_SETFL, O_NONBLOCK);
    return true;
}

/* Waits at most ms for the program to end, and ends what it left behind. Its wait status, or -1. */
static int wait_end(vkm_command *c, int ms) {
    int status = -1;
    for (int waited = 0; c->pid; waited += 10) {
        siginfo_t info = {0};
        int rc = waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT);
        if (rc == 0 && info.si_pid == 0) {
            if (waited >= ms) return -1;
            usleep(10000);
            continue;
        }
        kill(-c->pid, SIGKILL);
        if (waitpid(c->pid, &status, 0) != c->pid) status = -1;
        c->pid = 0;
    }
    return status;
}

static void shut(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void stop(vkm_command *c, int ms) {
    shut(&c->to);
    wait_end(c, ms);
    if (c->pid) {
        kill(-c->pid, SIGKILL);
        wait_end(c, 60000);
    }
    shut(&c->from);
    c->pid = 0;
    vkm_strbuf_clear(&c->got);
}

static void describe_end(vkm_command *c, char reason[200]) {
    int status = wait_end(c, 500);
    if (status >= 0 && WIFEXITED(status))
        snprintf(reason, 200, "ended with exit code %d before it answered", WEXITSTATUS(status));
    else if (status >= 0 && WIFSIGNALED(status))
        snprintf(reason, 200, "was ended by signal %d before it answered", WTERMSIG(status));
    else
        snprintf(reason, 200, "closed its stdout before it answered");
}

/* ---- results -----------------------------------------------------------------------------------
 */

/* The oldest task has its result. */
static void finish(vkm_command *c, const vkm_grade *grade) {
    pthread_mutex_lock(&c->lock);
    task *t = c->oldest;
    VKM_BUG_ON(!t, "an answer to nothing");
    t->grade = *grade;
    t->done = true;
    free(t->request);
    t->request = NULL;
    c->oldest = t->next;
    pthread_cond_broadcast(&c->done);
    pthread_mutex_unlock(&c->lock);
}

/* Ends the program; what is not answered is asked again, the oldest once. */
static void failed(vkm_command *c, const char *reason) {
    vkm_grade none = {.reward = __builtin_nanf(""), .infra_error = true};
    task *t = c->oldest;
    VKM_BUG_ON(!t, "a failure without a request");
    stop(c, 0);
    bool again = ++t->failures < 2;
    bool give_up = ++c->failures >= VKM_COMMAND_GIVE_UP;
    vkm_warn("reward_command %s; %s", reason,
             give_up ? "given up"
             : again ? "restarted to ask again"
                     : "this response is dropped");
    snprintf(none.reason, sizeof none.reason, "reward_command %.180s", reason);
    if (!again) finish(c, &none);
    c->sent = 0;
    c->n_asked = 0;
    c->one_by_one = true;
    pthread_mutex_lock(&c->lock);
    if (give_up)
        vkm_fail(&c->given_up, VKM_FAILED,
                 "reward_command '%.200s' failed %d times in a row without a good answer; the last "
                 "time it %s",
                 c->line, c->failures, reason);
    pthread_cond_broadcast(&c->done);
    pthread_mutex_unlock(&c->lock);
}

/* ---- talking -----------------------------------------------------------------------------------
 */

/* The request to send now, or NULL. Of the requests that were begun the last may be cut. */
static task *next_to_send(vkm_command *c) {
    int skip = c->sent ? c->n_asked - 1 : c->n_asked;
    if (skip >= (c->one_by_one ? 1 : WINDOW)) return NULL;
    pthread_mutex_lock(&c->lock);
    task *t = c->oldest;
    for (; t && skip; skip--) t = t->next;
    pthread_mutex_unlock(&c->lock);
    return t;
}

static bool send_some(vkm_command *c, task *t, char reason[200]) {
    if (c->sent == 0) {
        if (c->n_asked == 0) c->answer_by = vkm_now_s() + c->timeout_s;
        c->n_asked++;
    }
    ssize_t n = write(c->to, t->request + c->sent, t->n - c->sent);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        describe_end(c, reason);
        return false;
    }
    if (n > 0) c->sent += (size_t)n;
    if (c->sent == t->n) c->sent = 0;
    return true;
}

/* One whole line of n bytes. */
static bool take_answer(vkm_command *c, const char *line, size_t n, char reason[200]) {
    static const vkm_json_limits limits = {MAX_ANSWER, 8, false};
    vkm_json *doc = NULL;
    vkm_grade grade;
    vkm_err err = {0};
    if (c->n_asked == 1 && c->sent) {
        snprintf(reason, 200, "answered before it had read the whole request");
        return false;
    }
    if (!vkm_json_parse(line, n, "the answer", &limits, &doc, &err))
        (void)!vkm_answer_read(doc, c->oldest->id, &grade, &err);
    vkm_json_free(doc);
    if (err.status) {
        snprintf(reason, 200, "gave a bad answer: %.160s", err.msg);
        return false;
    }
    finish(c, &grade);
    c->n_asked--;
    c->failures = 0;
    c->one_by_one = false;
    c->answer_by = vkm_now_s() + c->timeout_s;
    return true;
}

static bool receive_some(vkm_command *c, char reason[200]) {
    char bytes[1 << 14];
    ssize_t n = read(c->from, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (n <= 0) {
        describe_end(c, reason);
        return false;
    }
    vkm_strbuf_add(&c->got, bytes, (size_t)n);
    if (c->got.failed) {
        snprintf(reason, 200, "gave an answer for which there is no host memory");
        return false;
    }
    size_t at = 0;
    const char *end;
    while (c->n_asked && (end = memchr(c->got.data + at, '\n', c->got.n - at))) {
        if (!take_answer(c, c->got.data + at, (size_t)(end - c->got.data) - at, reason))
            return false;
        at = (size_t)(end - c->got.data) + 1;
    }
    memmove(c->got.data, c->got.data + at, c->got.n - at);
    c->got.n -= at;
    if (!c->n_asked || c->got.n <= MAX_ANSWER) return true;
    snprintf(reason, 200, "gave an answer of more than %d bytes", MAX_ANSWER);
    return false;
}

/* Waits for what is next and does it. False with a reason: the program failed. */
static bool talk(vkm_command *c, char reason[200]) {
    task *t = next_to_send(c);
    if (t && !c->pid && !start(c, reason)) return false;
    struct pollfd fds[3] = {{c->wake, POLLIN, 0}, {-1, POLLOUT, 0}, {-1, POLLIN, 0}};
    if (t) fds[1].fd = c->to;
    if (c->n_asked) fds[2].fd = c->from;
    double left_s = c->answer_by - vkm_now_s();
    int wait_ms = !c->n_asked    ? -1
                  : left_s <= 0  ? 0
                  : left_s > 1e5 ? 100000000
                                 : (int)(1e3 * left_s) + 1;
    if (poll(fds, 3, wait_ms) < 0) return true; /* a signal */
    uint64_t count;
    if (fds[0].revents && read(c->wake, &count, sizeof count) < 0) return true;
    if (fds[2].revents && !receive_some(c, reason)) return false;
    if (fds[1].revents) {
        t = next_to_send(c);
        if (t && !send_some(c, t, reason)) return false;
    }
    if (c->n_asked && vkm_now_s() >= c->answer_by) {
        snprintf(reason, 200,
                 "gave no answer within %g s (reward_timeout_s); does it write a line for each "
                 "request and flush it?",
                 c->timeout_s);
        return false;
    }
    return true;
}

static void *talk_main(void *arg) {
    vkm_command *c = arg;
    char reason[200];
    for (;;) {
        pthread_mutex_lock(&c->lock);
        bool end = c->closing || c->given_up.status;
        pthread_mutex_unlock(&c->lock);
        if (end) break;
        if (!talk(c, reason)) failed(c, reason);
    }
    stop(c, END_MS);
    vkm_strbuf_free(&c->got);
    return NULL;
}

/* ---- opening, submitting, collecting -----------------------------------------------------------
 */

static void wake(vkm_command *c) {
    const uint64_t one = 1;
    (void)!write(c->wake, &one, sizeof one);
}

vkm_status vkm_command_open(const vkm_command_config *config, vkm_command **out, vkm_err *err) {
    sigset_t all, before;
    *out = NULL;
    if (!config->line || !config->line[0])
        return vkm_fail(err, VKM_USAGE, "reward_command is missing: name the program that grades");
    vkm_command *c = vkm_calloc(1, sizeof *c, "the reward program", err);
    if (!c) return err->status;
    c->timeout_s = config->timeout_s;
    c->to = c->from = -1;
    c->line = strdup(config->line);
    c->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->done, NULL);
    /* no signals here: a broken pipe is an error of write(), the others are for the main loop */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = c->line && c->wake >= 0 ? pthread_create(&c->thread, NULL, talk_main, c) : ENOMEM;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        if (c->wake >= 0) close(c->wake);
        free(c->line);
        free(c);
        return vkm_fail(err, VKM_FAILED, "reward_command: no thread for it: %s", strerror(rc));
    }
    *out = c;
    return VKM_OK;
}

void vkm_command_close(vkm_command *c) {
    if (!c) return;
    pthread_mutex_lock(&c->lock);
    c->closing = true;
    pthread_mutex_unlock(&c->lock);
    wake(c);
    pthread_join(c->thread, NULL);
    for (task *t = c->first, *next; t; t = next) {
        next = t->next;
        free(t->request);
        free(t);
    }
    pthread_cond_destroy(&c->done);
    pthread_mutex_destroy(&c->lock);
    close(c->wake);
    free(c->line);
    free(c);
}

vkm_status vkm_command_submit(vkm_command *c, const vkm_problem *problem, const vkm_mode *mode,
                              const char *text, size_t n, vkm_err *err) {
    vkm_strbuf line = {0};
    task *t = vkm_calloc(1, sizeof *t, "a response to grade", err);
    if (!t) return err->status;
    t->id = c->n_submitted++; /* one thread submits */
    vkm_request_write(t->id, problem, mode, text, n, &line);
    if (vkm_strbuf_check(&line, "a response to grade", err)) {
        vkm_strbuf_free(&line);
        free(t);
        return err->status;
    }
    t->request = line.data;
    t->n = line.n;
    pthread_mutex_lock(&c->lock);
    if (c->last && c->first)
        c->last->next = t;
    else
        c->first = t;
    c->last = t;
    if (!c->oldest) c->oldest = t;
    pthread_mutex_unlock(&c->lock);
    wake(c);
    return VKM_OK;
}

vkm_status vkm_command_next(vkm_command *c, vkm_grade *out, vkm_err *err) {
    pthread_mutex_lock(&c->lock);
    task *t = c->first;
    while (t && !t->done && !c->given_up.status) pthread_cond_wait(&c->done, &c->lock);
    bool got = t && t->done;
    if (got) {
        c->first = t->next;
        *out = t->grade;
    } else if (t) {
        *err = c->given_up;
    } else {
        vkm_fail(err, VKM_FAILED, "reward_command: nothing was submitted");
    }
    pthread_mutex_unlock(&c->lock);
    if (got) free(t);
    return got ? VKM_OK : err->status;
}
