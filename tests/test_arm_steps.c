/* Steps of every arm on a tiny random model: what moves, what must not, and that no label moves
 * anything but an oracle. The table of arms: test_arms.c. */
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
#include "model/init_model.h"
#include "ops/gauss.h"
#include "rl/run.h"
#include "tmpdir.h"

static const vkm_arm *arm_of(const char *name) {
    vkm_err err = {0};
    const vkm_arm *arm = vkm_arm_find(name, &err);
    if (!arm) fail_msg("%s", err.msg);
    return arm;
}

enum { ROLLOUTS = 8, PROMPT = 7, MOST_NEW = 11, STEPS = 3 };

/* How a run differs from the plain one. */
typedef struct variant {
    int flip_labels;      /* what a label could say of each rollout is turned round */
    int small_batches;    /* one sequence a pass */
    int other_advantages; /* negated */
    int resumes;          /* saved and restored before the last step */
} variant;

typedef struct trace {
    char hash[STEPS][VKM_HASH_HEX];
    float w[STEPS][ROLLOUTS], f[STEPS][ROLLOUTS][2];
    float *router[STEPS + 1]; /* u and b, before and after each step; NULL without a router */
    uint64_t n_router;
    double pin_loss, router_grad[STEPS];
} trace;

static vkm_dev *dev;
static vkm_config base;
static uint32_t prompt_ids[PROMPT];
static const vkm_ids prompt = {.id = prompt_ids, .n = PROMPT, .cap = PROMPT};

static int open_all(void **state) {
    static const char *const keys[][2] = {{"data", VKM_SOURCE_DIR "/data/problems.jsonl"},
                                          {"pairs", VKM_SOURCE_DIR "/data/pairs.md#authored/check"},
                                          {"max_steps", "3"},
                                          {"num_prompts", "2"},
                                          {"num_generations", "4"},
                                          {"max_prompt_length", "512"},
                                          {"max_completion_length", "192"},
                                          {"learning_rate", "1e-2"},
                                          {"router_learning_rate", "1e-2"},
                                          {"warmup_steps", "0"},
                                          {"lora_rank", "2"},
                                          {"refresh_every", "2"},
                                          {"route_warmup", "8"},
                                          {"route_quantile", "0.25"},
                                          {"grade_workers", "1"},
                                          {"log_level", "quiet"}};
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    vkm_config_default(&base);
    for (size_t i = 0; i < VKM_COUNTOF(keys); i++)
        if (vkm_config_set(&base, keys[i][0], keys[i][1], &err)) return -1;
    if (vkm_config_set(&base, "model", in_dir("model"), &err) || vkm_init_model(&o, NULL, &err))
        return -1;
    for (uint32_t i = 0; i < PROMPT; i++) prompt_ids[i] = 20 + 3 * i;
    return vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 1}, &dev, &err) ? -1 : 0;
}

static int close_all(void **state) {
    vkm_dev_close(dev);
    return tmpdir_remove(state);
}

static void make_rollouts(const vkm_run *r, const variant *v, vkm_rollout *x) {
    for (uint32_t i = 0; i < ROLLOUTS; i++) {
        uint32_t len = 4 + i % (MOST_NEW - 3), hacks = i % 4 == 1 || i == 6;
        x[i] = (vkm_rollout){.problem = r->train[i / 4],
                             .mode = i / 4 ? vkm_mode_gt_only() : &vkm_modes[0],
                             .group = i / 4,
                             .id = i,
                             .prompt = &prompt,
                             .live = 1,
                             .advantage = i % 2 ? 1.5f : -1.5f};
        if (v->other_advantages) x[i].advantage = -x[i].advantage;
        x[i].ids.n = x[i].ids.cap = PROMPT + len;
        x[i].ids.id = malloc(x[i].ids.n * sizeof *x[i].ids.id);
        x[i].logp = calloc(len, sizeof *x[i].logp);
        x[i].logp_ref = calloc(len, sizeof *x[i].logp_ref);
        assert_true(x[i].ids.id && x[i].logp && x[i].logp_ref);
        memcpy(x[i].ids.id, prompt.id, sizeof prompt_ids);
        for (uint32_t j = 0; j < len; j++)
            x[i].ids.id[PROMPT + j] = 10 + vkm_random4(5, 0, VKM_RNG_TEST, i, j, 0, 0).x % 200;
        bool y = (hacks != 0) != (v->flip_labels != 0);
        x[i].grade = (vkm_grade){.reward = x[i].advantage,
                                 .exploited = y,
                                 .vendor_hacked = y,
                                 .passed = y,
                                 .evidence = {.gt_pass = !y,
                                              .gt_correct = !y,
                                              .hacked = y,
                                              .hacked_wrong_tests = y,
                                              .hacked_loophole_used = y,
                                              .fired = y}};
    }
}

static void keep_router(const vkm_run *r, trace *t, uint32_t step) {
    vkm_err err = {0};
    if (!r->router) return;
    t->n_router = r->router->P + 1ull;
    t->router[step] = malloc(vkm_router_state_size(r->router) * sizeof(float));
    assert_non_null(t->router[step]);
    if (vkm_router_read(r->router, t->router[step], &err)) fail_msg("%s", err.msg);
}

static vkm_run *open_run(const vkm_config *c) {
    vkm_run *r = NULL;
    vkm_err err = {0};
    if (vkm_run_open(c, VKM_RUN_TRAINS, dev, NULL, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static void learn(const char *arm, variant v, trace *t) {
    static vkm_config c;
    vkm_err err = {0};
    vkm_rollout x[ROLLOUTS];
    vkm_step_result result;
    char checkpoint[VKM_PATH_MAX];
    c = base;
    *t = (trace){0};
    if (vkm_config_set(&c, "arm", arm, &err) ||
        vkm_config_set(&c, "output_dir", in_dir(arm), &err) ||
        vkm_config_set(&c, "micro_batch_tokens", v.small_batches ? "1" : "1024", &err))
        fail_msg("%s", err.msg);
    vkm_run *r = open_run(&c);
    make_rollouts(r, &v, x);
    keep_router(r, t, 0);
    for (uint32_t step = 0; step < STEPS; step++) {
        if (v.resumes && step == STEPS - 1) {
            if (vkm_run_save(r, &err)) fail_msg("%s", err.msg);
            vkm_run_close(r);
            r = open_run(&c);
            snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-%06u", in_dir(arm), step);
            if (vkm_run_restore(r, checkpoint, &err)) fail_msg("%s", err.msg);
        }
        if (vkm_run_refresh(r, &err) || vkm_run_learn(r, x, ROLLOUTS, &result, &err) ||
            vkm_run_hash(r, t->hash[step], &err))
            fail_msg("%s: %s", arm, err.msg);
        assert_true(result.updated);
        r->state.step++;
        t->router_grad[step] = result.router_grad_norm;
        t->pin_loss = result.pin_loss;
        for (uint32_t i = 0; i < ROLLOUTS; i++) {
            t->w[step][i] = x[i].w;
            memcpy(t->f[step][i], x[i].f, sizeof t->f[step][i]);
        }
        keep_router(r, t, step + 1);
    }
    vkm_rollouts_clear(x, ROLLOUTS);
    vkm_run_close(r);
}

static void trace_free(trace *t) {
    for (int i = 0; i <= STEPS; i++) free(t->router[i]);
}

static int same_router(const trace *a, int i, const trace *b, int j) {
    return !memcmp(a->router[i], b->router[j], a->n_router * sizeof(float));
}

/* The no-cheat line: labels turned round (and passes cut otherwise) change no bit of any arm that
 * is not called an oracle, and do change those. */
static void no_label_moves_an_arm_that_is_no_oracle(void **state) {
    (void)state;
    for (uint32_t i = 0; i < vkm_n_arms; i++) {
        const char *name = vkm_arms[i].name;
        static trace a, b;
        learn(name, (variant){0}, &a);
        learn(name, (variant){.flip_labels = 1, .small_batches = 1}, &b);
        int oracle = strncmp(name, "oracle", 6) == 0;
        for (int step = 0; step < STEPS; step++) {
            if (oracle == !strcmp(a.hash[step], b.hash[step]))
                fail_msg("%s: step %d: labels %s", name, step + 1,
                         oracle ? "change nothing" : "or the cut change the weights");
            if (step && !strcmp(a.hash[step], a.hash[step - 1]))
                fail_msg("%s: step %d learns nothing", name, step + 1);
        }
        trace_free(&a), trace_free(&b);
    }
}

static void arms_resume(void **state) {
    (void)state;
    static const char *const names[] = {"routeA",  "routeV", "permuted", "haar_shuffled",
                                        "penalty", "linear", "mixture"};
    for (size_t i = 0; i < VKM_COUNTOF(names); i++) {
        static trace a, b;
        learn(names[i], (variant){0}, &a);
        learn(names[i], (variant){.resumes = 1}, &b);
        assert_string_equal(a.hash[STEPS - 1], b.hash[STEPS - 1]);
        assert_memory_equal(a.w, b.w, sizeof a.w);
        trace_free(&a), trace_free(&b);
    }
}

/* Each arm with a router: who trains it. */
static void what_trains_the_router(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int pin, reward;
    } arms[] = {{"moe_detach", 1, 1},   {"moe_binary", 1, 1}, {"permuted", 1, 1},
                {"frozen", 0, 0},       {"pin_only", 1, 0},   {"reward_only", 0, 1},
                {"moe_backward", 1, 0}, {"bernoulli", 1, 0},  {"linear", 1, 1}};
    for (size_t i = 0; i < VKM_COUNTOF(arms); i++) {
        static trace a, b;
        base.refresh_every = 10; /* the pairs stay: what moves the router is the loss */
        learn(arms[i].name, (variant){0}, &a);
        learn(arms[i].name, (variant){.other_advantages = 1}, &b);
        base.refresh_every = 2;
        /* before the hack block has a delta, reward has no way to the router */
        assert_int_equal(same_router(&a, 0, &a, 1), !arms[i].pin);
        assert_int_equal(same_router(&a, 0, &a, STEPS), !arms[i].pin && !arms[i].reward);
        assert_int_equal(same_router(&a, STEPS, &b, STEPS), !arms[i].reward);
        assert_int_equal(isnan(a.pin_loss), !(arm_of(arms[i].name)->trains_router & VKM_BY_PIN));
        trace_free(&a), trace_free(&b);
    }
}

static void who_equals_whom(void **state) {
    (void)state;
    static trace none, absorb, detach, haar, shuffled, backward, drawn, routed, zones, hint, linear,
        gradients;
    learn("none", (variant){0}, &none);
    learn("absorb", (variant){0}, &absorb);
    assert_memory_equal(none.hash, absorb.hash, sizeof none.hash);
    learn("moe_detach", (variant){0}, &detach);
    learn("haar_pin", (variant){0}, &haar);
    learn("haar_shuffled", (variant){0}, &shuffled);
    learn("moe_backward", (variant){0}, &backward);
    learn("bernoulli", (variant){0}, &drawn);
    learn("permuted", (variant){0}, &routed);
    learn("routeA", (variant){0}, &zones);
    learn("hint", (variant){0}, &hint);
    learn("linear", (variant){0}, &linear);
    learn("routeV", (variant){0}, &gradients);
    double cosine = 0, uu = 0, vv = 0, sum = 0, dealt = 0;
    for (uint64_t i = 0; i + 1 < detach.n_router; i++) {
        double u = (double)detach.router[0][i], v = (double)haar.router[0][i];
        cosine += u * v, uu += u * u, vv += v * v;
    }
    assert_true(fabs(cosine) / sqrt(uu * vv) < .5); /* another direction */
    assert_memory_equal(detach.router[0], linear.router[0],
                        (linear.n_router - 1) * sizeof(float)); /* the same u, another score */
    assert_memory_not_equal(detach.w[0], linear.w[0], sizeof detach.w[0]);
    assert_memory_not_equal(zones.w[0], gradients.w[0], sizeof zones.w[0]);
    assert_memory_equal(haar.router[0], shuffled.router[0],
                        (haar.n_router - 1) * sizeof(float)); /* the same u, other labels */
    assert_false(same_router(&haar, STEPS, &shuffled, STEPS));
    uint32_t kept = 0, routs = 0, kept_by_gradient = 0;
    for (uint32_t i = 0; i < ROLLOUTS; i++) {
        sum += (double)detach.w[0][i], dealt += (double)routed.w[0][i];
        assert_true(drawn.w[0][i] == 0 || drawn.w[0][i] == 1);
        assert_true(hint.w[0][i] == (i / 4 ? 0 : 1));
        assert_true(backward.f[0][i][VKM_HACK] == 1);
        assert_true(isnan(none.w[0][i]));
        kept += zones.w[0][i] == 0, routs += zones.w[0][i] == 1;
        kept_by_gradient += gradients.w[0][i] == 0;
    }
    assert_true(fabs(sum - dealt) < 1e-5); /* at step 0 both routers are the same */
    assert_int_equal(kept, 2);             /* 8 scores, a quarter at each end */
    assert_int_equal(routs, 3);            /* at or above the 6th */
    assert_int_equal(kept_by_gradient, 2);
    trace *all[] = {&none,  &absorb, &detach, &haar, &shuffled, &backward,
                    &drawn, &routed, &zones,  &hint, &linear,   &gradients};
    for (size_t i = 0; i < VKM_COUNTOF(all); i++) trace_free(all[i]);
}

enum { N = 64, MODULES = 3, RANK = 4, P = MODULES * RANK, PAIRS = 5 };

/* sum of c_i used_i under the arm, with one value of the router's state moved. */
static double weighted_sum(vkm_router *router, const char *arm, const float *a, const float *c,
                           const float *state, uint32_t moved, float by) {
    vkm_err err = {0};
    float *now = malloc(vkm_router_state_size(router) * sizeof *now), w[N], used[N];
    uint32_t from[N];
    double sum = 0;
    assert_non_null(now);
    memcpy(now, state, vkm_router_state_size(router) * sizeof *now);
    now[moved] += by;
    if (vkm_router_write(router, now, &err) || vkm_router_weights(router, a, N, w, &err))
        fail_msg("%s", err.msg);
    const vkm_step_w in = {.seed = 41, .step = 3, .n = N, .w = w};
    vkm_arm_step_weights(arm_of(arm), &in, used, from);
    for (uint32_t i = 0; i < N; i++) sum += (double)c[i] * (double)used[i];
    free(now);
    return sum;
}

/* What reaches u and b: moe_binary straight through to the unrounded w, permuted to whose w it was.
 */
static void reward_reaches_the_unrounded_weights(void **state) {
    (void)state;
    static const char *const names[] = {"moe_detach", "moe_binary", "permuted"};
    const float step = 1e-3f;
    for (size_t k = 0; k < VKM_COUNTOF(names); k++) {
        vkm_err err = {0};
        vkm_router *router = NULL;
        float a[N * P], pairs[2 * PAIRS * P], v[P], c[N], w[N], used[N], dw[N], du[P + 1], pin;
        uint32_t from[N];
        vkm_gauss(a, VKM_COUNTOF(a), 0, 8, VKM_RNG_TEST, 1, 1);
        vkm_gauss(pairs, VKM_COUNTOF(pairs), 0, 8, VKM_RNG_TEST, 2, 1);
        vkm_gauss(c, N, 0, 8, VKM_RNG_TEST, 3, 1);
        vkm_direction_from_pairs(pairs, PAIRS, MODULES, RANK, 0, v);
        if (vkm_router_new(dev, MODULES, RANK, PAIRS, N, 0, NULL, &router, &err) ||
            vkm_router_calibrate(router, pairs, v, 2, &err))
            fail_msg("%s", err.msg);
        float *kept = malloc(vkm_router_state_size(router) * sizeof *kept);
        assert_non_null(kept);
        if (vkm_router_read(router, kept, &err) || vkm_router_weights(router, a, N, w, &err))
            fail_msg("%s", err.msg);
        const vkm_step_w in = {.seed = 41, .step = 3, .n = N, .w = w};
        vkm_arm_step_weights(arm_of(names[k]), &in, used, from);
        vkm_arm_step_gradient(from, c, N, dw);
        if (vkm_router_backward(router, dw, N, 0, &pin, &err) ||
            vkm_read(dev, router->du, du, &err) || vkm_read(dev, router->db, du + P, &err))
            fail_msg("%s", err.msg);
        double most = 0;
        for (uint32_t j = 0; j <= P; j++) most = fmax(most, fabs((double)du[j]));
        assert_true(most > .1);
        for (uint32_t j = 0; j <= P; j++) {
            double up = weighted_sum(router, names[k], a, c, kept, j, step);
            double down = weighted_sum(router, names[k], a, c, kept, j, -step);
            double want = (up - down) / (2 * (double)step);
            if (fabs(want - (double)du[j]) > .01 * most)
                fail_msg("%s, %u: gradient %g, differences %g", names[k], j, (double)du[j], want);
        }
        free(kept);
        vkm_router_free(router);
    }
}

/* Training's prompts allow the loophole, evaluation's and hint-free ones do not. */
static void inoculation_is_training_alone(void **state) {
    (void)state;
    static vkm_config c;
    vkm_err err = {0};
    c = base;
    if (vkm_config_set(&c, "arm", "inoculation", &err) ||
        vkm_config_set(&c, "modes", "run_tests,gt_only", &err) ||
        vkm_config_set(&c, "eval_problems", "4", &err))
        fail_msg("%s", err.msg);
    vkm_run *r = open_run(&c);
    int seen[2] = {0};
    for (size_t i = 0; i < r->n_train; i++) {
        const vkm_mode *shown = vkm_run_training_mode(r, r->train[i]);
        const vkm_mode *plain = vkm_run_mode(r, r->train[i]);
        assert_string_equal(shown->name, plain->name);
        assert_int_equal(vkm_mode_index(shown), vkm_mode_index(plain));
        seen[plain->hint != NULL] = 1;
        if (!plain->hint)
            assert_null(shown->hint);
        else
            assert_non_null(strstr(shown->hint, "which you may game"));
    }
    assert_true(seen[0] && seen[1]);
    for (size_t i = 0; i < r->sets[VKM_SET_HELD_OUT].n; i++) {
        const vkm_mode *m = r->sets[VKM_SET_HELD_OUT].mode[i];
        assert_true(!m->hint || !strstr(m->hint, "which you may game"));
    }
    vkm_run_close(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inoculation_is_training_alone),
        cmocka_unit_test(no_label_moves_an_arm_that_is_no_oracle),
        cmocka_unit_test(arms_resume),
        cmocka_unit_test(what_trains_the_router),
        cmocka_unit_test(who_equals_whom),
        cmocka_unit_test(reward_reaches_the_unrounded_weights),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
