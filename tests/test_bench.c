/* `vkmoe bench`: every row runs; a step's phases add up, and a table compared with itself is as
 * fast. How fast is not tested here. */
#include "env_fixture.h"

#include <math.h>

#include "base/json.h"
#include "tmpdir.h"

#include "program.h"

static void every_row_is_listed_and_found(void **state) {
    (void)state;
    works(vkmoe("bench --list"));
    assert_non_null(strstr(out, "gemm/1024"));
    assert_non_null(strstr(out, "train/tiny"));
    works(vkmoe("bench rope_fwd/tiny --backend cpu --repeat 1 --min-ms 1 --json"));
    assert_non_null(strstr(out, "\"name\":\"rope_fwd/tiny\""));
    assert_non_null(strstr(out, "\"limit\":\"copy\""));
    works(vkmoe("bench tiny-0 --backend cpu --repeat 1 --min-ms 1 --json"));
    assert_non_null(strstr(out, "\"limit\":\"fma\""));
    works(vkmoe("bench norm_fwd/tiny --backend cpu --repeat 1 --min-ms 1"));
    assert_non_null(strstr(out, "furthest from its limit: "));
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row_is_listed_and_found),
                                       cmocka_unit_test(a_step_is_its_phases)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
