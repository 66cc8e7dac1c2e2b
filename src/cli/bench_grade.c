/* `vkmoe bench grade`: jobs a second and latencies of grading boxes beside a fresh python3 for each
 * job and a fresh bubblewrap for each job. All run the same Python text; the ways take turns, so
 * that a machine that is busy for a while is busy for all. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/bench.h"
#include "env/sandbox.h"
#include "rl/stats.h"

enum { MAX_WORKERS = 64, MAX_JOBS = 1 << 16, N_ASSERTS = 25 };
#define SLICE_S 1.0 /* a way's turn */

static const char setup_code[] = "import math\nfrom collections import *\nfrom typing import *\n";
static const char response[] = "class Solution:\n"
                               "    def affine(self, n: int) -> int:\n"
                               "        return (8 * n + 3) % 43\n";

/* The payload in the forms that the ways take. */
typedef struct payload {
    vkm_strbuf script;   /* one text: set-up, response, asserts */
    vkm_strbuf as_job;   /* the same as a box's job */
    vkm_strbuf as_calls; /* the strict form: calls only, values come back */
} payload;

static void payload_free(payload *p) {
    vkm_strbuf_free(&p->script);
    vkm_strbuf_free(&p->as_job);
    vkm_strbuf_free(&p->as_calls);
}

static vkm_status payload_make(payload *p, vkm_err *err) {
    vkm_strbuf *jobs[] = {&p->as_job, &p->as_calls};
    const char *names[] = {"script", "values"};
    vkm_strbuf_printf(&p->script, "%s%s", setup_code, response);
    for (size_t i = 0; i < VKM_COUNTOF(jobs); i++) {
        vkm_payload_begin(jobs[i]);
        vkm_payload_add(jobs[i], names[i], strlen(names[i]));
        vkm_payload_add(jobs[i], setup_code, sizeof setup_code - 1);
        vkm_payload_add(jobs[i], response, sizeof response - 1);
    }
    for (int i = 0; i < N_ASSERTS; i++) {
        char call[64], line[96];
        int n = 17 * i + 5;
        snprintf(call, sizeof call, "Solution().affine(n = %d)", n);
        snprintf(line, sizeof line, "assert %s == %d", call, (8 * n + 3) % 43);
        vkm_strbuf_printf(&p->script, "%s\n", line);
        vkm_payload_add(&p->as_job, line, strlen(line));
        vkm_payload_add(&p->as_calls, call, strlen(call));
    }
    return vkm_strbuf_check(&p->script, "the payload", err) ||
                   vkm_strbuf_check(&p->as_job, "the payload", err) ||
                   vkm_strbuf_check(&p->as_calls, "the payload", err)
               ? err->status
               : VKM_OK;
}

/* ---- ways to run a job -------------------------------------------------------------------------
 */

typedef struct bench bench;

typedef struct worker {
    bench *b;
    int slot;
    pthread_t thread;
    vkm_box *box;
    vkm_err err;
    double *ms[4]; /* of each way: latencies, n of them */
    size_t n[4];
} worker;

typedef struct way {
    const char *name, *what;
    bool (*run)(worker *w);
} way;

struct bench {
    vkm_sandbox_config sandbox;
    payload payload;
    worker workers[MAX_WORKERS];
    int n_workers, rounds;
    pthread_barrier_t gate;
    double until; /* of a turn: set before its gate */
};

static bool in_box(worker *w, const vkm_strbuf *job) {
    vkm_job_result r;
    vkm_box_run(w->box, job, false, &r);
    bool ok = r.end == VKM_JOB_EXITED && r.code == 0;
    if (!ok)
        vkm_fail(&w->err, VKM_FAILED, "a job in a box ended with %d, %d %s", (int)r.end, r.code,
                 r.reason);
    vkm_job_result_clear(&r);
    return ok;
}

static bool run_box(worker *w) {
    return in_box(w, &w->b->payload.as_job);
}

static bool run_values(worker *w) {
    return in_box(w, &w->b->payload.as_calls);
}

/* Runs a program to its end; its output goes nowhere. */
static bool run_program(worker *w, const char *const *args) {
    static char *const no_env[] = {NULL};
    posix_spawn_file_actions_t files;
    pid_t pid;
    int status = -1;
    posix_spawn_file_actions_init(&files);
    for (int fd = 0; fd < 2; fd++)
        posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
    int rc = posix_spawnp(&pid, args[0], &files, NULL, (char *const *)(uintptr_t)args, no_env);
    posix_spawn_file_actions_destroy(&files);
    if (rc == 0 && waitpid(pid, &status, 0) == pid && status == 0) return true;
    vkm_fail(&w->err, VKM_FAILED, "%s: %s, wait status %d", args[0], rc ? strerror(rc) : "started",
             status);
    return false;
}

static bool run_python(worker *w) {
    const char *const args[] = {w->b->sandbox.python,      "-s", "-S", "-B", "-c",
                                w->b->payload.script.data, NULL};
    return run_program(w, args);
}

static bool run_bwrap(worker *w) {
    const char *const args[] = {w->b->sandbox.bwrap,
                                "--unshare-all",
                                "--die-with-parent",
                                "--new-session",
                                "--ro-bind",
                                "/usr",
                                "/usr",
                                "--ro-bind-try",
                                "/lib",
                                "/lib",
                                "--ro-bind-try",
                                "/lib64",
                                "/lib64",
                                "--dev",
                                "/dev",
                                "--tmpfs",
                                "/tmp",
                                "--",
                                w->b->sandbox.python,
                                "-s",
                                "-S",
                                "-B",
                                "-c",
                                w->b->payload.script.data,
                                NULL};
    return run_program(w, args);
}

static const way ways[] = {
    {"box", "a job in a box: set-up, response and asserts as a script", run_box},
    {"box, values", "the strict grade: calls in a box, values compared outside", run_values},
    {"python3", "a fresh python3 for each job, no walls", run_python},
    {"bwrap", "a fresh bubblewrap with python3 for each job", run_bwrap},
};
enum { BOX = 0, PYTHON = 2, BWRAP = 3 };

/* ---- the run -----------------------------------------------------------------------------------
 */

static void take_turn(worker *w, size_t i) {
    while (!w->err.status && w->n[i] < MAX_JOBS) {
        double start = vkm_now_s();
        if (start >= w->b->until || !ways[i].run(w)) return;
        w->ms[i][w->n[i]++] = 1e3 * (vkm_now_s() - start);
    }
}

/* A first gate when all boxes stand, then every turn lies between two. */
static void *worker_main(void *arg) {
    worker *w = arg;
    bench *b = w->b;
    for (size_t i = 0; i < VKM_COUNTOF(ways); i++)
        w->ms[i] = vkm_calloc(MAX_JOBS, sizeof *w->ms[i], "latencies", &w->err);
    if (!w->err.status) (void)!vkm_box_open(&b->sandbox, w->slot, &w->box, &w->err);
    if (w->box) (void)!(run_box(w) && run_values(w) && run_python(w) && run_bwrap(w));
    pthread_barrier_wait(&b->gate);
    for (size_t turn = 0; turn < (size_t)b->rounds * VKM_COUNTOF(ways); turn++) {
        pthread_barrier_wait(&b->gate);
        take_turn(w, turn % VKM_COUNTOF(ways));
        pthread_barrier_wait(&b->gate);
    }
    vkm_box_close(w->box);
    return NULL;
}

typedef struct result {
    double seconds, p50, p99;
    size_t n;
} result;

static vkm_status run_turns(bench *b, result out[VKM_COUNTOF(ways)], vkm_err *err) {
    pthread_barrier_init(&b->gate, NULL, (unsigned)b->n_workers + 1);
    sigset_t all, before;
    sigfillset(&all);
    for (int i = 0; i < b->n_workers; i++) {
        b->workers[i].b = b;
        b->workers[i].slot = i;
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int rc = pthread_create(&b->workers[i].thread, NULL, worker_main, &b->workers[i]);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        /* the others wait at a gate that will not open: nothing is left but to end */
        if (rc) return vkm_fail(err, VKM_FAILED, "no thread for worker %d: %s", i, strerror(rc));
    }
    pthread_barrier_wait(&b->gate);
    for (size_t turn = 0; turn < (size_t)b->rounds * VKM_COUNTOF(ways); turn++) {
        double start = vkm_now_s();
        b->until = start + SLICE_S;
        pthread_barrier_wait(&b->gate);
        pthread_barrier_wait(&b->gate);
        out[turn % VKM_COUNTOF(ways)].seconds += vkm_now_s() - start;
    }
    for (int i = 0; i < b->n_workers; i++) {
        pthread_join(b->workers[i].thread, NULL);
        if (b->workers[i].err.status && !err->status) *err = b->workers[i].err;
    }
    pthread_barrier_destroy(&b->gate);
    return err->status;
}

/* Latencies of all workers together. */
static vkm_status sum_up(const bench *b, size_t i, result *out, vkm_err *err) {
    for (int k = 0; k < b->n_workers; k++) out->n += b->workers[k].n[i];
    double *ms = vkm_calloc(out->n, sizeof *ms, "latencies", err);
    if (!ms) return err->status;
    size_t at = 0;
    for (int k = 0; k < b->n_workers; k++) {
        const worker *w = &b->workers[k];
        memcpy(ms + at, w->ms[i], w->n[i] * sizeof *ms);
        at += w->n[i];
    }
    out->p50 = vkm_quantile(ms, out->n, 0.5);
    out->p99 = vkm_quantile(ms, out->n, 0.99);
    free(ms);
    return VKM_OK;
}

static double rate(const result *r) {
    return r->seconds > 0 ? (double)r->n / r->seconds : 0;
}

static void print_text(const bench *b, const result *r, double load) {
    printf("%d workers, %d rounds of %g s each way in turn, load average %.2f before\n\n",
           b->n_workers, b->rounds, SLICE_S, load);
    printf("%-12s %8s %9s %8s %8s  %s\n", "way", "jobs", "jobs/s", "p50 ms", "p99 ms", "what");
    for (size_t i = 0; i < VKM_COUNTOF(ways); i++)
        printf("%-12s %8zu %9.1f %8.2f %8.2f  %s\n", ways[i].name, r[i].n, rate(&r[i]), r[i].p50,
               r[i].p99, ways[i].what);
    printf("\nboxes do %.2f times the jobs a second of bwrap for each job, %.2f times those of "
           "python3\n",
           rate(&r[BOX]) / rate(&r[BWRAP]), rate(&r[BOX]) / rate(&r[PYTHON]));
}

static vkm_status print_json(const bench *b, const result *r, double load, vkm_err *err) {
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_i64(&w, "workers", b->n_workers);
    vkm_jw_double(&w, "load", load);
    vkm_jw_double(&w, "box_over_bwrap", rate(&r[BOX]) / rate(&r[BWRAP]));
    vkm_jw_arr(&w, "ways");
    for (size_t i = 0; i < VKM_COUNTOF(ways); i++) {
        vkm_jw_obj(&w, NULL);
        vkm_jw_str(&w, "name", ways[i].name);
        vkm_jw_u64(&w, "jobs", r[i].n);
        vkm_jw_double(&w, "jobs_per_s", rate(&r[i]));
        vkm_jw_double(&w, "p50_ms", r[i].p50);
        vkm_jw_double(&w, "p99_ms", r[i].p99);
        vkm_jw_end_obj(&w);
    }
    vkm_jw_end_arr(&w);
    vkm_jw_end_obj(&w);
    if (!vkm_strbuf_check(&text, "the report", err)) puts(vkm_strbuf_str(&text));
    vkm_strbuf_free(&text);
    return err->status;
}

vkm_status vkm_bench_grade(int rounds, int json, vkm_err *err) {
    static bench b; /* outlives threads that an error leaves behind */
    result r[VKM_COUNTOF(ways)] = {{0}};
    double load = 0;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    b.sandbox = vkm_sandbox_config_default();
    b.rounds = rounds;
    b.n_workers = cores < 1 ? 1 : cores > MAX_WORKERS ? MAX_WORKERS : (int)cores;
    if (getloadavg(&load, 1) < 1) load = -1;
    if (payload_make(&b.payload, err) || run_turns(&b, r, err)) goto done;
    for (size_t i = 0; i < VKM_COUNTOF(ways) && !err->status; i++) (void)!sum_up(&b, i, &r[i], err);
    if (err->status) goto done;
    if (json)
        (void)!print_json(&b, r, load, err);
    else
        print_text(&b, r, load);
done:
    for (int k = 0; k < b.n_workers; k++)
        for (size_t i = 0; i < VKM_COUNTOF(ways); i++) free(b.workers[k].ms[i]);
    payload_free(&b.payload);
    return err->status;
}
