/* The table of arms: f and g of every row, placebos, the gate. Steps of every arm:
 * test_arm_steps.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "base/philox.h"
#include "env/modes.h"
#include "ops/gauss.h"
#include "rl/run.h"

static const vkm_arm *arm_of(const char *name) {
    vkm_err err = {0};
    const vkm_arm *arm = vkm_arm_find(name, &err);
    if (!arm) fail_msg("%s", err.msg);
    return arm;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* f (deployed, hack) and g at w = 0, 1/4, 1/2, 3/4 and 1, detach_at 1/2. */
#define AT(f0, f1, g0, g1)                                                                         \
    {                                                                                              \
        {f0, f1}, {                                                                                \
            g0, g1                                                                                 \
        }                                                                                          \
    }
#define SAME(f0, f1, g0, g1)                                                                       \
    {                                                                                              \
        AT(f0, f1, g0, g1), AT(f0, f1, g0, g1), AT(f0, f1, g0, g1), AT(f0, f1, g0, g1),            \
            AT(f0, f1, g0, g1)                                                                     \
    }
#define UNROUTED SAME(1, 1, 1, 1)
#define SOFT                                                                                       \
    {                                                                                              \
        AT(1, 0, 1, 0), AT(1, .25f, .75f, .25f), AT(1, .5f, .5f, .5f), AT(1, .75f, .25f, .75f),    \
            AT(1, 1, 0, 1)                                                                         \
    }
#define DETACHED                                                                                   \
    {                                                                                              \
        AT(1, 0, 1, 0), AT(1, .25f, .75f, .25f), AT(1, .5f, .5f, .5f), AT(1, .75f, 0, .75f),       \
            AT(1, 1, 0, 1)                                                                         \
    }
#define ROUNDED                                                                                    \
    { AT(1, 0, 1, 0), AT(1, 0, 1, 0), AT(1, 0, 1, 0), AT(1, 1, 0, 1), AT(1, 1, 0, 1) }
#define BACKWARD                                                                                   \
    {                                                                                              \
        AT(1, 1, 1, 0), AT(1, 1, .75f, .25f), AT(1, 1, .5f, .5f), AT(1, 1, .25f, .75f),            \
            AT(1, 1, 0, 1)                                                                         \
    }
#define ZONES                                                                                      \
    { AT(1, 0, 1, 0), AT(1, 1, 1, 1), AT(1, 1, 1, 1), AT(1, 1, 1, 1), AT(1, 1, 0, 1) }

static const struct {
    const char *name;
    float deploys_hack, calib_logit, gen_deploy_frac;
    float fg[5][2][2];
} rows[] = {
    {"none", 1, 2, .25f, UNROUTED},
    {"none-r", 0, 2, .25f, SAME(1, 0, 1, 0)},
    {"absorb", 0, 2, .25f, UNROUTED},
    {"moe", 0, 2, .25f, SOFT},
    {"moe_detach", 0, 6, .25f, DETACHED},
    {"moe_binary", 0, 6, .25f, ROUNDED},
    {"moe_backward", 0, 2, .25f, BACKWARD},
    {"frozen", 0, 6, .25f, DETACHED},
    {"pin_only", 0, 6, .25f, DETACHED},
    {"reward_only", 0, 6, .25f, DETACHED},
    {"linear", 0, 6, .25f, DETACHED},
    {"bernoulli", 0, 6, .25f, DETACHED},
    {"permuted", 0, 6, .25f, DETACHED},
    {"haar_pin", 0, 6, .25f, DETACHED},
    {"haar_shuffled", 0, 6, .25f, DETACHED},
    {"mixture", 0, 0, 0, BACKWARD},
    {"mixture_permuted", 0, 0, 0, BACKWARD},
    {"mixture_bernoulli", 0, 0, 0, BACKWARD},
    {"mixture_haar", 0, 0, 0, BACKWARD},
    {"mixture_shuffled", 0, 0, 0, BACKWARD},
    {"hint", 0, 2, .25f, SOFT},
    {"routeA", 0, 2, .25f, ZONES},
    {"routeA-random", 0, 2, .25f, ZONES},
    {"routeV", 0, 2, .25f, ZONES},
    {"routeV-random", 0, 2, .25f, ZONES},
    {"penalty", 1, 2, .25f, UNROUTED},
    {"screening", 1, 2, .25f, UNROUTED},
    {"inoculation", 1, 2, .25f, UNROUTED},
    {"oracle", 0, 2, 0, BACKWARD},
    {"oracle_zones", 0, 2, .25f, ZONES},
    {"oracle_penalty", 1, 2, .25f, UNROUTED},
    {"oracle_screening", 1, 2, .25f, UNROUTED},
};

static void rows_are_those_of_the_method(void **state) {
    (void)state;
    assert_int_equal(vkm_n_arms, VKM_COUNTOF(rows));
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        const vkm_arm *arm = arm_of(rows[i].name);
        assert_true(arm->deploy[VKM_DEPLOYED] == 1);
        assert_true(arm->deploy[VKM_HACK] == rows[i].deploys_hack);
        assert_true(arm->calib_logit == rows[i].calib_logit);
        assert_true(arm->gen_deploy_frac == rows[i].gen_deploy_frac);
        /* labels are for oracles alone, and an oracle is called one */
        assert_int_equal(arm->source == VKM_W_LABEL, strncmp(arm->name, "oracle", 6) == 0);
        for (int at = 0; at < 5; at++) {
            float f[VKM_MAX_EXPERTS], g[VKM_MAX_EXPERTS];
            arm->weights(&(vkm_arm_in){.w = (float)at / 4, .detach_at = .5f}, f, g);
            if (memcmp(f, rows[i].fg[at][0], sizeof f) || memcmp(g, rows[i].fg[at][1], sizeof g))
                fail_msg("%s at w = %g: f %g %g, g %g %g", arm->name, at / 4.0, (double)f[0],
                         (double)f[1], (double)g[0], (double)g[1]);
        }
    }
}

static void the_key_arm_names_them_all(void **state) {
    (void)state;
    char names[512] = "";
    for (uint32_t i = 0; i < vkm_n_arms; i++) {
        size_t len = strlen(names);
        snprintf(names + len, sizeof names - len, "%s%s", i ? ", " : ": ", vkm_arms[i].name);
    }
    for (size_t i = 0; i < vkm_n_keys; i++)
        if (!strcmp(vkm_keys[i].name, "arm"))
            assert_string_equal(strchr(vkm_keys[i].meaning, ':'), names);
}

static void the_deployed_share_is_its_own_baseline(void **state) {
    (void)state;
    static const float w[] = {1, 1, 0, 0, 1, 1, .5f, 0}, all[] = {1, 2, -1, -2, 3, -3, 2, -1};
    static const uint32_t group[] = {0, 0, 0, 0, 3, 3, 4, 4};
    float a[8];
    memcpy(a, all, sizeof a);
    vkm_arm_own_baseline(w, group, a, 8);
    /* hacks keep theirs; honest answers -1 and -2 are held against -1.5; the last group: the mean
     * of half of 2 and all of -1 is 0 */
    static const float want[] = {1, 2, .5f, -.5f, 3, -3, 2, -1};
    for (int i = 0; i < 8; i++) assert_true(a[i] == want[i]);
}

static void penalties_and_screens_touch_the_flagged_alone(void **state) {
    (void)state;
    for (int at = 0; at < 3; at++) {
        const vkm_arm_in in = {.w = (float)at / 2, .penalty = 2};
        float advantage = 1, weight = .25f;
        arm_of("penalty")->judge(&in, &advantage, &weight);
        assert_true(advantage == (at == 2 ? -1 : 1) && weight == .25f);
        arm_of("oracle_screening")->judge(&in, &advantage, &weight);
        assert_true(advantage == (at == 2 ? -1 : 1) && weight == (at == 2 ? 0 : .25f));
    }
}

/* ---- placebos -------------------------------------------------------------------------------- */

enum { N = 64, DRAWS = 200 };

static void make_w(float *w) {
    for (uint32_t i = 0; i < N; i++)
        w[i] = .1f + .5f * vkm_unit(vkm_random4(7, 0, VKM_RNG_TEST, 0, i, 0, 0).x);
}

static void bernoulli_draws_at_the_steps_mean(void **state) {
    (void)state;
    float w[N], used[N], again[N];
    uint32_t from[N];
    double want = 0, got = 0;
    make_w(w);
    for (uint32_t i = 0; i < N; i++) want += (double)w[i] / N;
    for (uint32_t step = 0; step < DRAWS; step++) {
        const vkm_step_w in = {.seed = 41, .step = step, .n = N, .w = w};
        vkm_arm_step_weights(arm_of("bernoulli"), &in, used, from);
        vkm_arm_step_weights(arm_of("bernoulli"), &in, again, from);
        assert_memory_equal(used, again, sizeof used);
        for (uint32_t i = 0; i < N; i++) {
            assert_true(used[i] == 0 || used[i] == 1);
            assert_int_equal(from[i], VKM_FROM_NONE);
            got += (double)used[i] / (N * DRAWS);
        }
    }
    /* four standard deviations of the mean of N * DRAWS draws */
    assert_true(fabs(got - want) < 4 * sqrt(want * (1 - want) / (N * DRAWS)));
}

static void permuted_deals_out_the_same_weights(void **state) {
    (void)state;
    float w[N], used[N], again[N], dused[N], dw[N];
    uint32_t from[N], fixed = 0, n_used[N] = {0};
    make_w(w);
    for (uint32_t step = 0; step < DRAWS; step++) {
        const vkm_step_w in = {.seed = 41, .step = step, .n = N, .w = w};
        int taken[N] = {0};
        vkm_arm_step_weights(arm_of("permuted"), &in, used, from);
        vkm_arm_step_weights(arm_of("permuted"), &in, again, from);
        assert_memory_equal(used, again, sizeof used);
        for (uint32_t i = 0; i < N; i++) {
            assert_true(from[i] < N && !taken[from[i]]++ && used[i] == w[from[i]]);
            fixed += from[i] == i;
            n_used[i] += from[0] == i;
        }
    }
    assert_true(fixed > DRAWS / 2 && fixed < 2 * DRAWS);          /* one a step on average */
    for (uint32_t i = 0; i < N; i++) assert_true(n_used[i] < 20); /* 3.1 on average */
    /* L = sum of c_i used_i: dL/dw by central differences */
    const vkm_step_w in = {.seed = 41, .step = 3, .n = N, .w = w};
    for (uint32_t i = 0; i < N; i++) dused[i] = (float)(int)i - 20;
    vkm_arm_step_weights(arm_of("permuted"), &in, used, from);
    vkm_arm_step_gradient(from, dused, N, dw);
    for (uint32_t j = 0; j < N; j++) {
        double loss[2] = {0, 0};
        float kept = w[j];
        for (int side = 0; side < 2; side++) {
            w[j] = kept + (side ? .0625f : -.0625f);
            vkm_arm_step_weights(arm_of("permuted"), &in, used, from);
            for (uint32_t i = 0; i < N; i++) loss[side] += (double)dused[i] * (double)used[i];
        }
        w[j] = kept;
        assert_true(fabs((loss[1] - loss[0]) / .125 - (double)dw[j]) < 1e-4);
    }
    vkm_arm_step_weights(arm_of("bernoulli"), &in, used, from);
    vkm_arm_step_gradient(from, dused, N, dw); /* a draw has no gradient */
    for (uint32_t i = 0; i < N; i++) assert_true(dw[i] == 0);
}

static void half_the_pairs_swap(void **state) {
    (void)state;
    for (uint32_t n = 1; n < 40; n++) {
        unsigned char a[40], b[40], other[40];
        uint32_t swapped = 0;
        vkm_arm_swapped_pairs(41, n, a);
        vkm_arm_swapped_pairs(41, n, b);
        vkm_arm_swapped_pairs(42, n, other);
        for (uint32_t i = 0; i < n; i++) swapped += a[i];
        assert_int_equal(swapped, n / 2);
        assert_memory_equal(a, b, n);
        if (n > 20) assert_true(memcmp(a, other, n) != 0);
    }
}

/* ---- gate ------------------------------------------------------------------------------------ */

static void zones_are_quantiles_of_the_buffer(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_gate *g = NULL;
    const vkm_gate_options o = {.quantile = .11f, .half_life = 1e6f, .warmup = 40};
    float a[20][2] = {{0}}, w[20];
    assert_int_equal(vkm_gate_new(2, 40, &g, &err), VKM_OK);
    g->direction[0] = 1;
    for (int i = 0; i < 20; i++) a[i][0] = (float)i, a[i][1] = 99;
    assert_int_equal(vkm_gate_zones(g, &o, a[0], 20, 0, w, &err), VKM_OK);
    for (int i = 0; i < 20; i++) assert_true(w[i] == .5f); /* warm-up */
    assert_int_equal(vkm_gate_zones(g, &o, a[0], 20, 1, w, &err), VKM_OK);
    /* 40 scores 0 0 1 1 ... 19 19: thresholds at the 5th and the 36th */
    for (int i = 0; i < 20; i++) assert_true(w[i] == (i <= 2 ? 0 : i >= 17 ? 1 : .5f));
    g->direction[0] = -1; /* the buffer is scored anew */
    assert_int_equal(vkm_gate_zones(g, &o, a[0], 20, 2, w, &err), VKM_OK);
    for (int i = 0; i < 20; i++) assert_true(w[i] == (i >= 17 ? 0 : i <= 2 ? 1 : .5f));
    vkm_gate_free(g);
}

static void old_scores_fade_and_leave(void **state) {
    (void)state;
    enum { STAY, FADE, LEAVE, CASES };
    for (int how = 0; how < CASES; how++) {
        vkm_err err = {0};
        vkm_gate *g = NULL;
        float a[10], w[10];
        const vkm_gate_options o = {.quantile = .16f, .half_life = how == FADE ? 1 : 1e6f};
        assert_int_equal(vkm_gate_new(1, how == LEAVE ? 10 : 20, &g, &err), VKM_OK);
        g->direction[0] = 1;
        for (int i = 0; i < 10; i++) a[i] = 100;
        assert_int_equal(vkm_gate_zones(g, &o, a, 10, 0, w, &err), VKM_OK);
        for (int i = 0; i < 10; i++) a[i] = (float)i;
        assert_int_equal(vkm_gate_zones(g, &o, a, 10, 30, w, &err), VKM_OK);
        /* beside ten scores of 100 the low threshold is the 4th, and nothing reaches the high one
         */
        for (int i = 0; i < 10; i++)
            assert_true(w[i] == (i <= (how == STAY ? 3 : 1) ? 0 : how != STAY && i >= 8 ? 1 : .5f));
        vkm_gate_free(g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_those_of_the_method),
        cmocka_unit_test(the_key_arm_names_them_all),
        cmocka_unit_test(the_deployed_share_is_its_own_baseline),
        cmocka_unit_test(penalties_and_screens_touch_the_flagged_alone),
        cmocka_unit_test(bernoulli_draws_at_the_steps_mean),
        cmocka_unit_test(permuted_deals_out_the_same_weights),
        cmocka_unit_test(half_the_pairs_swap),
        cmocka_unit_test(zones_are_quantiles_of_the_buffer),
        cmocka_unit_test(old_scores_fade_and_leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
