/* Generation with any number of experts: each prompt is prefilled and decoded with its own weights,
 * and what the sampler records are the bits of the training forward. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/init_model.h"
#include "ops/gauss.h"
#include "rl/policy.h"
#include "tmpdir.h"

enum { PROMPT = 20, NEW = 9, ROWS = 3, RANK = 3 };

typedef struct sampled {
    uint32_t tokens[PROMPT + NEW], n;
    float logp[NEW], again[NEW];
} sampled;

static vkm_status keep(void *user, uint32_t row, const uint32_t *tokens, const float *logp,
                       uint32_t n, vkm_err *err) {
    (void)err;
    sampled *s = (sampled *)user + row;
    s->n = n;
    memcpy(s->tokens + PROMPT, tokens, n * sizeof *tokens);
    memcpy(s->logp, logp, n * sizeof *logp);
    return VKM_OK;
}

static vkm_policy *open_policy(vkm_dev *dev, uint32_t n_experts) {
    vkm_err err = {0};
    vkm_policy *p = NULL;
    vkm_policy_limits max = {.max_prompt = PROMPT,
                             .max_new = NEW,
                             .rollouts = ROWS,
                             .prompts = ROWS,
                             .ids = ROWS,
                             .micro_rows = 256,
                             .n_experts = n_experts,
                             .rank = RANK,
                             .trains = 1,
                             .seed = 9};
    if (vkm_policy_new(dev, in_dir("model"), &max, NULL, &p, &err)) fail_msg("%s", err.msg);
    uint64_t n = vkm_adapter_size(p->adapter, VKM_STATE_PARAM);
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    vkm_gauss(x, n, 0, 4, VKM_RNG_TEST, 0, 0.05f);
    if (vkm_adapter_write(p->adapter, VKM_STATE_PARAM, x, &err)) fail_msg("%s", err.msg);
    free(x);
    return p;
}

/* Three prompts in three states of their own, in one prefill. */
static void check_experts(uint32_t n_experts) {
    static const float f[ROWS][VKM_MAX_EXPERTS] = {{1, 0.25f}, {0, 1}, {0.5f, 0}};
    const uint32_t eos[1] = {0};
    const vkm_gen_options how = {.dist = {.temperature = 1, .top_p = 1}, .seed = 3, .eos = eos};
    sampled got[ROWS] = {0};
    vkm_gen_row rows[ROWS];
    vkm_example x[ROWS];
    vkm_dev *dev = NULL;
    vkm_err err = {0};
    if (vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU}, &dev, &err)) fail_msg("%s", err.msg);
    vkm_policy *p = open_policy(dev, n_experts);
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t j = 0; j < PROMPT; j++) got[i].tokens[j] = 7 * j + 50 * i;
        rows[i] = (vkm_gen_row){.prompt = got[i].tokens, .prompt_len = PROMPT, .id = i};
        memcpy(rows[i].f, f[i], sizeof rows[i].f);
    }
    if (vkm_generate(p->gen, rows, ROWS, &how, keep, got, &err)) fail_msg("%s", err.msg);
    for (uint32_t i = 0; i < ROWS; i++) {
        assert_int_equal(got[i].n, NEW);
        x[i] = (vkm_example){.seq = {got[i].tokens, PROMPT + NEW, PROMPT}, .logp = got[i].again};
        memcpy(x[i].f, f[i], sizeof x[i].f);
    }
    if (vkm_policy_read(p, x, ROWS, &err)) fail_msg("%s", err.msg);
    for (uint32_t i = 0; i < ROWS; i++)
        assert_memory_equal(got[i].logp, got[i].again, sizeof got[i].logp);
    vkm_policy_free(p);
    vkm_dev_close(dev);
}

static void two_experts(void **state) {
    (void)state;
    check_experts(2);
}

static void one_expert(void **state) {
    (void)state;
    check_experts(1);
}

static int make_model(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    return vkm_init_model(&o, NULL, &err) ? -1 : 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_experts), cmocka_unit_test(one_expert)};
    return cmocka_run_group_tests(tests, make_model, tmpdir_remove);
}
