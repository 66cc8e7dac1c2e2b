/* `vkmoe sweep` as a user runs it: two arms on a tiny random model, the table, what is not run
 * again, a sweep that is cut, and one that would mix results. Needs a sandbox, as grading does. */
#include "env_fixture.h"

#include <sys/wait.h>

#include "base/json.h"
#include "model/init_model.h"
#include "tmpdir.h"

static char printed[1 << 16];

#define COMMON                                                                                     \
    "--backend cpu --model '%s' --data data/problems.jsonl --eval_problems 4 "                     \
    "--samples_per_problem 1 "                                                                     \
    "--num_prompts 2 --num_generations 2 --max_prompt_length 512 --max_completion_length 192 "     \
    "--teacher_pool canonical --teacher_steps 3 --teachers_per_group 1 --max_steps 3 "             \
    "--save_steps 1 "                                                                              \
    "--random_off_draws 1 --grade_workers 1 --output_dir '%s' "

/* Runs vkmoe in the repository; what it printed on both streams is in `printed`. */
static int vkmoe(const char *command, const char *arguments, const char *sweep) {
    char line[4096], common[2048];
    snprintf(common, sizeof common, COMMON, in_dir("model"), in_dir(sweep));
    snprintf(line, sizeof line, "cd '%s' && exec '%s/vkmoe' %s %s %s 2>&1 </dev/null",
             VKM_SOURCE_DIR, VKM_BINARY_DIR, command, common, arguments);
    FILE *f = popen(line, "r"); // NOLINT: the arguments are this file's
    assert_non_null(f);
    size_t n = fread(printed, 1, sizeof printed - 1, f);
    printed[n] = 0;
    int rc = pclose(f);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128 + WTERMSIG(rc);
}

/* `vkmoe table` of runs of the sweep "whole", with an option and the file behind it. */
static void table_of(const char *const *runs, size_t n, const char *option, const char *file) {
    char line[8192];
    size_t at = (size_t)snprintf(line, sizeof line, "'%s/vkmoe' table ", VKM_BINARY_DIR);
    at += (size_t)snprintf(line + at, sizeof line - at, "%s %s", option, file);
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(line + at, sizeof line - at, " '%s/%s'", in_dir("whole"), runs[i]);
    FILE *f = popen(line, "r"); // NOLINT: the arguments are this file's
    assert_non_null(f);
    printed[fread(printed, 1, sizeof printed - 1, f)] = 0;
    assert_int_equal(pclose(f), 0);
}

static void shows(const char *what) {
    if (!strstr(printed, what)) fail_msg("'%s' is not in:\n%s", what, printed);
}

static int make_model(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    return vkm_init_model(&o, NULL, &err) ? -1 : 0;
}

static char *text_of(const char *name) {
    char *text = NULL;
    size_t n;
    vkm_err err = {0};
    if (vkm_file_read(in_dir(name), 1 << 24, &text, &n, &err)) fail_msg("%s", err.msg);
    return text;
}

/* The last weights_hash of a run. */
static void hash_of(const char *run, char out[40]) {
    char name[256];
    snprintf(name, sizeof name, "%s/steps.jsonl", run);
    char *text = text_of(name), *at = text, *last = NULL;
    while ((at = strstr(at, "\"weights_hash\": \""))) last = at += 17;
    assert_non_null(last);
    snprintf(out, 40, "%.32s", last);
    free(text);
}

static void a_sweep_makes_the_table(void **state) {
    (void)state;
    const char *arms = "--arms absorb,oracle:learning_rate=1e-3 --seeds 1..2 --jobs 2";
    if (vkmoe("sweep", arms, "whole")) fail_msg("%s", printed);
    shows("4 runs, 0 finished before, 2 at a time");
    shows("[4/4] ");
    shows("absorb               2");
    shows("oracle:learning_rate=1e-3     2");
    char *json = text_of("whole/sweep.json"), *md = text_of("whole/table.md");
    assert_non_null(strstr(json, "\"arm\": \"oracle:learning_rate=1e-3\""));
    assert_non_null(strstr(md, "### Differences from absorb"));
    assert_true(vkm_file_exists(in_dir("whole/report.html")));
    assert_true(vkm_file_exists(in_dir("whole/verdicts")));
    /* `vkmoe table` of the same folders is the same table */
    static const char *const runs[] = {"absorb-s1", "oracle_learning_rate=1e-3-s1", "absorb-s2",
                                       "oracle_learning_rate=1e-3-s2"};
    table_of(runs, VKM_COUNTOF(runs), "--json", "");
    assert_string_equal(printed, json);
    table_of(runs, VKM_COUNTOF(runs), "--markdown", "");
    assert_string_equal(printed, md);
    table_of(runs, 3, "--recorded", in_dir("whole/sweep.json"));
    shows("oracle:learning_rate=1e-3     1");
    shows("  recorded           2");
    free(json), free(md);
    /* nothing is run again; more seeds join what is there */
    if (vkmoe("sweep", arms, "whole")) fail_msg("%s", printed);
    shows("4 runs, 4 finished before");
    if (vkmoe("sweep", "--arms absorb --seeds 1..3 --full --full_rollouts 4", "whole"))
        fail_msg("%s", printed);
    assert_true(vkm_file_exists(in_dir("whole/absorb-s3/evals/step-000003.json")));
    assert_true(vkm_file_exists(in_dir("whole/absorb-s1/evals/step-000003-rollouts.jsonl")));
    shows("base ");
    /* a run of the sweep is the run that `vkmoe train` makes, one rollout at a time too */
    char in_sweep[40], alone[40];
    if (vkmoe("train", "--arm absorb --seed 1 --max_num_seqs 1", "alone")) fail_msg("%s", printed);
    hash_of("whole/absorb-s1", in_sweep);
    hash_of("alone", alone);
    assert_string_equal(in_sweep, alone);
    hash_of("whole/absorb-s2", alone);
    assert_string_not_equal(in_sweep, alone);
}

static void another_config_is_not_mixed_in(void **state) {
    (void)state;
    assert_int_equal(vkmoe("sweep", "--arms absorb --seeds 1 --learning_rate 0.5", "whole"), 2);
    shows("absorb-s1: the checkpoint is of another config: learning_rate was");
}

static void bad_lists_are_told(void **state) {
    (void)state;
    static const struct {
        const char *arguments, *message;
    } rows[] = {
        {"--seeds 1", "--arms is missing"},
        {"--arms nonesuch", "arm: there is no 'nonesuch'"},
        {"--arms absorb:adam", "'adam' in 'absorb:adam' is not KEY=VALUE"},
        {"--arms absorb:adam_x=1", "unknown key 'adam_x'"},
        {"--arms absorb,absorb", "'absorb' is named twice"},
        {"--arms absorb --seeds 3..1", "seeds: '3..1' is not a range"},
        {"--arms absorb --seeds 1,1", "seeds: 1 is named twice"},
        {"--arms absorb --seeds x", "seeds: "},
        {"--arms absorb --seeds 1..3 --models a,b", "3 seeds are no equal shares of 2 models"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        assert_int_equal(vkmoe("sweep", rows[i].arguments, "bad"), 2);
        shows(rows[i].message);
    }
}

static void a_run_that_fails_is_told(void **state) {
    (void)state;
    assert_int_equal(vkmoe("sweep", "--arms absorb --model nowhere", "failed"), 1);
    shows("absorb-s1 failed (exit");
    shows("nowhere");
    shows("1 of 1 runs failed");
}

/* A sweep that is stopped goes on where it stopped, to the same bits. */
static void a_cut_sweep_goes_on(void **state) {
    (void)state;
    char line[4096], common[2048], cut[40], whole[40];
    snprintf(common, sizeof common, COMMON, in_dir("model"), in_dir("cut"));
    snprintf(
        line, sizeof line,
        "cd '%s' && ('%s/vkmoe' sweep %s --arms absorb --seeds 1 >'%s' 2>&1 </dev/null & p=$!; "
        "while ! grep -q '\"step\": 1' '%s/absorb-s1/steps.jsonl' 2>/dev/null; do sleep 0.02; "
        "done; kill -INT $p; wait $p)",
        VKM_SOURCE_DIR, VKM_BINARY_DIR, common, in_dir("cut.log"), in_dir("cut"));
    int rc = system(line); // NOLINT: the arguments are this file's
    assert_true(WIFEXITED(rc));
    if (vkmoe("sweep", "--arms absorb --seeds 1", "cut")) fail_msg("%s", printed);
    shows("[1/1] absorb");
    hash_of("cut/absorb-s1", cut);
    hash_of("whole/absorb-s1", whole);
    assert_string_equal(cut, whole);
}

int main(void) {
    vkm_grade_config config = vkm_grade_config_default();
    vkm_grader *g = try_grader(&config);
    if (!g) return 0;
    vkm_grader_close(g);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sweep_makes_the_table), cmocka_unit_test(another_config_is_not_mixed_in),
        cmocka_unit_test(bad_lists_are_told),      cmocka_unit_test(a_run_that_fails_is_told),
        cmocka_unit_test(a_cut_sweep_goes_on),
    };
    return cmocka_run_group_tests(tests, make_model, tmpdir_remove);
}
