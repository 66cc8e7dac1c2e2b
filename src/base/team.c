/* Owns the threads that compute. */
#include "base/team.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 15 us on a processor whose pause takes 140 cycles: longer than the gap between two kernels,
 * much shorter than a time slice. */
enum { SPINS = 300 };

/* A word that threads wait on, and how many of them sleep. */
typedef struct {
    _Atomic uint32_t word, sleepers;
} gate;

typedef struct {
    vkm_team *team;
    uint32_t i;
    pthread_t thread;
} member;

struct vkm_team {
    uint32_t n;
    gate round; /* counts what was begun; a member runs when it changes */
    gate left;  /* members that have not ended this round */
    vkm_team_fn fn;
    void *user;
    bool closing;
    member members[]; /* (n); [0] is the caller */
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Returns when the word is no longer `old`. */
static void gate_wait(gate *g, uint32_t old) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&g->word) != old) return;
        relax();
    }
    atomic_fetch_add(&g->sleepers, 1);
    while (atomic_load(&g->word) == old)
        syscall(SYS_futex, &g->word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&g->sleepers, 1);
}

/* After the word has changed. A sleeper either was counted or sees the change. */
static void gate_wake(gate *g) {
    if (atomic_load(&g->sleepers))
        syscall(SYS_futex, &g->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *member_main(void *arg) {
    const member *m = arg;
    vkm_team *t = m->team;
    for (uint32_t round = 0;; round++) {
        gate_wait(&t->round, round);
        if (t->closing) return NULL;
        t->fn(t->user, m->i, t->n);
        if (atomic_fetch_sub(&t->left.word, 1) == 1) gate_wake(&t->left);
    }
}

uint32_t vkm_cpu_count(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 0 : CPU_COUNT(&set);
    if (n <= 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN); /* more processors than the set holds */
    return n > 0 ? (uint32_t)n : 1;
}

/* Members take no signals: those are for the thread that owns the program's loop. */
static int start(member *m) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&m->thread, NULL, member_main, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

vkm_status vkm_team_new(uint32_t n, vkm_team **out, vkm_err *err) {
    VKM_BUG_ON(!n, "a team of no threads");
    vkm_team *t = vkm_calloc(1, sizeof *t + n * sizeof t->members[0], "threads", err);
    *out = NULL;
    if (!t) return err->status;
    for (t->n = 1; t->n < n; t->n++) {
        member *m = &t->members[t->n];
        *m = (member){.team = t, .i = t->n};
        if (!start(m)) continue;
        vkm_fail(err, VKM_FAILED, "no thread %u of %u; give fewer with --threads", t->n + 1, n);
        vkm_team_free(t);
        return err->status;
    }
    *out = t;
    return VKM_OK;
}

/* Begins a round that every member sees. */
static void begin(vkm_team *t) {
    atomic_store(&t->left.word, t->n - 1);
    atomic_fetch_add(&t->round.word, 1);
    gate_wake(&t->round);
}

void vkm_team_free(vkm_team *t) {
    if (!t) return;
    t->closing = true;
    begin(t);
    for (uint32_t i = 1; i < t->n; i++) pthread_join(t->members[i].thread, NULL);
    free(t);
}

void vkm_team_run(vkm_team *t, vkm_team_fn fn, void *user) {
    t->fn = fn;
    t->user = user;
    if (t->n > 1) begin(t);
    fn(user, 0, t->n);
    for (uint32_t left; (left = atomic_load(&t->left.word)) && t->n > 1;) gate_wait(&t->left, left);
}
