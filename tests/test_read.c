/* What is read of a sequence are the same bits alone, among others with and without its prompt, in
 * batches of any size, and as training's forward has it: prompts of one token, no completion,
 * neighbours that share a prompt or a part of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tmpdir.h"

#include "tiny_model.h"

enum { LONGEST = 40, RANK = 3, WIDTH = 2 * VKM_N_LINEARS * RANK }; /* the preset has 2 layers */

/* Prompt and completion tokens; which prompt; which adapter state. */
static const struct {
    uint32_t prompt, completion, text, state;
} cases[] = {
    {17, 5, 1, 0}, {17, 16, 1, 0}, {17, 0, 1, 0}, {17, 3, 1, 1},  {17, 3, 2, 1},
    {1, 1, 3, 0},  {1, 31, 3, 0},  {2, 7, 3, 0},  {33, 7, 1, 2},  {32, 8, 1, 2},
    {16, 0, 4, 0}, {5, 11, 4, 0},  {5, 12, 4, 0}, {15, 17, 1, 0},
};
enum { N = VKM_COUNTOF(cases) };

typedef struct result {
    float logp[LONGEST], entropy[LONGEST], pooled[WIDTH];
} result;

static vkm_policy *open_policy(vkm_dev *dev, uint32_t micro_rows) {
    const vkm_policy_limits max = {.max_prompt = LONGEST,
                                   .rollouts = 1,
                                   .prompts = 1,
                                   .ids = 1,
                                   .micro_rows = micro_rows,
                                   .n_experts = VKM_MAX_EXPERTS,
                                   .rank = RANK,
                                   .trains = 1,
                                   .seed = 9};
    vkm_policy *p = open_tiny_policy(dev, &max);
    assert_int_equal(p->adapter->n_modules * RANK, WIDTH);
    return p;
}

static void set_up(vkm_example *x, uint32_t (*tokens)[LONGEST], result *r, int pools) {
    static const float f[][VKM_MAX_EXPERTS] = {{1, 0}, {1, 0.25f}, {0, 1}};
    memset(r, 0, N * sizeof *r);
    for (uint32_t i = 0; i < N; i++) {
        uint32_t n = cases[i].prompt + cases[i].completion;
        assert_in_range(n, 1, LONGEST);
        for (uint32_t j = 0; j < n; j++)
            tokens[i][j] = j < cases[i].prompt ? (7 * j * cases[i].text) % 250 : (j + 60 * i) % 250;
        x[i] = (vkm_example){.seq = {tokens[i], n, cases[i].prompt},
                             .logp = r[i].logp,
                             .entropy = r[i].entropy,
                             .pooled = pools ? r[i].pooled : NULL};
        memcpy(x[i].f, f[cases[i].state], sizeof x[i].f);
    }
}

static void check_device(vkm_backend_id backend) {
    static result together[N], alone[N], small[N], trained[N];
    static uint32_t tokens[N][LONGEST];
    static float grads[N][WIDTH];
    vkm_example x[N];
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    if (vkm_dev_open(&(vkm_dev_options){.backend = backend}, &dev, &err)) {
        if (!strstr(err.msg, "--backend cpu, which needs none")) fail_msg("%s", err.msg);
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    vkm_policy *wide = open_policy(dev, 1024), *narrow = open_policy(dev, LONGEST);

    set_up(x, tokens, together, 1);
    if (vkm_policy_read(wide, x, N, &err)) fail_msg("%s", err.msg);
    assert_int_equal(wide->work->n_seq, N + 9); /* so many prompts, those of one token aside */

    set_up(x, tokens, alone, 1);
    for (uint32_t i = 0; i < N; i++)
        if (vkm_policy_read(wide, x + i, 1, &err)) fail_msg("%s", err.msg);
    assert_memory_equal(together, alone, sizeof together);

    set_up(x, tokens, small, 1);
    if (vkm_policy_read(narrow, x, N, &err)) fail_msg("%s", err.msg);
    assert_memory_equal(together, small, sizeof together);

    set_up(x, tokens, trained, 0);
    for (uint32_t i = 0; i < N; i++) x[i].pooled = grads[i];
    if (vkm_policy_rank_gradients(wide, x, N, &err)) fail_msg("%s", err.msg);
    for (uint32_t i = 0; i < N; i++) {
        assert_memory_equal(together[i].logp, trained[i].logp, sizeof trained[i].logp);
        assert_memory_equal(together[i].entropy, trained[i].entropy, sizeof trained[i].entropy);
        if (cases[i].completion) assert_true(together[i].logp[cases[i].completion - 1] < 0);
    }
    vkm_policy_free(wide), vkm_policy_free(narrow);
    vkm_dev_close(dev);
}

static void cpu(void **state) {
    (void)state;
    check_device(VKM_CPU);
}

static void vulkan(void **state) {
    (void)state;
    check_device(VKM_VULKAN);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cpu), cmocka_unit_test(vulkan)};
    return cmocka_run_group_tests(tests, make_tiny_model, tmpdir_remove);
}
