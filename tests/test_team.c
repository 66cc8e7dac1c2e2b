/* A team runs every part once a round, in any number of threads, however long its members slept. */
#include "base/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum { MAX_PARTS = 9, ROUNDS = 20000 };

typedef struct {
    uint32_t n, runs[MAX_PARTS]; /* each written by one part only */
    uint32_t wrong_n;
} tally;

static void count(void *user, uint32_t i, uint32_t n) {
    tally *t = user;
    if (n != t->n || i >= n)
        t->wrong_n = 1;
    else
        t->runs[i]++;
}

static void every_part_runs_once_a_round(void **state) {
    (void)state;
    for (uint32_t n = 1; n <= MAX_PARTS; n += 2) {
        vkm_err err = {0};
        vkm_team *team;
        tally t = {.n = n};
        assert_int_equal(vkm_team_new(n, &team, &err), VKM_OK);
        for (uint32_t round = 1; round <= ROUNDS / n; round++) {
            vkm_team_run(team, count, &t);
            if (round % 5000 == 0) usleep(2000); /* long enough for members to fall asleep */
            for (uint32_t i = 0; i < n; i++) assert_int_equal(t.runs[i], round);
        }
        assert_int_equal(t.wrong_n, 0);
        vkm_team_free(team);
    }
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
        cmocka_unit_test(a_team_that_never_ran_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
