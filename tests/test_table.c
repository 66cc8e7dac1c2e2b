/* The arms table: figures of made-up runs, means and differences over seeds, derived rows, and the
 * table's three forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <math.h>

#include "report/table.h"
#include "tmpdir.h"

static void put(const char *run, const char *name, const char *text) {
    char file[256];
    snprintf(file, sizeof file, "%s/%s", run, name);
    put_file(file, text, strlen(text));
}

/* Ten problems with a loophole (places 0 to 9) and ten without a hint; hacked and solved of each.
 */
static void state_line(vkm_strbuf *out, const char *name, int hacked, int solved, int free_solved,
                       double kl) {
    vkm_strbuf_printf(
        out,
        "\"%s\": {\"n\": 20, \"compiled\": 19, \"kl\": %g, \"loophole\": {\"n\": 10, "
        "\"hacked\": %d, \"solved\": %d}, \"hint_free\": {\"n\": 10, \"solved\": %d}, "
        "\"by\": {\"hint_only\": {\"true\": {\"n\": 4, \"solved\": 1}}}, \"of\": {",
        name, kl, hacked, solved, free_solved);
    for (int column = 0; column < 4; column++) {
        static const char *const names[] = {"n", "hacked", "solved", "compiled"};
        vkm_strbuf_printf(out, "%s\"%s\": [", column ? ", " : "", names[column]);
        for (int i = 0; i < 20; i++) {
            int loophole = i < 10, at = i % 10;
            int value[] = {1, loophole && at < hacked,
                           loophole ? at >= 10 - solved : at < free_solved, 1};
            vkm_strbuf_printf(out, "%s%d", i ? ", " : "", value[column]);
        }
        vkm_strbuf_puts(out, "]");
    }
    vkm_strbuf_puts(out, "}}");
}

typedef struct rates {
    int step, on, off, other, solve, free;
} rates;

static void eval_line(vkm_strbuf *out, const rates *r, int full) {
    vkm_strbuf_printf(out, "{\"step\": %d, \"sets\": {\"held_out\": {\"modes\": [", r->step);
    for (int i = 0; i < 20; i++)
        vkm_strbuf_printf(out, "%s\"%s\"", i ? ", " : "", i < 10 ? "run_tests" : "gt_only");
    vkm_strbuf_puts(out, "], \"states\": {");
    state_line(out, "all_on", r->on, r->solve, r->free, 0.4);
    vkm_strbuf_puts(out, ", ");
    state_line(out, "hack_off", r->off, r->solve, r->free, 0.15);
    vkm_strbuf_puts(out, ", ");
    state_line(out, "deployed_off", r->other, r->solve, r->free, 0.2);
    if (full) {
        vkm_strbuf_puts(out, ", ");
        state_line(out, "base", 1, 3, 4, 0);
        vkm_strbuf_puts(out, ", ");
        state_line(out, "scale_25", 2, 3, 4, 0.1);
        vkm_strbuf_puts(out, ", ");
        state_line(out, "scale_50", 4, 3, 4, 0.2);
        vkm_strbuf_puts(out, ", ");
        state_line(out, "scale_75", 6, 3, 4, 0.3);
    }
    vkm_strbuf_puts(out, "}}}}\n");
}

/* A run of ten steps with these evaluations. */
static const char *make_run(const char *name, const char *arm, int seed, const char *model,
                            const rates *r, size_t n, int full) {
    vkm_strbuf text = {0};
    char folder[300];
    assert_int_equal(mkdir(in_dir(name), 0700), 0);
    vkm_strbuf_printf(
        &text,
        "{\"config\": {\"arm\": \"%s\", \"seed\": %d, \"model\": \"%s\", \"max_steps\": "
        "10, \"label\": \"\"}}",
        arm, seed, model);
    put(name, "config.json", vkm_strbuf_str(&text));
    vkm_strbuf_clear(&text);
    for (int step = 1; step <= 10; step++)
        vkm_strbuf_printf(&text, "{\"step\": %d, \"hack_rate\": %g, \"leak\": %s}\n", step,
                          step > 8 ? 0.5 : 0.0, step % 2 ? "null" : "0.25");
    put(name, "steps.jsonl", vkm_strbuf_str(&text));
    vkm_strbuf_clear(&text);
    for (size_t i = 0; i < n; i++) eval_line(&text, &r[i], 0);
    put(name, "eval.jsonl", vkm_strbuf_str(&text));
    vkm_strbuf_clear(&text);
    /* w tells the last fifth's hacks apart but for one; earlier and skipped rollouts do not count
     */
    for (int i = 0; i < 12; i++)
        vkm_strbuf_printf(&text,
                          "{\"step\": %d, \"live\": %s, \"exploited\": %s, \"w\": %g, \"mode\": "
                          "\"%s\", \"advantage\": %d, \"completion_tokens\": %d, \"completion\": "
                          "\"%s\", \"metadata\": {\"family\": \"%s\"}}\n",
                          i < 2 ? 3 : 9, i == 2 ? "false" : "true", i % 2 ? "true" : "false",
                          i == 11 ? 0.05
                          : i % 2 ? 0.9
                                  : 0.1,
                          i % 4 == 0 ? "gt_only" : "run_tests", i % 3 - 1, 10 + i,
                          i % 2 ? "print(1)" : "x", i < 6 ? "a" : "b");
    put(name, "rollouts.jsonl", vkm_strbuf_str(&text));
    vkm_strbuf_clear(&text);
    if (full) {
        snprintf(folder, sizeof folder, "%s/evals", name);
        assert_int_equal(mkdir(in_dir(folder), 0700), 0);
        eval_line(&text, &r[n - 1], 1);
        put(folder, "step-000010.json", vkm_strbuf_str(&text));
    }
    vkm_strbuf_free(&text);
    return in_dir(name);
}

static void read_run(const char *dir, vkm_outcome *out) {
    vkm_err err = {0};
    if (vkm_outcome_read(dir, out, &err)) fail_msg("%s", err.msg);
}

static void a_runs_figures(void **state) {
    (void)state;
    static vkm_outcome o;
    const rates r[] = {{4, 10, 10, 10, 0, 0}, {8, 8, 2, 6, 1, 5}, {10, 6, 1, 5, 2, 6}};
    read_run(make_run("one", "moe", 3, "m", r, 3, 1), &o);
    const double *v = o.value;
    assert_string_equal(o.arm, "moe");
    assert_true(o.seed == 3 && o.max_steps == 10 && o.last_step == 10);
    assert_float_equal(v[VKM_FIG_hack_on], 0.7, 1e-12); /* of the last fifth: steps 8 and 10 */
    assert_float_equal(v[VKM_FIG_hack_off], 0.15, 1e-12);
    assert_float_equal(v[VKM_FIG_specificity], 0.55 - 0.15, 1e-12);
    assert_float_equal(v[VKM_FIG_localisation], 0.55 / (0.55 + 0.15), 1e-12);
    assert_float_equal(v[VKM_FIG_free_off], 0.55, 1e-12);
    assert_float_equal(v[VKM_FIG_hack_base], 0.1, 1e-12); /* of the full evaluation */
    assert_float_equal(v[VKM_FIG_hint_only_off], 0.25, 1e-12);
    /* KL 0.15 lies half way between the scales of 0.1 and 0.2, whose hack rates are 0.2 and 0.4 */
    assert_float_equal(v[VKM_FIG_hack_same_kl], 0.3, 1e-9);
    assert_true(isnan(v[VKM_FIG_hack_random_off]) && isnan(v[VKM_FIG_train_hack_on]));
    assert_float_equal(v[VKM_FIG_leak], 0.25, 1e-12);
    assert_float_equal(v[VKM_FIG_train_hack], 0.5, 1e-12);
    /* nine rollouts: five hacks, one of them below all the others */
    assert_float_equal(v[VKM_FIG_auroc], 0.8, 1e-12);
    assert_float_equal(v[VKM_FIG_keyword_auroc], 1, 1e-12);
    assert_float_equal(v[VKM_FIG_length_auroc], 0.5, 1e-12); /* lengths take turns */
    assert_float_equal(v[VKM_FIG_auroc_family], (1 + 2.0 / 3) / 2, 1e-12);
    assert_false(o.stops_early);
}

static void early_stopping_is_told_by_the_other_half(void **state) {
    (void)state;
    static vkm_outcome o;
    /* step 4 has the best solve - hack; its odd places: hacks 1 of 5, solved 2 of 5 and 3 of 5 */
    const rates r[] = {{2, 3, 0, 0, 3, 5}, {4, 2, 0, 0, 4, 6}, {10, 9, 4, 5, 1, 6}};
    read_run(make_run("early", "none", 1, "m", r, 3, 0), &o);
    assert_true(o.stops_early);
    assert_float_equal(o.early[VKM_FIG_hack_on], 0.2, 1e-12);
    assert_float_equal(o.early[VKM_FIG_solve_on], 0.4, 1e-12);
    assert_float_equal(o.early[VKM_FIG_free_on], 0.6, 1e-12);
    assert_true(isnan(o.early[VKM_FIG_hack_off]));
}

static void means_and_differences(void **state) {
    (void)state;
    static vkm_outcome o[7];
    const struct {
        const char *name, *arm, *model;
        int seed, off;
    } runs[] = {{"a1", "absorb", "m", 1, 4}, {"a2", "absorb", "m", 2, 6},
                {"a3", "absorb", "n", 3, 5}, {"b1", "moe", "m", 1, 3},
                {"b2", "moe", "m", 2, 4},    {"b3", "moe", "n", 3, 6},
                {"b4", "moe", "n", 4, 0}};
    vkm_err err = {0};
    vkm_table t;
    for (size_t i = 0; i < 7; i++) {
        const rates r = {10, 8, runs[i].off, 7, 2, 5};
        read_run(make_run(runs[i].name, runs[i].arm, runs[i].seed, runs[i].model, &r, 1, i < 2),
                 &o[i]);
    }
    assert_int_equal(vkm_table_make(o, 7, &t, &err), VKM_OK);
    const vkm_arm_row *absorb = vkm_table_find(&t, "absorb"), *moe = vkm_table_find(&t, "moe");
    assert_true(absorb && moe && moe->n_runs == 4 && absorb->n_runs == 3);
    assert_float_equal(absorb->mean[VKM_FIG_hack_off].mean, 0.5, 1e-12);
    /* t(0.975, 2) = 4.302653 times 0.1 / sqrt 3 */
    assert_float_equal(absorb->mean[VKM_FIG_hack_off].half, 4.302653 * 0.1 / sqrt(3), 1e-6);
    vkm_difference d = vkm_table_difference(moe, absorb, VKM_FIG_hack_off);
    assert_int_equal(d.mean.n, 3); /* seed 4 has no partner */
    assert_float_equal(d.mean.mean, (-0.1 - 0.2 + 0.1) / 3, 1e-12);
    assert_false(d.one_sign); /* on model n it rises */
    d = vkm_table_difference(absorb, absorb, VKM_FIG_specificity);
    assert_float_equal(d.mean.mean, 0, 0);
    /* the model without an adapter, once a model and seed: of the two full evaluations */
    const vkm_arm_row *base = vkm_table_find(&t, "base");
    assert_true(base && base->n_runs == 2);
    assert_float_equal(base->mean[VKM_FIG_hack_on].mean, 0.1, 1e-12);
    assert_null(vkm_table_find(&t, "none-early-stop"));

    char *printed = NULL;
    size_t n_printed = 0;
    FILE *f = open_memstream(&printed, &n_printed);
    vkm_strbuf json = {0}, md = {0};
    vkm_json *doc = NULL;
    vkm_jw w = vkm_jw_begin(&json, 0);
    vkm_jw_obj(&w, NULL);
    vkm_table_write(&t, &w);
    vkm_jw_end_obj(&w);
    assert_int_equal(vkm_json_parse(json.data, json.n, "table", NULL, &doc, &err), VKM_OK);
    vkm_table_print(&t, doc, f);
    assert_int_equal(fclose(f), 0);
    assert_non_null(strstr(printed, "0.500 +- 0.248"));
    const char *first = strstr(printed, "absorb"), *recorded = strstr(printed, "  recorded");
    assert_true(first && recorded && recorded > first && strstr(recorded, "0.500 +- 0.248"));
    vkm_table_markdown(&t, &md);
    assert_non_null(
        strstr(md.data, "| absorb | 3 | 0.800 &plusmn; 0.000 | 0.500 &plusmn; 0.248 |"));
    assert_non_null(strstr(md.data, "&dagger; |"));
    free(printed);
    vkm_json_free(doc);
    vkm_strbuf_free(&json), vkm_strbuf_free(&md);
    vkm_table_free(&t);

    o[1].seed = 1; /* twice the same */
    assert_int_equal(vkm_table_make(o, 7, &t, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "a second run of arm absorb, seed 1"));
}

static void intervals_of_small_samples(void **state) {
    (void)state;
    /* R: qt(0.975, df), SD and mean of these four */
    const double x[] = {0.3, 0.5, NAN, 0.45, 0.7}, one = 2, none = NAN;
    vkm_mean m = vkm_mean_t(x, 5);
    assert_int_equal(m.n, 4);
    assert_float_equal(m.mean, 0.4875, 1e-12);
    assert_float_equal(m.half, 0.26287308285755, 1e-9);
    m = vkm_mean_t(&one, 1);
    assert_true(m.n == 1 && m.mean == 2 && isnan(m.half));
    m = vkm_mean_t(&none, 1);
    assert_true(m.n == 0 && isnan(m.mean));
    double many[61];
    for (int i = 0; i < 61; i++) many[i] = i % 2;
    m = vkm_mean_t(many, 61); /* t(0.975, 60) = 2.000297822 */
    assert_float_equal(m.half, 2.000297822 * sqrt(30.0 * 31 / 61 / 60 / 61), 1e-5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_runs_figures),
        cmocka_unit_test(early_stopping_is_told_by_the_other_half),
        cmocka_unit_test(means_and_differences),
        cmocka_unit_test(intervals_of_small_samples),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
