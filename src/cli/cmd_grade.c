/* `vkmoe grade`: requests in, answers out, one JSON object a line, in the order of the input. A
 * thread reads and submits, so that an answer leaves as soon as it is there though the input stays
 * open; a bounded number of requests and of bytes is in flight. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"
#include "env/wire.h"

enum { MAX_LINE = 16 << 20, MAX_BYTES = 64 << 20, PER_JOB = 8 };

/* A request in flight; or, with --keep-going, a line that was none. */
typedef struct entry {
    vkm_request q;
    size_t n; /* bytes of its line */
    size_t line;
    char *wrong; /* what was wrong with it; NULL: nothing, it was submitted */
} entry;

typedef struct session {
    int fd;
    const char *name;
    vkm_grader *grader;
    const vkm_problems *data; /* NULL: requests bring their problem */
    const vkm_mode *mode;     /* of requests without one; NULL: an error */
    int keep_going;
    int wake[2]; /* a pipe that ends the reader's wait */
    pthread_mutex_t lock;
    pthread_cond_t change;
    /* under the lock */
    entry *ring;
    size_t cap, bytes;
    uint64_t n_in, n_out;
    bool ended, stop;
    vkm_err err; /* why reading ended before the input did */
    /* the reader's own */
    size_t line;
    /* the writer's own */
    uint64_t n_failed;
} session;

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Waits for room for a line of n bytes: a slot of the ring that is the reader's until push(). NULL
 * when the writer has stopped. */
static entry *wait_room(session *s, size_t n) {
    pthread_mutex_lock(&s->lock);
    while (!s->stop && s->n_in > s->n_out &&
           (s->n_in - s->n_out >= s->cap || s->bytes + n > MAX_BYTES))
        pthread_cond_wait(&s->change, &s->lock);
    entry *e = s->stop ? NULL : &s->ring[s->n_in % s->cap];
    pthread_mutex_unlock(&s->lock);
    return e;
}

static void push(session *s, const entry *e) {
    pthread_mutex_lock(&s->lock);
    s->n_in++;
    s->bytes += e->n;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
}

static vkm_status take_line(session *s, const char *text, size_t n, vkm_err *err) {
    static const vkm_json_limits limits = {MAX_LINE, 0, false};
    vkm_json *doc = NULL;
    vkm_err bad = {0};
    uint64_t ticket;
    s->line++;
    if (n > 0 && text[n - 1] == '\r') n--;
    if (strspn(text, " \t") == n) return VKM_OK;
    entry *e = wait_room(s, n);
    if (!e) return vkm_fail(err, VKM_FAILED, "stopped");
    *e = (entry){.n = n, .line = s->line};
    if (vkm_json_parse_line(text, n, s->name, s->line, &limits, &doc, &bad) ||
        vkm_request_read(doc, s->data, s->mode, &e->q, &bad)) {
        if (!s->keep_going) {
            *err = bad;
            return err->status;
        }
        e->wrong = strdup(bad.msg);
        if (!e->wrong) return vkm_fail(err, VKM_FAILED, "out of host memory for a line");
    } else if (vkm_grader_submit(s->grader, e->q.problem, e->q.mode, e->q.response,
                                 strlen(e->q.response), &ticket, err)) {
        vkm_request_clear(&e->q);
        return err->status;
    }
    push(s, e);
    return VKM_OK;
}

/* Waits for input; false at the end or when the writer has stopped. */
static bool read_more(session *s, vkm_strbuf *b, vkm_err *err) {
    struct pollfd fds[2] = {{s->fd, POLLIN, 0}, {s->wake[0], POLLIN, 0}};
    char *room;
    ssize_t n;
    do {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) break;
        if (fds[1].revents) return false;
    } while (!fds[0].revents);
    if (!vkm_strbuf_reserve(b, 1 << 16)) return false;
    room = b->data + b->n;
    n = read(s->fd, room, 1 << 16);
    if (n < 0) vkm_fail(err, VKM_FAILED, "%s: %s", s->name, strerror(errno));
    if (n <= 0) return false;
    b->n += (size_t)n;
    room[n] = 0;
    return true;
}

/* Takes the whole lines off the front of b. */
static vkm_status take_lines(session *s, vkm_strbuf *b, size_t *scanned, vkm_err *err) {
    size_t at = 0;
    char *end;
    while ((end = memchr(b->data + at + *scanned, '\n', b->n - at - *scanned))) {
        *end = 0;
        if (take_line(s, b->data + at, (size_t)(end - b->data) - at, err)) return err->status;
        at = (size_t)(end - b->data) + 1;
        *scanned = 0;
    }
    memmove(b->data, b->data + at, b->n - at);
    b->n -= at;
    b->data[b->n] = 0;
    *scanned = b->n;
    if (b->n <= MAX_LINE) return VKM_OK;
    return vkm_fail(err, VKM_FAILED, "%s:%zu: the line is longer than %d bytes", s->name,
                    s->line + 1, MAX_LINE);
}

static void *read_main(void *arg) {
    session *s = arg;
    vkm_strbuf b = {0};
    vkm_err err = {0};
    size_t scanned = 0;
    while (read_more(s, &b, &err))
        if (take_lines(s, &b, &scanned, &err)) break;
    if (!err.status && b.n) (void)!take_line(s, b.data, b.n, &err);
    if (!err.status) (void)!vkm_strbuf_check(&b, s->name, &err);
    vkm_strbuf_free(&b);
    pthread_mutex_lock(&s->lock);
    s->err = err;
    s->ended = true;
    pthread_cond_broadcast(&s->change);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void write_wrong(const entry *e, vkm_strbuf *out) {
    vkm_jw w = vkm_jw_begin(out, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_null(&w, "id");
    vkm_jw_u64(&w, "line", e->line);
    vkm_jw_null(&w, "reward");
    vkm_jw_str(&w, "error", e->wrong);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(out, '\n');
}

static vkm_status write_entry(session *s, const entry *e, vkm_err *err) {
    const char *sandbox = vkm_grader_unsafe(s->grader) ? "unsafe-none" : NULL;
    vkm_strbuf text = {0};
    vkm_grade g = {.infra_error = true};
    uint64_t ticket;
    if (e->wrong)
        write_wrong(e, &text);
    else if (vkm_grader_next(s->grader, true, &ticket, &g))
        vkm_answer_write(e->q.id, &g, sandbox, &text);
    else
        vkm_fail(err, VKM_FAILED, "line %zu: its grade was lost", e->line);
    s->n_failed += g.infra_error;
    if (!vkm_strbuf_check(&text, "an answer", err) &&
        (fwrite(vkm_strbuf_str(&text), 1, text.n, stdout) != text.n || fflush(stdout)))
        vkm_fail(err, VKM_FAILED, "stdout could not be written: %s", strerror(errno));
    vkm_strbuf_free(&text);
    free(g.output);
    return err->status;
}

static void entry_clear(entry *e) {
    if (!e->wrong) vkm_request_clear(&e->q);
    free(e->wrong);
}

/* The next entry, waited for; NULL at the end. *n_in: how many were read. */
static entry *next_entry(session *s, uint64_t *n_in) {
    pthread_mutex_lock(&s->lock);
    while (s->n_in == s->n_out && !s->ended) pthread_cond_wait(&s->change, &s->lock);
    entry *e = s->n_in > s->n_out ? &s->ring[s->n_out % s->cap] : NULL;
    *n_in = s->n_in;
    pthread_mutex_unlock(&s->lock);
    return e;
}

static void write_all(session *s, vkm_err *err) {
    vkm_progress bar;
    entry *e;
    uint64_t n_in;
    vkm_progress_begin(&bar, "grading", 0, 0);
    while (!err->status && (e = next_entry(s, &n_in))) {
        bar.total = n_in;
        (void)!write_entry(s, e, err);
        pthread_mutex_lock(&s->lock);
        s->bytes -= e->n;
        entry_clear(e);
        s->n_out++;
        s->stop = err->status != VKM_OK;
        pthread_cond_broadcast(&s->change);
        pthread_mutex_unlock(&s->lock);
        vkm_progress_at(&bar, s->n_out, "of the lines read");
    }
    vkm_progress_end(&bar);
}

/* ---- the command -------------------------------------------------------------------------------
 */

static vkm_status run_session(session *s, vkm_err *err) {
    pthread_t reader;
    sigset_t all, before;
    if (pipe2(s->wake, O_CLOEXEC)) return vkm_fail(err, VKM_FAILED, "no pipe: %s", strerror(errno));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->change, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the main thread */
    int rc = pthread_create(&reader, NULL, read_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        vkm_fail(err, VKM_FAILED, "no thread to read with: %s", strerror(rc));
    } else {
        write_all(s, err);
        close(s->wake[1]); /* ends a reader that still waits */
        s->wake[1] = -1;
        pthread_join(reader, NULL);
        if (!err->status) *err = s->err;
    }
    close(s->wake[0]);
    if (s->wake[1] >= 0) close(s->wake[1]);
    pthread_cond_destroy(&s->change);
    pthread_mutex_destroy(&s->lock);
    return err->status;
}

static vkm_status open_input(const char *path, session *s, vkm_err *err) {
    s->fd = 0;
    s->name = path ? path : "stdin";
    if (!path) return VKM_OK;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    return s->fd >= 0 ? VKM_OK : vkm_fail(err, VKM_FAILED, "%s: %s", path, strerror(errno));
}

static vkm_status load_data(const char *path, vkm_problems **out, vkm_err *err) {
    if (!path) return VKM_OK;
    if (vkm_problems_load(path, out, err)) return err->status;
    vkm_info("%s: %zu problems, %zu of a form that is not graded", path, (*out)->n,
             (*out)->n_refused);
    return VKM_OK;
}

vkm_status vkm_cmd_grade(int argc, char **argv, vkm_err *err) {
    const char *input = NULL, *data = NULL, *mode = NULL;
    vkm_grade_config c = vkm_grade_config_default();
    int64_t jobs = 0, memory = c.sandbox.memory_mib;
    double cpu_s = c.sandbox.cpu_time_s, wall_s = c.sandbox.wall_time_s;
    int sandbox = 0, output = 0;
    session s = {0};
    vkm_problems *problems = NULL;
    vkm_opt opts[] = {
        {"input", VKM_OPT_STRING, &input, .arg = "FILE", .help = "requests; else stdin"},
        {"data", VKM_OPT_STRING, &data, .arg = "FILE",
         .help = "problems that requests name by problem_id"},
        {"mode", VKM_OPT_STRING, &mode, .arg = "NAME", .help = "mode of requests without one"},
        {"jobs", VKM_OPT_INT, &jobs, .min = 0, .max = 256,
         .help = "responses graded at one time, 0 for one a core"},
        {"output", VKM_OPT_FLAG, &output,
         .help = "answers also hold what the response printed while its calls were made"},
        {"keep-going", VKM_OPT_FLAG, &s.keep_going,
         .help = "answer a bad line with its error and go on; else it ends the input"},
        {"cpu-time", VKM_OPT_FLOAT, &cpu_s, .min = 1, .max = 3600, .arg = "S",
         .help = "CPU seconds of one job"},
        {"wall-time", VKM_OPT_FLOAT, &wall_s, .min = 1, .max = 36000, .arg = "S",
         .help = "wall seconds of one job"},
        {"memory", VKM_OPT_INT, &memory, .min = 64, .max = 1 << 20, .arg = "MIB",
         .help = "memory of one job"},
        {"sandbox", VKM_OPT_CHOICE, &sandbox, .choices = "bwrap|unsafe_none",
         .help = "a bubblewrap box for model-written Python, or (unsafe) none"},
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    c.workers = jobs ? (int)jobs : cores > 0 ? (int)cores : 1;
    c.keep_output = output;
    c.sandbox.kind = sandbox ? VKM_SANDBOX_UNSAFE_NONE : VKM_SANDBOX_BWRAP;
    c.sandbox.cpu_time_s = (int)(cpu_s + 0.999);
    c.sandbox.wall_time_s = (int)(wall_s + 0.999);
    c.sandbox.memory_mib = (int)memory;
    s.cap = (size_t)c.workers * PER_JOB;
    if (mode && !(s.mode = vkm_mode_find(mode, err))) return err->status;
    if (open_input(input, &s, err)) return err->status;
    s.ring = vkm_calloc(s.cap, sizeof *s.ring, "requests", err);
    if (!s.ring || load_data(data, &problems, err) || vkm_grader_open(&c, &s.grader, err))
        goto done;
    s.data = problems;
    if (sandbox)
        vkm_warn("sandbox unsafe-none: the responses run on this machine without namespaces; every "
                 "answer says so");
    if (isatty(s.fd)) vkm_info("reading requests from the terminal, one JSON object a line");
    double start = vkm_now_s();
    if (run_session(&s, err)) goto done;
    vkm_info("%llu lines graded in %.1f s", (unsigned long long)(s.n_out - s.n_failed),
             vkm_now_s() - start);
    if (s.n_failed)
        vkm_fail(err, VKM_FAILED,
                 "%llu of %llu lines could not be graded; their answers hold the "
                 "error",
                 (unsigned long long)s.n_failed, (unsigned long long)s.n_out);
done:
    vkm_grader_close(s.grader); /* before the problems that it may still read */
    for (; s.n_out < s.n_in; s.n_out++) entry_clear(&s.ring[s.n_out % s.cap]);
    vkm_problems_free(problems);
    free(s.ring);
    if (s.fd > 0) close(s.fd);
    return err->status;
}
