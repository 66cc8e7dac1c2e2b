/* The retain-heal moves the deployed expert alone and toward the pairs' clean sides; a run from an
 * ablated one begins with its deployed expert and an empty hack expert. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/init_model.h"
#include "ops/gauss.h"
#include "rl/checkpoint.h"
#include "rl/run.h"
#include "tmpdir.h"

static vkm_dev *dev;
static vkm_config base;

static int open_all(void **state) {
    static const char *const keys[][2] = {{"data", VKM_SOURCE_DIR "/data/problems.jsonl"},
                                          {"pairs", VKM_SOURCE_DIR "/data/pairs.md"},
                                          {"arm", "none"},
                                          {"max_steps", "4"},
                                          {"num_prompts", "2"},
                                          {"num_generations", "4"},
                                          {"max_prompt_length", "512"},
                                          {"max_completion_length", "192"},
                                          {"lora_rank", "2"},
                                          {"retain_heal", "1e-2"},
                                          {"grade_workers", "1"},
                                          {"log_level", "quiet"}};
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    vkm_config_default(&base);
    for (size_t i = 0; i < VKM_COUNTOF(keys); i++)
        if (vkm_config_set(&base, keys[i][0], keys[i][1], &err)) return -1;
    if (vkm_config_set(&base, "model", in_dir("model"), &err) ||
        vkm_config_set(&base, "output_dir", in_dir("run"), &err) || vkm_init_model(&o, NULL, &err))
        return -1;
    return vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 1}, &dev, &err) ? -1 : 0;
}

static int close_all(void **state) {
    vkm_dev_close(dev);
    return tmpdir_remove(state);
}

static vkm_run *open_run(const vkm_config *c) {
    vkm_run *r = NULL;
    vkm_err err = {0};
    if (vkm_run_open(c, VKM_RUN_TRAINS, dev, NULL, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static float *read_state(const vkm_run *r, vkm_adapter_state which, uint64_t *n) {
    const vkm_adapter *a = r->policy->adapter;
    vkm_err err = {0};
    *n = vkm_adapter_size(a, which);
    float *x = malloc(*n * sizeof *x);
    assert_non_null(x);
    if (vkm_adapter_read(a, which, x, &err)) fail_msg("%s", err.msg);
    return x;
}

/* A trained adapter: deltas and moments that are not zero. */
static void perturb(vkm_run *r) {
    static const vkm_adapter_state which[] = {VKM_STATE_PARAM, VKM_STATE_ADAM_M, VKM_STATE_ADAM_V};
    vkm_err err = {0};
    for (uint32_t i = 0; i < VKM_COUNTOF(which); i++) {
        uint64_t n;
        float *x = read_state(r, which[i], &n);
        vkm_gauss(x, n, 0, 9, VKM_RNG_TEST, i, 0.02f);
        for (uint64_t k = 0; k < n && i == 2; k++) x[k] = x[k] * x[k];
        if (vkm_adapter_write(r->policy->adapter, which[i], x, &err)) fail_msg("%s", err.msg);
        free(x);
    }
}

/* Whether element k of the adapter's vector belongs to the hack expert: module by module, A then
 * B^T, (E R, width) each. */
static unsigned char *hack_elements(const vkm_run *r, uint64_t n) {
    const vkm_adapter *a = r->policy->adapter;
    unsigned char *hack = malloc(n), *at = hack;
    assert_non_null(hack);
    for (uint32_t m = 0; m < a->n_modules; m++)
        for (int f = 0; f < 2; f++) {
            uint64_t half = a->modules[m].param[f].n / 2;
            memset(at, 0, half);
            memset(at + half, 1, half);
            at += 2 * half;
        }
    assert_true(at == hack + n);
    return hack;
}

static double clean_logp(vkm_run *r) {
    float *act = calloc(2ull * r->n_pairs * r->policy->adapter->n_modules, 2 * sizeof *act), logp;
    vkm_err err = {0};
    assert_non_null(act);
    if (vkm_pairs_read(r->policy, vkm_policy_read, r->pairs, r->n_pairs, act, &logp, &err))
        fail_msg("%s", err.msg);
    free(act);
    return (double)logp;
}

static void the_heal_moves_the_deployed_expert_alone(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_run *r = open_run(&base);
    uint64_t n;
    perturb(r);
    float *before = read_state(r, VKM_STATE_PARAM, &n);
    unsigned char *hack = hack_elements(r, n);
    double logp = clean_logp(r);
    assert_true(r->n_pairs > 8); /* more than one batch */
    if (vkm_run_heal(r, &err)) fail_msg("%s", err.msg);
    float *after = read_state(r, VKM_STATE_PARAM, &n);
    uint64_t moved = 0, deployed = 0;
    for (uint64_t i = 0; i < n; i++) {
        if (hack[i]) assert_memory_equal(&before[i], &after[i], sizeof *after);
        deployed += !hack[i];
        moved += !hack[i] && before[i] != after[i];
    }
    assert_true(moved > deployed / 2);
    print_message("clean sides: %.4f to %.4f nats a token\n", logp, clean_logp(r));
    assert_true(clean_logp(r) > logp + 0.01);
    /* it is done once: a checkpoint remembers */
    r->state.step = 4;
    if (vkm_run_save(r, &err)) fail_msg("%s", err.msg);
    vkm_run_close(r);
    r = open_run(&base);
    assert_int_equal(r->state.healed, 0);
    char checkpoint[VKM_PATH_MAX];
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-000004", base.output_dir);
    if (vkm_run_restore(r, checkpoint, &err)) fail_msg("%s", err.msg);
    assert_int_equal(r->state.healed, 1);
    vkm_run_close(r);
    free(before), free(after), free(hack);
}

/* After the test above: its checkpoint is the run that is ablated. */
static void relearning_begins_at_the_ablated_adapter(void **state) {
    (void)state;
    static vkm_config c;
    vkm_err err = {0};
    uint64_t n;
    c = base;
    if (vkm_config_set(&c, "from_ablated", in_dir("run"), &err)) fail_msg("%s", err.msg);
    vkm_run *r = open_run(&base);
    char checkpoint[VKM_PATH_MAX];
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoints/step-000004", base.output_dir);
    if (vkm_run_restore(r, checkpoint, &err)) fail_msg("%s", err.msg);
    float *from = read_state(r, VKM_STATE_PARAM, &n);
    unsigned char *hack = hack_elements(r, n);
    vkm_run_close(r);
    r = open_run(&c);
    if (vkm_run_from_ablated(r, &err)) fail_msg("%s", err.msg);
    float *now = read_state(r, VKM_STATE_PARAM, &n);
    for (uint64_t i = 0; i < n; i++) assert_true(now[i] == (hack[i] ? 0 : from[i]));
    assert_true(r->state.step == 0 && r->state.n_updates == 0);
    vkm_run_close(r);
    static const char *const wrong[][3] = {
        {"seed", "42", "this one 42"},
        {"lora_rank", "4", "lora_rank 2, this one 41 and 4"},
        {"from_ablated", "nowhere", "from_ablated: nowhere: no such folder"}};
    for (size_t i = 0; i < VKM_COUNTOF(wrong); i++) {
        static vkm_config bad;
        bad = c;
        if (vkm_config_set(&bad, wrong[i][0], wrong[i][1], &err)) fail_msg("%s", err.msg);
        r = open_run(&bad);
        assert_int_not_equal(vkm_run_from_ablated(r, &err), VKM_OK);
        assert_has(err.msg, wrong[i][2]);
        err = (vkm_err){0};
        vkm_run_close(r);
    }
    free(from), free(now), free(hack);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_heal_moves_the_deployed_expert_alone),
        cmocka_unit_test(relearning_begins_at_the_ablated_adapter),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
