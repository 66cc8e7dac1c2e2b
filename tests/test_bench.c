/* `vkmoe bench`: every row runs; a step's phases add up, and a table compared with itself is as
 * fast. How fast is not tested here. */
#include "env_fixture.h"

#include <math.h>

#include "base/json.h"
#include "ops/kernels.h"
#include "tmpdir.h"

#include "program.h"

/* A kernel's rows are named by it, perhaps with a suffix, and a preset. */
static void every_kernel_has_a_row(void **state) {
    (void)state;
    works(vkmoe("bench --list"));
    for (size_t i = 0; i < VKM_N_KERNELS; i++) {
        const char *name = vkm_kernels[i].name;
        size_t n = strlen(name);
        const char *at = out;
        while (at && !(strncmp(at, name, n) == 0 && strchr("-/\n", at[n])))
            at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL;
        if (!at) fail_msg("no row of kernel '%s'", name);
    }
    assert_non_null(strstr(out, "gemm/1024"));
    assert_non_null(strstr(out, "train/tiny"));
    assert_null(strstr(out, "qwen3-4b"));
}

/* At the smallest shapes every row runs and says how far it is from a limit. */
static void every_row_runs(void **state) {
    (void)state;
    works(
        vkmoe("bench /tiny-llama --preset tiny-llama --backend cpu --repeat 1 --min-ms 0 --json"));
    size_t rows = 0;
    for (const char *at = out; (at = strchr(at, '\n')); at++) rows++;
    assert_true(rows >= 58);
    assert_null(strstr(out, "\"limit\":\"-\""));
    assert_non_null(strstr(out, "\"limit\":\"launch\""));
}

static void rows_are_chosen_by_name_and_preset(void **state) {
    (void)state;
    works(vkmoe("bench qk_fwd --backend cpu --repeat 1 --min-ms 1 --json"));
    assert_non_null(strstr(out, "\"name\":\"qk_fwd/mini\""));
    assert_non_null(strstr(out, "\"name\":\"qk_fwd/qwen3-0.6b\""));
    assert_non_null(strstr(out, "\"limit\":\"copy\""));
    works(vkmoe("bench linear-gate-base/mini --backend cpu --repeat 1 --min-ms 1 --json"));
    assert_non_null(strstr(out, "\"limit\":\"fma\""));
    assert_non_null(strstr(out, "m 6144, n 256, k 128, kpa2 0, kper 8, n_experts 0"));
    works(vkmoe("bench norm_bwd/mini --backend cpu --repeat 1 --min-ms 1"));
    assert_non_null(strstr(out, "furthest from its limit: "));
    works(vkmoe("bench --list --preset qwen3-4b"));
    assert_non_null(strstr(out, "linear-gate/qwen3-4b"));
    assert_null(strstr(out, "mini"));
    fails_with(vkmoe("bench --preset qwen3-5b --list"), 2, "unknown preset 'qwen3-5b'");
    fails_with(vkmoe("bench gem --backend cpu --list nonsense"), 2, "nonsense");
    fails_with(vkmoe("bench nonsense --backend cpu"), 2, "no row's name contains 'nonsense'");
}

typedef struct sums {
    double phases, step;
    int n;
} sums;

static vkm_status see(vkm_jv line, void *ctx, vkm_err *err) {
    sums *s = ctx;
    const char *name;
    double seconds;
    if (vkm_json_get_str(line, "name", VKM_JSON_REQ, &name, err) ||
        vkm_json_get_double(line, "seconds", VKM_JSON_REQ, 0, 1e6, &seconds, err))
        return err->status;
    s->n++;
    if (!strcmp(name, "step"))
        s->step = seconds;
    else if (!strncmp(name, "step/", 5))
        s->phases += seconds;
    return VKM_OK;
}

static void a_step_is_its_phases(void **state) {
    (void)state;
    static const char step[] =
        "bench step " VKM_SOURCE_DIR "/configs/tiny.json --model " VKM_SOURCE_DIR
        "/data/tiny/warm1 --data " VKM_SOURCE_DIR
        "/data/tiny/problems_valid.jsonl.gz --eval_data= --partition= --pairs " VKM_SOURCE_DIR
        "/data/tiny/pairs.md#self-test --backend cpu --steps 1 --num_prompts 4 --num_generations 4 "
        "%s";
    vkm_err err = {0};
    sums s = {0};
    vkm_grade_config config = vkm_grade_config_default();
    vkm_grader_close(open_grader(&config));
    works(vkmoe(step, "--json"));
    put_file("before.jsonl", out, strlen(out));
    if (vkm_jsonl_each(in_dir("before.jsonl"), NULL, see, &s, &err)) fail_msg("%s", err.msg);
    assert_int_equal(s.n, 12);
    assert_true(s.step > 0 && fabs(s.phases - s.step) <= 1e-6 * s.step);
    char compare[VKM_PATH_MAX];
    snprintf(compare, sizeof compare, "--compare '%s'", in_dir("before.jsonl"));
    works(vkmoe(step, compare));
    assert_non_null(strstr(out, "step/backward"));
    assert_non_null(strstr(out, "as fast, in units of gemm/1024"));
    put_file("before.jsonl", "{\"name\": 3}\n", 12);
    fails_with(vkmoe(step, compare), 1, "name: must be a string");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_kernel_has_a_row),
                                       cmocka_unit_test(every_row_runs),
                                       cmocka_unit_test(rows_are_chosen_by_name_and_preset),
                                       cmocka_unit_test(a_step_is_its_phases)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
