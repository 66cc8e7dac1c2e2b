/* Config: rows, files, presets, errors, and what a resumed run may change. */
#include "ops/lmhead.h"
#include "rl/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static vkm_config a, b;

static int in_repository(void **state) {
    (void)state;
    return chdir(VKM_SOURCE_DIR);
}

static void every_default_is_in_range_and_reads_back(void **state) {
    (void)state;
    char value[VKM_VALUE_BYTES];
    vkm_config_default(&a);
    memset(&b, 0, sizeof b);
    for (size_t i = 0; i < vkm_n_keys; i++) {
        const vkm_key *k = &vkm_keys[i];
        vkm_err err = {0};
        if (k->type == VKM_KEY_SECTION) continue;
        if (vkm_config_set(&b, k->name, vkm_config_value(&a, k, value), &err))
            fail_msg("%s", err.msg);
        assert_memory_equal((char *)&a + k->offset, (char *)&b + k->offset,
                            k->type == VKM_KEY_STRING ? strlen(value) + 1 : sizeof(int));
    }
}

static void choices_are_the_enum(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_config_default(&a);
    assert_int_equal(a.loss_type, VKM_loss_type_dr_grpo);
    assert_int_equal(vkm_config_set(&a, "loss-type", "bnpo", &err), VKM_OK);
    assert_int_equal(a.loss_type, VKM_loss_type_bnpo);
    assert_int_equal(vkm_config_set(&a, "sandbox", "unsafe-none", &err), VKM_OK);
    assert_int_equal(a.sandbox, VKM_sandbox_unsafe_none);
}

static void bad_values_say_key_value_and_range(void **state) {
    (void)state;
    static const struct {
        const char *key, *text, *message;
    } cases[] = {
        {"learning_rate", "30", "learning_rate: 30 is out of range, it must be from 0 to 10"},
        {"learning_rate", "nan", "learning_rate: nan is out of range, it must be from 0 to 10"},
        {"learning_rate", "1e-3x", "learning_rate: '1e-3x' is not a number"},
        {"num_generations", "1", "num_generations: 1 is out of range, it must be from 2 to 4096"},
        {"num_generations", "8.5", "num_generations: '8.5' is not an integer"},
        {"seed", "99999999999999999999",
         "seed: 99999999999999999999 is out of range, it must be "
         "from 0 to 9007199254740992"},
        {"loss_type", "ppo", "loss_type: unknown value 'ppo', valid are dr_grpo|grpo|dapo|bnpo"},
        {"learnin_rate", "1",
         "unknown key 'learnin_rate' (did you mean 'learning_rate'?); `vkmoe "
         "config` lists them"},
        {"zzzzzzzz", "1", "unknown key 'zzzzzzzz'; `vkmoe config` lists them"},
    };
    vkm_config_default(&a);
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_err err = {0};
        assert_int_equal(vkm_config_set(&a, cases[i].key, cases[i].text, &err), VKM_USAGE);
        assert_string_equal(err.msg, cases[i].message);
    }
    static char long_path[VKM_CONFIG_STRING_BYTES + 1];
    memset(long_path, 'x', VKM_CONFIG_STRING_BYTES);
    vkm_err err = {0};
    assert_int_equal(vkm_config_set(&a, "model", long_path, &err), VKM_USAGE);
}

static void nan_is_valid_only_where_it_means_something(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_config_default(&a);
    assert_true(isnan(a.calib_logit));
    assert_int_equal(vkm_config_set(&a, "calib_logit", "6", &err), VKM_OK);
    assert_int_equal(vkm_config_set(&a, "calib_logit", "nan", &err), VKM_OK);
    assert_true(isnan(a.calib_logit));
    assert_int_equal(vkm_config_set(&a, "calib_logit", "101", &err), VKM_USAGE);
    err = (vkm_err){0};
    assert_int_equal(vkm_config_set(&a, "epsilon_high", "-0.1", &err), VKM_USAGE);
    assert_string_equal(err.msg,
                        "epsilon_high: -0.1 is out of range, it must be nan or from 0 to 10");
}

/* Loads a config from text; the message is in err. */
static vkm_status load_text(const char *text, vkm_err *err) {
    char path[] = "/tmp/vkmoe-test-XXXXXX.json";
    int fd = mkstemps(path, 5);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    *err = (vkm_err){0};
    vkm_config_default(&a);
    vkm_status st = vkm_config_load(&a, path, err);
    unlink(path);
    return st;
}

static void files_are_strict(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"max_stepz\": 3}", "did you mean 'max_steps'?"},
        {"{\"max_steps\": 0}", "max_steps: must be from 1 to 1000000, is 0"},
        {"{\"max_steps\": \"3\"}", "max_steps: must be"},
        {"{\"beta\": null}", "beta: must be a number, is null"},
        {"{\"loss_type\": \"ppo\"}", "unknown value 'ppo', valid are dr_grpo|grpo|dapo|bnpo"},
        {"{\"beta\": 1, \"beta\": 2}", "this key occurs twice"},
        {"[]", "must be an object"},
        {"{", "1:2"},
    };
    vkm_err err;
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        assert_int_not_equal(load_text(cases[i].text, &err), VKM_OK);
        if (!strstr(err.msg, cases[i].message)) fail_msg("%s: %s", cases[i].text, err.msg);
    }
    assert_int_equal(load_text("{\"max_steps\": 3, \"calib_logit\": null}", &err), VKM_OK);
    assert_int_equal(a.max_steps, 3);
    assert_int_equal(load_text("{\"version\": \"1\", \"config\": {\"max_steps\": 4}}", &err),
                     VKM_OK);
    assert_int_equal(a.max_steps, 4);
}

static void presets_load_and_json_reads_back(void **state) {
    (void)state;
    static const char *const presets[] = {"smoke", "tiny", "tiny-warm", "qwen3-0.6b", "qwen3-4b"};
    char left[VKM_VALUE_BYTES], right[VKM_VALUE_BYTES];
    for (size_t i = 0; i < VKM_COUNTOF(presets); i++) {
        vkm_err err = {0};
        vkm_config_default(&b);
        if (vkm_config_load(&b, presets[i], &err)) fail_msg("%s", err.msg);
        vkm_strbuf text = {0};
        vkm_jw w = vkm_jw_begin(&text, 0);
        vkm_jw_obj(&w, NULL);
        vkm_config_write(&b, &w);
        vkm_jw_end_obj(&w);
        assert_int_equal(load_text(vkm_strbuf_str(&text), &err), VKM_OK);
        vkm_strbuf_free(&text);
        for (size_t k = 0; k < vkm_n_keys; k++)
            assert_string_equal(vkm_config_value(&a, &vkm_keys[k], left),
                                vkm_config_value(&b, &vkm_keys[k], right));
    }
    vkm_err err = {0};
    assert_int_equal(vkm_config_load(&a, "smoek", &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "there are: qwen3-0.6b qwen3-4b smoke tiny"));
}

static void contradictions_are_named(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_config_default(&a);
    assert_int_equal(vkm_config_check(&a, &err), VKM_USAGE);
    assert_string_equal(err.msg, "model is missing: set it in the config or by --model");
    strcpy(a.model, "m");
    strcpy(a.data, "d");
    err = (vkm_err){0};
    assert_int_equal(vkm_config_check(&a, &err), VKM_OK);
    a.teachers_per_group = a.num_generations;
    assert_int_equal(vkm_config_check(&a, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "leaves no student"));
}

/* What the rows allow is what the code behind them takes, and no more. */
static void the_table_is_the_truth(void **state) {
    (void)state;
    static const struct {
        const char *key;
        size_t field;
    } drawn[] = {{"temperature", offsetof(vkm_sampling, temperature)},
                 {"eval_temperature", offsetof(vkm_sampling, temperature)},
                 {"top_p", offsetof(vkm_sampling, top_p)},
                 {"min_p", offsetof(vkm_sampling, min_p)}};
    for (size_t i = 0; i < vkm_n_keys; i++) {
        const vkm_key *k = &vkm_keys[i];
        for (size_t j = 0; j < VKM_COUNTOF(drawn); j++) {
            if (strcmp(k->name, drawn[j].key) != 0) continue;
            for (int end = 0; end < 2; end++) {
                vkm_sampling s = {.temperature = 1, .top_p = 1};
                uint32_t words[VKM_SAMPLE_WORDS];
                vkm_err err = {0};
                memcpy((char *)&s + drawn[j].field, end ? &k->max : &k->min, sizeof(double));
                if (vkm_sampling_words(&s, 0, 0, 0, words, &err)) fail_msg("%s", err.msg);
            }
        }
        struct {
            const char *key;
            double bound, workers, memory_mib;
        } graded[] = {{"grade_memory_mib", k->min, 1, k->min - 1},
                      {"grade_memory_mib", k->max, 1, k->max + 1},
                      {"grade_workers", k->max, k->max + 1, 1024}};
        for (size_t j = 0; j < VKM_COUNTOF(graded); j++) {
            if (strcmp(k->name, graded[j].key) != 0) continue;
            vkm_grade_config g = vkm_grade_config_default();
            vkm_grader *grader = NULL;
            vkm_err err = {0};
            g.workers = (int)graded[j].workers;
            g.sandbox.memory_mib = (int)graded[j].memory_mib;
            assert_int_equal(vkm_grader_open(&g, &grader, &err), VKM_USAGE);
            char bound[32];
            snprintf(bound, sizeof bound, " %.0f", graded[j].bound); /* the refusal names it */
            if (!strstr(err.msg, bound)) fail_msg("%s: %s", k->name, err.msg);
        }
    }
}

static void products_of_keys_fit_their_counters(void **state) {
    (void)state;
    vkm_err err = {0};
    uint32_t n = 0;
    assert_int_equal(vkm_eval_rollouts(429496, 10000, &n, &err), VKM_OK);
    assert_int_equal(n, 4294960000u);
    assert_int_equal(vkm_eval_rollouts(429497, 10000, &n, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "lower it or eval_problems"));
    err = (vkm_err){0};
    assert_int_equal(vkm_eval_rollouts(SIZE_MAX, 2, &n, &err), VKM_USAGE);
    vkm_config_default(&a);
    strcpy(a.model, "m");
    strcpy(a.data, "d");
    a.num_prompts = a.num_generations = 256;
    err = (vkm_err){0};
    assert_int_equal(vkm_config_check(&a, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "are 65536 rollouts a step, at most 65535"));
    a.num_prompts = 255;
    err = (vkm_err){0};
    assert_int_equal(vkm_config_check(&a, &err), VKM_OK);
}

static void a_resumed_run_may_change_only_what_no_bit_depends_on(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_config_default(&a);
    b = a;
    b.save_steps = 3;
    b.micro_batch_tokens = 1;
    strcpy(b.resume_from_checkpoint, "latest");
    assert_int_equal(vkm_config_same_run(&a, &b, &err), VKM_OK);
    b.beta = 0.25;
    assert_int_equal(vkm_config_same_run(&a, &b, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "beta was '0.001' and is now '0.25'"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_is_in_range_and_reads_back),
        cmocka_unit_test(choices_are_the_enum),
        cmocka_unit_test(bad_values_say_key_value_and_range),
        cmocka_unit_test(nan_is_valid_only_where_it_means_something),
        cmocka_unit_test(files_are_strict),
        cmocka_unit_test(presets_load_and_json_reads_back),
        cmocka_unit_test(contradictions_are_named),
        cmocka_unit_test(the_table_is_the_truth),
        cmocka_unit_test(products_of_keys_fit_their_counters),
        cmocka_unit_test(a_resumed_run_may_change_only_what_no_bit_depends_on),
    };
    return cmocka_run_group_tests(tests, in_repository, NULL);
}
