/* Generation with any number of experts: each prompt is prefilled and decoded with its own weights,
 * and what the sampler records are the bits of the training forward. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tmpdir.h"

#include "tiny_model.h"

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
    const vkm_policy_limits max = {.max_prompt = PROMPT,
                                   .max_new = NEW,
                                   .rollouts = ROWS,
                                   .prompts = ROWS,
                                   .ids = ROWS,
                                   .micro_rows = 256,
                                   .n_experts = n_experts,
                                   .rank = RANK,
                                   .trains = 1,
                                   .seed = 9};
    return open_tiny_policy(dev, &max);
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_experts), cmocka_unit_test(one_expert)};
    return cmocka_run_group_tests(tests, make_tiny_model, tmpdir_remove);
}
