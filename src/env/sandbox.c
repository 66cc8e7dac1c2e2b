/* Owns the boxes: starting bubblewrap, passing jobs to the fork server, reading what comes back.
 * Expected values never come here. All that a box sends is taken for hostile. */
#include "env/sandbox.h"

#include "base/log.h"
#include "env/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { START_TIMEOUT_MS = 20000, GRACE_MS = 2000, MAX_STDERR = 600 };

struct vkm_box {
    vkm_sandbox_config config;
    int slot;
    pid_t pid;  /* of bwrap or python; 0 when none runs */
    int sock;   /* to the fork server */
    int errors; /* its stderr */
    int n_jobs; /* since the start */
};

/* The fork server's request and reply, as zygote.py packs them. */
typedef struct {
    uint32_t wall_ms, cpu_s, memory_mib, flags;
} request;
typedef struct {
    int32_t status, late;
    double cpu_s, counted_s, wall_s;
} reply;

vkm_sandbox_config vkm_sandbox_config_default(void) {
    return (vkm_sandbox_config){
        .kind = VKM_SANDBOX_BWRAP,
        .bwrap = "bwrap",
        .python = "/usr/bin/python3",
        .cpu_time_s = 10,
        .wall_time_s = 60,
        .memory_mib = 1024,
        .jobs_per_box = 1000,
        .uid_base = 64100,
    };
}

void vkm_job_result_clear(vkm_job_result *r) {
    vkm_strbuf_free(&r->results);
    vkm_strbuf_free(&r->output);
    memset(r, 0, sizeof *r);
}

static void put_u32(vkm_strbuf *p, size_t at, uint32_t v) {
    for (int i = 0; i < 4 && p->data && !p->failed; i++)
        p->data[at + (size_t)i] = (char)(v >> 8 * i);
}

void vkm_payload_begin(vkm_strbuf *p) {
    vkm_strbuf_clear(p);
    vkm_strbuf_add(p, "\0\0\0\0", 4);
}

void vkm_payload_add(vkm_strbuf *p, const void *bytes, size_t n) {
    size_t at = p->n;
    if (n > UINT32_MAX) {
        p->failed = true;
        return;
    }
    vkm_strbuf_add(p, "\0\0\0\0", 4);
    put_u32(p, at, (uint32_t)n);
    vkm_strbuf_add(p, bytes, n);
    if (!p->failed)
        put_u32(p, 0,
                1 + (uint32_t)((uint8_t)p->data[0] | (uint8_t)p->data[1] << 8 |
                               (uint8_t)p->data[2] << 16));
}

/* ---- a box's life ------------------------------------------------------------------------------
 */

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Waits up to GRACE_MS for the process to end by itself when asked to, then kills it. */
static void stop(vkm_box *b, bool kindly) {
    close_fd(&b->sock);
    if (b->pid > 0) {
        double give_up = vkm_now_s() + (kindly ? GRACE_MS : 0) / 1000.0;
        while (waitpid(b->pid, NULL, WNOHANG) == 0) {
            if (vkm_now_s() >= give_up) kill(b->pid, SIGKILL);
            usleep(2000);
        }
    }
    b->pid = 0;
    close_fd(&b->errors);
}

/* What the box said on stderr, on one line. */
static void read_errors(vkm_box *b, char out[MAX_STDERR]) {
    size_t n = 0;
    ssize_t got;
    while (b->errors >= 0 && n + 1 < MAX_STDERR &&
           (got = read(b->errors, out + n, MAX_STDERR - 1 - n)) > 0)
        n += (size_t)got;
    while (n && (unsigned char)out[n - 1] <= ' ') n--;
    out[n] = 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)out[i] < ' ') out[i] = '|';
}

static bool wait_ready(vkm_box *b) {
    struct pollfd p = {.fd = b->sock, .events = POLLIN};
    char word[8];
    while (poll(&p, 1, START_TIMEOUT_MS) < 0)
        if (errno != EINTR) return false;
    return recv(b->sock, word, sizeof word, MSG_DONTWAIT) == 5 && !memcmp(word, "ready", 5);
}

static vkm_status start(vkm_box *b, vkm_err *err) {
    int pair[2] = {-1, -1}, errors[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ||
        pipe2(errors, O_CLOEXEC | O_NONBLOCK) < 0) {
        vkm_fail(err, VKM_FAILED, "sandbox: no socket or pipe for a box: %s", strerror(errno));
        close_fd(&pair[0]);
        close_fd(&pair[1]);
        return err->status;
    }
    b->pid = vkm_confine_spawn(&b->config, b->slot, pair[1], errors[1], err);
    close_fd(&pair[1]);
    close_fd(&errors[1]);
    b->sock = pair[0];
    b->errors = errors[0];
    b->n_jobs = 0;
    if (b->pid > 0 && wait_ready(b)) return VKM_OK;
    char said[MAX_STDERR];
    b->errors = -1; /* read after the end of what writes there */
    stop(b, true);
    b->errors = errors[0];
    read_errors(b, said);
    close_fd(&b->errors);
    close_fd(&b->sock);
    b->pid = 0;
    return vkm_fail(err, VKM_FAILED, "sandbox: '%s' could not start a box (it said: %s); %s",
                    b->config.kind == VKM_SANDBOX_BWRAP ? b->config.bwrap : b->config.python,
                    *said ? said : "nothing", vkm_confine_mend(b->config.kind));
}

/* ---- one job -----------------------------------------------------------------------------------
 */

typedef struct {
    int payload, results[2], output[2]; /* read ends first */
} job_fds;

static bool open_job(job_fds *f, const vkm_strbuf *payload, bool want_output) {
    *f = (job_fds){-1, {-1, -1}, {-1, -1}};
    f->payload = memfd_create("job", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (f->payload < 0 || pipe2(f->results, O_CLOEXEC) < 0) return false;
    if (want_output && pipe2(f->output, O_CLOEXEC) < 0) return false;
    fcntl(f->results[0], F_SETFL, O_NONBLOCK);
    if (want_output) fcntl(f->output[0], F_SETFL, O_NONBLOCK);
    for (size_t at = 0; at < payload->n;) {
        ssize_t n = write(f->payload, payload->data + at, payload->n - at);
        if (n < 0 && errno != EINTR) return false;
        if (n > 0) at += (size_t)n;
    }
    return fcntl(f->payload, F_ADD_SEALS,
                 F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) == 0;
}

static void close_job_writers(job_fds *f) {
    close_fd(&f->payload);
    close_fd(&f->results[1]);
    close_fd(&f->output[1]);
}

static void close_job(job_fds *f) {
    close_job_writers(f);
    close_fd(&f->results[0]);
    close_fd(&f->output[0]);
}

static bool send_request(vkm_box *b, const job_fds *f) {
    request r = {(uint32_t)b->config.wall_time_s * 1000, (uint32_t)b->config.cpu_time_s,
                 (uint32_t)b->config.memory_mib, 0};
    int fds[3] = {f->payload, f->results[1], f->output[1]};
    size_t n_fds = f->output[1] >= 0 ? 3 : 2;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof fds)];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec io = {&r, sizeof r};
    struct msghdr m = {.msg_iov = &io,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = CMSG_SPACE(n_fds * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    ssize_t n;
    do n = sendmsg(b->sock, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == sizeof r;
}

/* Reads what is there. Beyond max it is read and thrown away, so that the child does not block. */
static void drain(int *fd, vkm_strbuf *out, size_t max, bool *cut) {
    char chunk[16384];
    for (int i = 0; i < 64; i++) {
        ssize_t n = read(*fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            close_fd(fd);
            return;
        }
        size_t room = max - out->n, keep = (size_t)n < room ? (size_t)n : room;
        vkm_strbuf_add(out, chunk, keep);
        *cut |= keep < (size_t)n;
    }
}

/* Collects pipes and the reply until all have ended or twice the wall time is over. */
static bool collect(vkm_box *b, job_fds *f, vkm_job_result *out, reply *r) {
    double give_up = vkm_now_s() + 2.0 * b->config.wall_time_s + GRACE_MS / 1000.0;
    bool replied = false;
    while (!replied || f->results[0] >= 0 || f->output[0] >= 0) {
        double left = give_up - vkm_now_s();
        if (left <= 0) return false;
        struct pollfd p[3] = {{f->results[0], POLLIN, 0},
                              {f->output[0], POLLIN, 0},
                              {replied ? -1 : b->sock, POLLIN, 0}};
        if (poll(p, 3, (int)(left * 1000) + 1) < 0 && errno != EINTR) return false;
        if (p[0].revents) drain(&f->results[0], &out->results, VKM_JOB_MAX_RESULTS, &out->cut);
        if (p[1].revents) drain(&f->output[0], &out->output, VKM_JOB_MAX_OUTPUT, &out->cut);
        if (p[2].revents) {
            if (recv(b->sock, r, sizeof *r, MSG_DONTWAIT) != sizeof *r) return false;
            replied = true;
            give_up = vkm_now_s() + GRACE_MS / 1000.0; /* the child is dead: only pipes are left */
        }
    }
    return true;
}

static void infra(vkm_job_result *out, const char *reason) {
    out->end = VKM_JOB_INFRA;
    snprintf(out->reason, sizeof out->reason, "%.*s", (int)sizeof out->reason - 1, reason);
}

/* The child's set-up ends with the frame S, before code of others runs; it is cut off here. Without
 * it the set-up failed, with the reason in the frame '!'. */
static bool take_setup(vkm_job_result *out) {
    static const char ok[5] = {'S', 0, 0, 0, 0};
    vkm_strbuf *r = &out->results;
    if (r->n >= sizeof ok && !memcmp(r->data, ok, sizeof ok)) {
        r->n -= sizeof ok;
        memmove(r->data, r->data + sizeof ok, r->n);
        return true;
    }
    bool told = r->n > sizeof ok && r->data[0] == '!';
    infra(out, "a job's set-up failed in the box");
    if (told)
        snprintf(out->reason, sizeof out->reason, "a job's set-up failed in the box: %.*s",
                 (int)(r->n - sizeof ok < 120 ? r->n - sizeof ok : 120), r->data + sizeof ok);
    return false;
}

static void judge_end(const vkm_box *b, const reply *r, vkm_job_result *out) {
    out->cpu_s = r->cpu_s;
    out->wall_s = r->wall_s;
    if (out->results.failed || out->output.failed) {
        infra(out, "no host memory for a job's results");
        return;
    }
    if (!take_setup(out)) return;
    int sig = WIFSIGNALED(r->status) ? WTERMSIG(r->status) : 0;
    out->code = sig ? sig : WEXITSTATUS(r->status);
    if (r->late)
        out->end = VKM_JOB_WALL_LIMIT;
    else if (sig == SIGKILL && r->counted_s >= b->config.cpu_time_s)
        out->end = VKM_JOB_CPU_LIMIT;
    else if (sig == SIGKILL) /* no job can send it to itself: the host ran out of memory */
        infra(out, "a job was killed by the host (out of memory?)");
    else
        out->end = sig ? VKM_JOB_KILLED : VKM_JOB_EXITED;
}

void vkm_box_run(vkm_box *b, const vkm_strbuf *payload, bool want_output, vkm_job_result *out) {
    vkm_err err = {0};
    job_fds f;
    reply r;
    memset(out, 0, sizeof *out);
    if (b->n_jobs >= b->config.jobs_per_box) stop(b, true);
    if (!b->pid && start(b, &err)) {
        infra(out, err.msg);
        return;
    }
    b->n_jobs++;
    bool ok = !payload->failed && open_job(&f, payload, want_output);
    if (payload->failed || !ok) {
        infra(out, "no host memory or file descriptors for a job");
    } else if (!send_request(b, &f) || (close_job_writers(&f), !collect(b, &f, out, &r))) {
        infra(out, "a box died or stalled");
        stop(b, false);
    } else {
        judge_end(b, &r, out);
    }
    if (!payload->failed) close_job(&f);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* A job whose whole result is known shows that set-up, interpreter and pipes work. */
static vkm_status probe(vkm_box *b, vkm_err *err) {
    static const char *const fields[] = {"values", "x = 1", "y = x + 1", "y"};
    static const char want[] = "C\0\0\0\0V\7\0\0\0I+\1\0\0\0\2Z\0\0\0"; /* and a last NUL */
    vkm_strbuf payload = {0};
    vkm_job_result r;
    vkm_payload_begin(&payload);
    for (size_t i = 0; i < VKM_COUNTOF(fields); i++)
        vkm_payload_add(&payload, fields[i], strlen(fields[i]));
    vkm_box_run(b, &payload, false, &r);
    bool ok = r.end == VKM_JOB_EXITED && r.results.n == sizeof want &&
              !memcmp(r.results.data, want, sizeof want);
    if (!ok)
        vkm_fail(err, VKM_FAILED, "sandbox: a probe job failed (%s); %s",
                 r.end == VKM_JOB_INFRA ? r.reason : "its result is wrong",
                 vkm_confine_mend(b->config.kind));
    vkm_job_result_clear(&r);
    vkm_strbuf_free(&payload);
    return ok ? VKM_OK : err->status;
}

vkm_status vkm_box_open(const vkm_sandbox_config *config, int slot, vkm_box **out, vkm_err *err) {
    vkm_box *b = vkm_calloc(1, sizeof *b, "a grading box", err);
    *out = NULL;
    if (!b) return err->status;
    *b = (vkm_box){.config = *config, .slot = slot, .sock = -1, .errors = -1};
    vkm_status st = start(b, err);
    if (!st) st = probe(b, err);
    if (st) {
        vkm_box_close(b);
        return st;
    }
    *out = b;
    return VKM_OK;
}

void vkm_box_close(vkm_box *b) {
    if (!b) return;
    stop(b, true);
    free(b);
}
