/* A team runs every part once a round, in any number of threads, however long its members slept,
 * and waits for none that is held up while there are parts left. */
#include "base/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { MAX_MEMBERS = 9, MAX_EACH = 3, ROUNDS = 20000 };

typedef struct {
    uint32_t n, runs[MAX_MEMBERS * MAX_EACH]; /* each written by one part only */
    uint32_t wrong_n;
} tally;

static void count(void *user, uint32_t i, uint32_t n) {
    tally *t = user;
    if (n != t->n || i >= n)
        t->wrong_n = 1;
    else
        t->runs[i]++;
}

static void run_rounds(uint32_t n, uint32_t each) {
    vkm_err err = {0};
    vkm_team *team;
    tally t = {.n = n * each};
    assert_int_equal(vkm_team_new(n, &team, &err), VKM_OK);
    for (uint32_t round = 1; round <= ROUNDS / n; round++) {
        vkm_team_run(team, each, count, &t);
        if (round % 5000 == 0) usleep(2000); /* long enough for members to fall asleep */
        for (uint32_t i = 0; i < t.n; i++) assert_int_equal(t.runs[i], round);
    }
    assert_int_equal(t.wrong_n, 0);
    vkm_team_free(team);
}

static void every_part_runs_once_a_round(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= MAX_MEMBERS; n += 2)
        for (uint32_t each = 1; each <= MAX_EACH; each += 2) run_rounds(n, each);
}

typedef struct {
    atomic_uint others, started;
} hold_up;

/* The first part that starts waits until every other has ended. */
static void hold(void *user, uint32_t i, uint32_t n) {
    hold_up *h = user;
    (void)i;
    if (atomic_fetch_add(&h->started, 1) == 0)
        while (atomic_load(&h->others) + 1 < n) usleep(100);
    else
        atomic_fetch_add(&h->others, 1);
}

static void parts_of_a_member_that_is_held_up_are_taken_by_others(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_team *team;
    hold_up h = {0};
    assert_int_equal(vkm_team_new(2, &team, &err), VKM_OK);
    vkm_team_run(team, 4, hold, &h);
    assert_int_equal(h.others, 7);
    vkm_team_free(team);
}

static void a_team_that_never_ran_ends(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_team *team;
    assert_int_equal(vkm_team_new(3, &team, &err), VKM_OK);
    vkm_team_free(team);
    vkm_team_free(NULL);
    assert_true(vkm_cpu_count() >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_runs_once_a_round),
        cmocka_unit_test(parts_of_a_member_that_is_held_up_are_taken_by_others),
        cmocka_unit_test(a_team_that_never_ran_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
