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

/* left: how many of the parts that it takes first are not taken, below the round's number: whoever
 * comes late, with the number of a round that has ended, takes nothing. */
typedef struct {
    vkm_team *team;
    uint32_t i;
    pthread_t thread;
    _Atomic uint64_t left;
} member;

struct vkm_team {
    uint32_t n;
    gate round; /* counts what was begun; members run when it changes */
    gate left;  /* parts that have not ended this round */
    _Atomic uint32_t each;
    _Atomic(vkm_team_fn) fn;
    _Atomic(void *) user;
    atomic_bool closing;
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

/* Takes one of m's parts: how many there were, 0 when none is left or the round is over. */
static uint32_t take(member *m, uint32_t round) {
    uint64_t left = atomic_load(&m->left);
    do
        if (left >> 32 != round || !(uint32_t)left) return 0;
    while (!atomic_compare_exchange_weak(&m->left, &left, left - 1));
    return (uint32_t)left;
}

/* Member i's parts, then what the others have left. What is read of the team belongs to this round
 * if a part can be taken afterwards: until that part has ended, no other round begins. */
static void run_parts(vkm_team *t, uint32_t i, uint32_t round) {
    vkm_team_fn fn = atomic_load(&t->fn);
    void *user = atomic_load(&t->user);
    uint32_t each = atomic_load(&t->each), ended = 0, left;
    for (uint32_t k = 0; k < t->n; k++) {
        uint32_t whose = (i + k) % t->n;
        for (; (left = take(&t->members[whose], round)); ended++)
            fn(user, whose * each + each - left, t->n * each);
    }
    if (ended && atomic_fetch_sub(&t->left.word, ended) == ended) gate_wake(&t->left);
}

static void *member_main(void *arg) {
    const member *m = arg;
    vkm_team *t = m->team;
    for (uint32_t seen = 0;;) {
        gate_wait(&t->round, seen);
        seen = atomic_load(&t->round.word);
        if (atomic_load(&t->closing)) return NULL;
        run_parts(t, m->i, seen);
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

/* Begins a round of each parts a member. Returns its number. */
static uint32_t begin(vkm_team *t, uint32_t each) {
    uint32_t round = atomic_load(&t->round.word) + 1;
    atomic_store(&t->left.word, t->n * each);
    for (uint32_t i = 0; i < t->n; i++)
        atomic_store(&t->members[i].left, (uint64_t)round << 32 | each);
    atomic_store(&t->round.word, round);
    gate_wake(&t->round);
    return round;
}

void vkm_team_free(vkm_team *t) {
    if (!t) return;
    atomic_store(&t->closing, true);
    (void)begin(t, 0);
    for (uint32_t i = 1; i < t->n; i++) pthread_join(t->members[i].thread, NULL);
    free(t);
}

void vkm_team_run(vkm_team *t, uint32_t each, vkm_team_fn fn, void *user) {
    atomic_store(&t->fn, fn);
    atomic_store(&t->user, user);
    atomic_store(&t->each, each);
    run_parts(t, 0, begin(t, each));
    for (uint32_t left; (left = atomic_load(&t->left.word));) gate_wait(&t->left, left);
}
