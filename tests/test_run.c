/* What a run makes of its files before the first step. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "env/pairs.h"
#include "model/chat.h"
#include "model/init_model.h"
#include "rl/run.h"
#include "tmpdir.h"

#define QWEN3 VKM_SOURCE_DIR "/../shared/data/qwen3-tokenizer"

/* A run that is only planned, on a tiny random model with this tokenizer (NULL: the small one). */
typedef struct planned {
    vkm_dev *dev;
    vkm_plan *plan;
    vkm_run *run;
} planned;

static planned plan_run(const char *tokenizer) {
    static vkm_config c;
    const vkm_model_preset *tiny;
    planned p = {0};
    vkm_err err = {0};
    if (vkm_model_preset_find("tiny", &tiny, &err)) fail_msg("%s", err.msg);
    vkm_init_options o = {.config = tiny->config,
                          .output = in_dir("model"),
                          .tokenizer = tokenizer,
                          .seed = 3,
                          .force = true};
    vkm_config_default(&c);
    static const char *const keys[][2] = {{"data", VKM_SOURCE_DIR "/data/problems.jsonl"},
                                          {"pairs", VKM_SOURCE_DIR "/data/pairs.md"},
                                          {"max_prompt_length", "512"},
                                          {"max_completion_length", "192"},
                                          {"lora_rank", "2"}};
    for (size_t i = 0; i < VKM_COUNTOF(keys); i++)
        assert_int_equal(vkm_config_set(&c, keys[i][0], keys[i][1], &err), VKM_OK);
    assert_int_equal(vkm_config_set(&c, "model", o.output, &err), VKM_OK);
    if (vkm_init_model(&o, NULL, &err) ||
        vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 1}, &p.dev, &err))
        fail_msg("%s", err.msg);
    p.plan = vkm_plan_new(p.dev);
    if (vkm_run_open(&c, VKM_RUN_TRAINS, p.dev, p.plan, &p.run, &err)) fail_msg("%s", err.msg);
    return p;
}

static void planned_free(planned *p) {
    vkm_run_close(p->run);
    vkm_plan_free(p->plan);
    vkm_dev_close(p->dev);
}

/* The turns of a rendered prompt; cuts `text` in place. */
static size_t split_turns(char *text, vkm_chat_turn *turns, size_t max) {
    static const char start[] = "<|im_start|>", end[] = "<|im_end|>\n";
    size_t n = 0;
    for (char *at = text; n < max && strncmp(at, start, sizeof start - 1) == 0;) {
        char *role = at + sizeof start - 1, *content = strchr(role, '\n');
        char *stop = content ? strstr(content, end) : NULL;
        if (!stop) break; /* the answer that begins */
        *content = *stop = 0;
        turns[n++] = (vkm_chat_turn){role, content + 1};
        at = stop + sizeof end - 1;
    }
    return n;
}

static void check_pairs(const char *tokenizer, bool thinks) {
    planned p = plan_run(tokenizer);
    vkm_chat_style style = vkm_chat_style_of(p.run->tokenizer);
    vkm_pairs *pairs;
    vkm_ids shown = {0};
    vkm_err err = {0};
    assert_int_equal(style, thinks ? VKM_CHAT_NO_THINK : VKM_CHAT_PLAIN);
    if (vkm_pairs_load(p.run->c.pairs, &pairs, &err)) fail_msg("%s", err.msg);
    assert_int_equal(pairs->n, p.run->n_pairs);
    for (uint32_t i = 0; i < p.run->n_pairs; i++) {
        vkm_chat_turn turns[8];
        vkm_strbuf text = {0};
        vkm_ids want = {0};
        size_t n = split_turns(pairs->items[i].prompt, turns, VKM_COUNTOF(turns));
        assert_true(n >= 1);
        if (vkm_chat_render(turns, n, style, true, &text, &err) ||
            vkm_tokenizer_encode(p.run->tokenizer, text.data, text.n, &want, &err))
            fail_msg("%s", err.msg);
        for (int s = 0; s < 2; s++) {
            const vkm_ids *got = &p.run->pairs[i].side[s];
            assert_int_equal(p.run->pairs[i].comp0, want.n);
            assert_true(got->n > want.n);
            assert_memory_equal(got->id, want.id, want.n * sizeof *want.id);
        }
        free(want.id);
        vkm_strbuf_free(&text);
    }
    /* the same tokens before the answer as a rollout's prompt */
    const vkm_problem *problem = p.run->train[0];
    if (vkm_run_prompt(p.run, problem, vkm_run_mode(p.run, problem), &shown, &err))
        fail_msg("%s", err.msg);
    size_t tail = thinks ? 6 : 2; /* assistant and a line end, and an empty think block */
    const vkm_pair_ids *first = &p.run->pairs[0];
    assert_memory_equal(shown.id + shown.n - tail, first->side[0].id + first->comp0 - tail,
                        tail * sizeof *shown.id);
    free(shown.id);
    vkm_pairs_free(pairs);
    planned_free(&p);
}

static void pairs_are_shown_as_rollouts_are(void **state) {
    (void)state;
    check_pairs(NULL, false);
}

static void pairs_of_qwen3_end_in_an_empty_think_block(void **state) {
    (void)state;
    if (!vkm_dir_exists(QWEN3)) {
        print_message("SKIP: %s is not there\n", QWEN3);
        skip();
    }
    check_pairs(QWEN3, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_are_shown_as_rollouts_are),
        cmocka_unit_test(pairs_of_qwen3_end_in_an_empty_think_block),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
