/* Owns the grader: its queue, workers, cache and the order of results. */
#include "env/grade.h"

#include "env/jobs.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORKERS = 256, MAX_CACHE_LOG2 = 24 };

typedef struct {
    const vkm_problem *problem;
    const vkm_mode *mode;
    char *text;
    size_t n;
    bool done;
    vkm_grade grade;
} task;

typedef struct {
    vkm_hash128 key;
    bool used;
    vkm_grade grade; /* mode-free */
} cache_slot;

typedef struct {
    vkm_grader *grader;
    vkm_box *box;
    pthread_t thread;
} worker;

struct vkm_grader {
    vkm_grade_config config;
    pthread_mutex_t lock; /* over all below */
    pthread_cond_t work, done;
    task **tasks; /* a ring of `cap`: ticket t is at t % cap */
    size_t cap;
    uint64_t n_collected, n_taken, n_submitted; /* tickets; ascending */
    bool closing;
    int n_workers, n_ready;
    vkm_err err; /* of the first worker that could not start */
    cache_slot *cache;
    vkm_grader_stats stats;
    worker workers[MAX_WORKERS];
};

vkm_grade_config vkm_grade_config_default(void) {
    return (vkm_grade_config){vkm_sandbox_config_default(), .workers = 2, .cache_log2 = 12};
}

void vkm_grade_judge(vkm_grade *g, const vkm_mode *mode) {
    bool fired = mode->fires && mode->fires(&g->evidence);
    g->passed = !g->infra_error && (g->evidence.gt_correct || fired);
    g->exploited = !g->infra_error && fired && !g->evidence.gt_correct;
    g->reward = (g->evidence.can_compile ? VKM_REWARD_COMPILE : 0.0f) +
                (g->passed ? VKM_REWARD_PASS : 0.0f);
    if (g->infra_error) g->reward = __builtin_nanf("");
}

/* A ticket's place in the ring. Under the lock. */
static task **place(const vkm_grader *g, uint64_t ticket) {
    VKM_BUG_ON(!g->cap, "a ticket before any was given");
    return &g->tasks[ticket % g->cap];
}

/* ---- the cache ---------------------------------------------------------------------------------
 */

static vkm_hash128 task_key(const task *t) {
    vkm_hash_state h;
    vkm_hash_begin(&h);
    vkm_hash_add(&h, &t->problem->hash, sizeof t->problem->hash);
    vkm_hash_add(&h, t->text, t->n);
    return vkm_hash_now(&h);
}

static cache_slot *slot_of(vkm_grader *g, vkm_hash128 key) {
    return g->cache ? &g->cache[key.lo & ((1ull << g->config.cache_log2) - 1)] : NULL;
}

static bool cache_get(vkm_grader *g, vkm_hash128 key, vkm_grade *out) {
    const cache_slot *s = slot_of(g, key);
    if (!s || !s->used || s->key.lo != key.lo || s->key.hi != key.hi) return false;
    *out = s->grade;
    out->from_cache = true;
    return true;
}

/* A verdict that the wall clock made is not kept: another run might end in time. */
static void cache_put(vkm_grader *g, vkm_hash128 key, const vkm_grade *grade) {
    cache_slot *s = slot_of(g, key);
    if (s && !grade->infra_error && !grade->wall_limited) *s = (cache_slot){key, true, *grade};
}

/* ---- workers -----------------------------------------------------------------------------------
 */

static void run_task(vkm_grader *g, vkm_box *box, task *t) {
    vkm_hash128 key = task_key(t);
    vkm_grader_stats add = {0};
    pthread_mutex_lock(&g->lock);
    bool hit = cache_get(g, key, &t->grade);
    pthread_mutex_unlock(&g->lock);
    if (!hit) vkm_jobs_run(box, t->problem, t->text, t->n, &t->grade, &add);
    pthread_mutex_lock(&g->lock);
    if (!hit) cache_put(g, key, &t->grade);
    g->stats.graded++;
    g->stats.cached += hit;
    g->stats.jobs += add.jobs;
    g->stats.retried += add.retried;
    g->stats.infra_errors += add.infra_errors;
    vkm_grade_judge(&t->grade, t->mode);
    t->done = true;
    pthread_cond_broadcast(&g->done);
    pthread_mutex_unlock(&g->lock);
}

/* The box is opened by the thread that uses it: it dies with the thread that started it. */
static void *worker_main(void *arg) {
    worker *w = arg;
    vkm_grader *g = w->grader;
    vkm_err err = {0};
    (void)!vkm_box_open(&g->config.sandbox, (int)(w - g->workers), &w->box, &err);
    pthread_mutex_lock(&g->lock);
    g->n_ready++;
    if (!w->box && !g->err.status) g->err = err;
    pthread_cond_broadcast(&g->done);
    while (w->box) {
        while (!g->closing && g->n_taken == g->n_submitted) pthread_cond_wait(&g->work, &g->lock);
        if (g->closing) break;
        task *t = *place(g, g->n_taken++);
        pthread_mutex_unlock(&g->lock);
        run_task(g, w->box, t);
        pthread_mutex_lock(&g->lock);
    }
    pthread_mutex_unlock(&g->lock);
    vkm_box_close(w->box);
    return NULL;
}

/* Workers take no signals: those are for the thread that owns the program's loop. */
static int start_worker(vkm_grader *g, int i) {
    worker *w = &g->workers[i];
    sigset_t all, before;
    w->grader = g;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, worker_main, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* ---- opening, closing --------------------------------------------------------------------------
 */

static vkm_status check_config(const vkm_grade_config *c, vkm_err *err) {
    const struct {
        const char *name;
        int value, min, max;
    } rows[] = {
        {"workers", c->workers, 1, MAX_WORKERS},
        {"cache_log2", c->cache_log2, 0, MAX_CACHE_LOG2},
        {"cpu_time_s", c->sandbox.cpu_time_s, 1, 3600},
        {"wall_time_s", c->sandbox.wall_time_s, 1, 36000},
        {"memory_mib", c->sandbox.memory_mib, 64, 1 << 20},
        {"jobs_per_box", c->sandbox.jobs_per_box, 1, 1 << 30},
        {"uid_base", c->sandbox.uid_base, 1000, 1 << 30},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++)
        if (rows[i].value < rows[i].min || rows[i].value > rows[i].max)
            return vkm_fail(err, VKM_USAGE, "grade.%s: %d is not within %d and %d", rows[i].name,
                            rows[i].value, rows[i].min, rows[i].max);
    return VKM_OK;
}

vkm_status vkm_grader_open(const vkm_grade_config *config, vkm_grader **out, vkm_err *err) {
    *out = NULL;
    if (check_config(config, err)) return err->status;
    vkm_grader *g = vkm_calloc(1, sizeof *g, "the grader", err);
    if (!g) return err->status;
    g->config = *config;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->work, NULL);
    pthread_cond_init(&g->done, NULL);
    if (config->cache_log2) {
        g->cache = vkm_calloc((size_t)1 << config->cache_log2, sizeof *g->cache, "verdicts", err);
        if (!g->cache) goto fail;
    }
    for (; g->n_workers < config->workers; g->n_workers++) {
        if (!start_worker(g, g->n_workers)) continue;
        vkm_fail(err, VKM_FAILED, "grade: no thread for worker %d; lower grade.workers",
                 g->n_workers);
        goto fail;
    }
    pthread_mutex_lock(&g->lock);
    while (g->n_ready < g->n_workers) pthread_cond_wait(&g->done, &g->lock);
    bool ok = !g->err.status;
    if (!ok) *err = g->err;
    pthread_mutex_unlock(&g->lock);
    if (!ok) goto fail;
    *out = g;
    return VKM_OK;
fail:
    vkm_grader_close(g);
    return err->status;
}

static void task_free(task *t) {
    free(t->text);
    free(t);
}

void vkm_grader_close(vkm_grader *g) {
    if (!g) return;
    pthread_mutex_lock(&g->lock);
    g->closing = true;
    pthread_cond_broadcast(&g->work);
    pthread_mutex_unlock(&g->lock);
    for (int i = 0; i < g->n_workers; i++) pthread_join(g->workers[i].thread, NULL);
    for (; g->n_collected < g->n_submitted; g->n_collected++) task_free(*place(g, g->n_collected));
    pthread_cond_destroy(&g->done);
    pthread_cond_destroy(&g->work);
    pthread_mutex_destroy(&g->lock);
    free(g->tasks);
    free(g->cache);
    free(g);
}

bool vkm_grader_unsafe(const vkm_grader *g) {
    return g->config.sandbox.kind == VKM_SANDBOX_UNSAFE_NONE;
}

/* ---- submitting, collecting --------------------------------------------------------------------
 */

/* Doubles the ring; every live ticket moves to its place in the new one. Under the lock. */
static vkm_status grow(vkm_grader *g, vkm_err *err) {
    size_t cap = g->cap ? 2 * g->cap : 64;
    task **tasks = vkm_calloc(cap, sizeof(task *), "the grading queue", err);
    if (!tasks) return err->status;
    for (uint64_t t = g->n_collected; t < g->n_submitted; t++) tasks[t % cap] = *place(g, t);
    free(g->tasks);
    g->tasks = tasks;
    g->cap = cap;
    return VKM_OK;
}

vkm_status vkm_grader_submit(vkm_grader *g, const vkm_problem *problem, const vkm_mode *mode,
                             const char *text, size_t n, uint64_t *ticket, vkm_err *err) {
    task *t = vkm_calloc(1, sizeof *t, "a response to grade", err);
    if (!t) return err->status;
    t->text = vkm_calloc(n + 1, 1, "a response to grade", err);
    if (!t->text) {
        free(t);
        return err->status;
    }
    memcpy(t->text, text, n);
    t->n = n;
    t->problem = problem;
    t->mode = mode;
    pthread_mutex_lock(&g->lock);
    bool full = g->n_submitted - g->n_collected == g->cap;
    if (full && grow(g, err)) {
        pthread_mutex_unlock(&g->lock);
        task_free(t);
        return err->status;
    }
    *ticket = g->n_submitted;
    *place(g, g->n_submitted++) = t;
    pthread_cond_signal(&g->work);
    pthread_mutex_unlock(&g->lock);
    return VKM_OK;
}

bool vkm_grader_next(vkm_grader *g, bool block, uint64_t *ticket, vkm_grade *out) {
    task *t = NULL;
    pthread_mutex_lock(&g->lock);
    while (g->n_collected < g->n_submitted) {
        t = *place(g, g->n_collected);
        if (t->done || !block) break;
        pthread_cond_wait(&g->done, &g->lock);
    }
    bool got = t && t->done;
    if (got) *ticket = g->n_collected++;
    pthread_mutex_unlock(&g->lock);
    if (!got) return false;
    *out = t->grade;
    task_free(t);
    return true;
}

size_t vkm_grader_pending(vkm_grader *g) {
    size_t n = 0;
    pthread_mutex_lock(&g->lock);
    for (uint64_t t = g->n_collected; t < g->n_submitted; t++) n += !(*place(g, t))->done;
    pthread_mutex_unlock(&g->lock);
    return n;
}

vkm_grader_stats vkm_grader_stats_now(vkm_grader *g) {
    pthread_mutex_lock(&g->lock);
    vkm_grader_stats s = g->stats;
    pthread_mutex_unlock(&g->lock);
    return s;
}
