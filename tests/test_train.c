/* Whole runs on the CPU reference: a resumed run equals the uninterrupted one bit for bit, also
 * after kill -9; errors that name what is wrong. Needs bubblewrap, as grading does. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <math.h>

#include "base/json.h"
#include "base/phase.h"

#include "model/init_model.h"
#include "rl/checkpoint.h"
#include "rl/train.h"
#include "tmpdir.h"

enum { STEPS = 4 };

static void config(vkm_config *c, const char *run) {
    vkm_err err = {0};
    static const char *const keys[][2] = {{"data", VKM_SOURCE_DIR "/data/problems.jsonl"},
                                          {"pairs", VKM_SOURCE_DIR "/data/pairs.md"},
                                          {"teacher_pool", "canonical"},
                                          {"max_steps", "4"},
                                          {"num_prompts", "2"},
                                          {"num_generations", "2"},
                                          {"max_prompt_length", "512"},
                                          {"max_completion_length", "192"},
                                          {"teacher_steps", "4"},
                                          {"teachers_per_group", "1"},
                                          {"unhackable_frac", "0"},
                                          {"learning_rate", "1e-3"},
                                          {"warmup_steps", "0"},
                                          {"lora_rank", "2"},
                                          {"refresh_every", "3"},
                                          {"save_steps", "2"},
                                          {"grade_workers", "2"}};
    vkm_config_default(c);
    for (size_t i = 0; i < VKM_COUNTOF(keys); i++)
        assert_int_equal(vkm_config_set(c, keys[i][0], keys[i][1], &err), VKM_OK);
    assert_int_equal(vkm_config_set(c, "model", in_dir("model"), &err), VKM_OK);
    assert_int_equal(vkm_config_set(c, "output_dir", in_dir(run), &err), VKM_OK);
}

static vkm_dev *open_cpu(void) {
    vkm_dev *dev = NULL;
    vkm_err err = {0};
    assert_int_equal(vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU}, &dev, &err), VKM_OK);
    return dev;
}

static void train(const vkm_config *c) {
    vkm_train_summary sum;
    vkm_err err = {0};
    vkm_dev *dev = open_cpu();
    if (vkm_train(c, dev, &sum, &err)) fail_msg("%s", err.msg);
    vkm_dev_close(dev);
}

/* The weights_hash lines of steps.jsonl. */
static void hashes(const char *run, char out[STEPS][33]) {
    char path[VKM_PATH_MAX], *text;
    size_t n;
    vkm_err err = {0};
    snprintf(path, sizeof path, "%s/steps.jsonl", in_dir(run));
    if (vkm_file_read(path, 1 << 20, &text, &n, &err)) fail_msg("%s", err.msg);
    const char *at = text;
    for (int i = 0; i < STEPS; i++) {
        at = strstr(at, "\"weights_hash\"");
        assert_non_null(at);
        at = strchr(at + 14, '"') + 1;
        snprintf(out[i], 33, "%.32s", at);
    }
    assert_null(strstr(at, "\"weights_hash\""));
    free(text);
}

static char straight[STEPS][33];

static int make_straight(void **state) {
    const vkm_model_preset *tiny;
    static vkm_config c;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    if (vkm_init_model(&o, NULL, &err)) return -1;
    config(&c, "straight");
    train(&c);
    hashes("straight", straight);
    for (int i = 1; i < STEPS; i++)
        if (!strcmp(straight[i], straight[i - 1])) return -1; /* every step must learn */
    return 0;
}

static void expect_straight(const char *run) {
    char got[STEPS][33];
    hashes(run, got);
    for (int i = 0; i < STEPS; i++) assert_string_equal(got[i], straight[i]);
}

static void resumed_equals_straight(void **state) {
    (void)state;
    static vkm_config c;
    config(&c, "stopped");
    c.stop_at_step = 2;
    train(&c);
    c.stop_at_step = 0;
    strcpy(c.resume_from_checkpoint, "latest");
    train(&c);
    expect_straight("stopped");
}

static void killed_equals_straight(void **state) {
    (void)state;
    static vkm_config c;
    config(&c, "killed");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl(VKM_BINARY_DIR "/vkmoe", "vkmoe", "train", in_dir("killed.json"), "--backend", "cpu",
              "--quiet", "--save_steps", "1", NULL);
        _exit(127);
    }
    int status;
    for (int i = 0; i < 6000; i++) { /* until the second checkpoint is there, or the end */
        char path[VKM_PATH_MAX];
        snprintf(path, sizeof path, "%s/checkpoints/step-000002/manifest.json", in_dir("killed"));
        if (vkm_file_exists(path) || waitpid(child, &status, WNOHANG) == child) break;
        usleep(10000);
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    strcpy(c.resume_from_checkpoint, "latest");
    c.save_steps = 1;
    train(&c);
    expect_straight("killed");
}

static int write_killed_config(void **state) {
    (void)state;
    static vkm_config c;
    vkm_err err = {0};
    vkm_strbuf text = {0};
    config(&c, "killed");
    vkm_jw w = vkm_jw_begin(&text, 1);
    vkm_jw_obj(&w, NULL);
    vkm_config_write(&c, &w);
    vkm_jw_end_obj(&w);
    int failed = vkm_file_save(in_dir("killed.json"), text.data, text.n, &err);
    vkm_strbuf_free(&text);
    return failed ? -1 : 0;
}

/* Two rollouts of the newest checkpoint's adapter; their log-probabilities. */
static uint32_t sample_of(const vkm_config *c, vkm_run_purpose purpose, vkm_dev *dev, float *logp) {
    vkm_run *r = NULL;
    vkm_rollout x[2];
    vkm_ids prompt = {0};
    vkm_err err = {0};
    char checkpoint[VKM_PATH_MAX];
    uint32_t n = 0;
    const vkm_draw how = {.temperature = 1, .draw = VKM_DRAW_EVAL};
    if (vkm_run_open(c, purpose, dev, NULL, &r, &err) || vkm_ckpt_find(c, checkpoint, &err) ||
        vkm_run_restore(r, checkpoint, &err) ||
        vkm_run_prompt(r, r->sets[0].problem[0], vkm_mode_gt_only(), &prompt, &err))
        fail_msg("%s", err.msg);
    for (uint32_t i = 0; i < 2; i++)
        x[i] = (vkm_rollout){.problem = r->sets[0].problem[0],
                             .mode = vkm_mode_gt_only(),
                             .id = i,
                             .state = {1, i ? 0.0f : 1.0f},
                             .prompt = &prompt};
    if (vkm_run_sample(r, x, 2, &how, &err)) fail_msg("%s", err.msg);
    for (uint32_t i = 0; i < 2; i++)
        for (size_t j = 0; j < x[i].ids.n - prompt.n; j++) logp[n++] = x[i].logp[j];
    vkm_rollouts_clear(x, 2);
    free(prompt.id);
    vkm_run_close(r);
    return n;
}

/* `vkmoe eval` has no memory for training, and the bits of the run's own evaluation. */
static char *text_of(const char *folder, const char *name) {
    char path[VKM_PATH_MAX], *text = NULL;
    size_t n;
    vkm_err err = {0};
    if (vkm_path_join(path, folder, name, &err) || vkm_file_read(path, 1 << 20, &text, &n, &err))
        fail_msg("%s", err.msg);
    return text;
}

/* A line of steps.jsonl: its phases add up to the step, and what surely takes time does. */
static void check_phases(const char *line) {
    static const char *const busy[] = {"decode", "forward", "backward", "update"};
    vkm_json *doc;
    vkm_err err = {0};
    double step, seconds, sum = 0;
    char key[64];
    if (vkm_json_parse(line, strcspn(line, "\n"), "steps", NULL, &doc, &err))
        fail_msg("%s", err.msg);
    vkm_jv root = vkm_json_root(doc);
    for (int i = 0; i < VKM_N_PHASES; i++, sum += seconds) {
        snprintf(key, sizeof key, "time/%s", vkm_phases[i].name);
        if (vkm_json_get_double(root, key, VKM_JSON_REQ, 0, 1e9, &seconds, &err))
            fail_msg("%s", err.msg);
        for (size_t j = 0; j < VKM_COUNTOF(busy); j++)
            assert_true(seconds > 0 || strcmp(busy[j], vkm_phases[i].name) != 0);
    }
    if (vkm_json_get_double(root, "step_time", VKM_JSON_REQ, 0, 1e9, &step, &err))
        fail_msg("%s", err.msg);
    assert_true(fabs(sum - step) <= 1e-9 * step);
    vkm_json_free(doc);
}

static void an_evaluation_needs_no_training_memory(void **state) {
    (void)state;
    static vkm_config c;
    vkm_train_summary sum;
    vkm_err err = {0};
    uint64_t bytes[2];
    vkm_dev *dev = open_cpu();
    config(&c, "evaluated");
    c.max_steps = 1;
    c.beta = 0; /* and a step without the base model logs no kl */
    c.eval_problems = 3;
    c.samples_per_problem = 2;
    c.random_off_draws = 1;
    if (vkm_train(&c, dev, &sum, &err)) fail_msg("%s", err.msg);
    strcpy(c.resume_from_checkpoint, "latest");
    FILE *table = tmpfile();
    assert_non_null(table);
    if (vkm_eval_run(&c, dev, table, &err)) fail_msg("%s", err.msg);
    assert_true(ftell(table) > 100);
    (void)fclose(table);
    /* the same line but for the seconds */
    char *inside = text_of(c.output_dir, "eval.jsonl"),
         *after = text_of(c.output_dir, "evals/step-000001.json");
    assert_non_null(strstr(inside, "\"base\": {\"n\": 6"));
    assert_string_equal(strstr(inside, "\"sets\""), strstr(after, "\"sets\""));
    free(inside), free(after);
    static float logp[2][2 * 192];
    uint32_t n_logp = sample_of(&c, VKM_RUN_TRAINS, dev, logp[0]);
    assert_true(n_logp > 2);
    assert_int_equal(sample_of(&c, VKM_RUN_EVALUATES, dev, logp[1]), n_logp);
    assert_memory_equal(logp[0], logp[1], n_logp * sizeof *logp[0]);
    for (int purpose = VKM_RUN_TRAINS; purpose <= VKM_RUN_EVALUATES; purpose++) {
        vkm_plan *plan = vkm_plan_new(dev);
        vkm_run *r = NULL;
        if (vkm_run_open(&c, (vkm_run_purpose)purpose, dev, plan, &r, &err))
            fail_msg("%s", err.msg);
        bytes[purpose] = vkm_plan_bytes(plan);
        vkm_run_close(r);
        vkm_plan_free(plan);
    }
    assert_true(bytes[VKM_RUN_EVALUATES] < bytes[VKM_RUN_TRAINS] / 4);
    vkm_dev_close(dev);
    char path[VKM_PATH_MAX], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/steps.jsonl", in_dir("evaluated"));
    if (vkm_file_read(path, 1 << 20, &text, &n, &err)) fail_msg("%s", err.msg);
    assert_non_null(strstr(text, "\"kl\": null"));
    assert_non_null(strstr(text, "\"updated\": 1"));
    check_phases(text);
    free(text);
}

static void expect_error(vkm_config *c, const char *part) {
    vkm_train_summary sum;
    vkm_err err = {0};
    vkm_dev *dev = open_cpu();
    assert_int_not_equal(vkm_train(c, dev, &sum, &err), VKM_OK);
    if (!strstr(err.msg, part)) fail_msg("'%s' does not say '%s'", err.msg, part);
    vkm_dev_close(dev);
}

static void errors_name_the_mend(void **state) {
    (void)state;
    static vkm_config c;
    config(&c, "straight");
    expect_error(&c, "straight"); /* the run folder exists */
    config(&c, "new");
    strcpy(c.arm, "mow");
    expect_error(&c, "none, none-r, absorb, moe, moe_detach, ");
    config(&c, "new");
    strcpy(c.modes, "run_test");
    expect_error(&c, "gt_only");
    config(&c, "new");
    strcpy(c.model, in_dir("nowhere"));
    expect_error(&c, "nowhere");
    config(&c, "new");
    c.max_prompt_length = 20;
    expect_error(&c, "max_prompt_length");
    config(&c, "straight");
    strcpy(c.resume_from_checkpoint, "latest");
    c.learning_rate = 2e-3;
    expect_error(&c, "learning_rate");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_equals_straight),
        cmocka_unit_test_setup(killed_equals_straight, write_killed_config),
        cmocka_unit_test(an_evaluation_needs_no_training_memory),
        cmocka_unit_test(errors_name_the_mend),
    };
    return cmocka_run_group_tests(tests, make_straight, tmpdir_remove);
}
