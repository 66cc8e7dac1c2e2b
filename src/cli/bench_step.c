/* `vkmoe bench step CONFIG`: a GRPO step by its phases, beside what the device does at a product
 * and a copy in the same run, so that machines and days can be compared by ratios. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/phase.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "rl/run.h"

enum { MOST_ROWS = VKM_N_PHASES + 8 };
static const char *const yardsticks[] = {"gemm/1024", "copy"}; /* rows of products, of limits */

/* One line of the table: seconds, and the tokens that it treats (0: none to speak of). */
typedef struct line {
    char name[32];
    double seconds, tokens;
    double before; /* seconds of the file that is compared with; 0: not there */
} line;

typedef struct table {
    line rows[MOST_ROWS];
    uint32_t n;
} table;

static line *add_line(table *t, const char *prefix, const char *name, double seconds,
                      double tokens) {
    VKM_BUG_ON(t->n == MOST_ROWS, "%u lines", t->n);
    line *l = &t->rows[t->n++];
    *l = (line){.seconds = seconds, .tokens = tokens};
    snprintf(l->name, sizeof l->name, "%s%s", prefix, name);
    return l;
}

static line *find_line(table *t, const char *name) {
    for (uint32_t i = 0; i < t->n; i++)
        if (!strcmp(t->rows[i].name, name)) return &t->rows[i];
    return NULL;
}

/* ---- measuring ------------------------------------------------------------------------------- */

typedef struct counts {
    double prompt, completion, live; /* tokens: of distinct prompts, sampled, of rows learnt from */
} counts;

static vkm_status one_step(vkm_run *r, vkm_ids *prompts, vkm_rollout *x, double *seconds,
                           counts *tokens, vkm_err *err) {
    uint32_t groups = (uint32_t)r->c.num_prompts, n = groups * (uint32_t)r->c.num_generations;
    vkm_step_result result;
    char hash[VKM_HASH_HEX];
    *tokens = (counts){0};
    vkm_phase_take(seconds);
    if (!vkm_run_collect(r, r->state.step, prompts, x, err) &&
        !vkm_run_learn(r, x, n, &result, err) && !vkm_run_hash(r, hash, err))
        r->state.step++;
    vkm_phase_take(seconds);
    for (uint32_t i = 0; i < n && !err->status; i++) {
        tokens->completion += x[i].teacher ? 0 : (double)(x[i].ids.n - x[i].prompt->n);
        tokens->live += x[i].live ? (double)x[i].ids.n : 0;
    }
    vkm_rollouts_clear(x, n);
    for (uint32_t i = 0; i < groups; i++) {
        tokens->prompt += (double)prompts[i].n;
        free(prompts[i].id);
        prompts[i] = (vkm_ids){0};
    }
    return err->status;
}

static double tokens_of(int phase, const counts *c) {
    switch (phase) {
    case VKM_PHASE_prefill:
        return c->prompt;
    case VKM_PHASE_decode:
        return c->completion;
    case VKM_PHASE_reference:
    case VKM_PHASE_forward:
    case VKM_PHASE_backward:
        return c->live;
    default:
        return 0;
    }
}

/* The mean of `steps` steps behind one that warms up. */
static vkm_status measure_steps(vkm_run *r, uint32_t steps, table *t, vkm_err *err) {
    double sum[VKM_N_PHASES] = {0}, total = 0;
    counts all = {0};
    vkm_ids *prompts = vkm_calloc((size_t)r->c.num_prompts, sizeof *prompts, "a step", err);
    vkm_rollout *x =
        vkm_calloc((size_t)(r->c.num_prompts * r->c.num_generations), sizeof *x, "a step", err);
    for (uint32_t i = 0; prompts && x && i <= steps; i++) {
        double seconds[VKM_N_PHASES];
        counts tokens;
        if (one_step(r, prompts, x, seconds, &tokens, err)) break;
        if (i == 0) continue;
        for (int p = 0; p < VKM_N_PHASES; p++) sum[p] += seconds[p] / steps;
        all.prompt += tokens.prompt / steps;
        all.completion += tokens.completion / steps;
        all.live += tokens.live / steps;
    }
    free(x), free(prompts);
    for (int p = 0; p < VKM_N_PHASES; p++) {
        total += sum[p];
        add_line(t, "step/", vkm_phases[p].name, sum[p], tokens_of(p, &all));
    }
    add_line(t, "step", "", total, all.completion);
    return err->status;
}

static vkm_status measure_yardsticks(vkm_dev *dev, table *t, vkm_err *err) {
    static const vkm_bench_group *const groups[] = {&vkm_bench_products, &vkm_bench_limits};
    vkm_bench b = {.dev = dev, .repeat = 5, .min_s = 0.1};
    if (vkm_stream_new(dev, &b.s, err)) return err->status;
    for (size_t i = 0; i < VKM_COUNTOF(yardsticks); i++)
        for (uint32_t j = 0; j < groups[i]->n; j++) {
            const vkm_bench_row *row = &groups[i]->rows[j];
            vkm_bench_result r = {0};
            if (strcmp(row->name, yardsticks[i]) != 0) continue;
            if (row->run(&b, row, NULL, &r, err)) goto done;
            add_line(t, "", row->name, r.seconds, 0);
        }
done:
    vkm_stream_free(b.s);
    return err->status;
}

/* ---- comparing and printing ------------------------------------------------------------------ */

static vkm_status read_before(vkm_jv object, void *ctx, vkm_err *err) {
    const char *name;
    double seconds;
    if (vkm_json_get_str(object, "name", VKM_JSON_REQ, &name, err) ||
        vkm_json_get_double(object, "seconds", VKM_JSON_REQ, 0, 1e9, &seconds, err))
        return err->status;
    line *l = find_line(ctx, name);
    if (l) l->before = seconds;
    return VKM_OK;
}

/* How many times as fast as before, in units of the yardstick of either run. */
static double speed_up(const line *l, const line *yardstick) {
    return l->before > 0 && yardstick->before > 0
               ? l->before / yardstick->before / (l->seconds / yardstick->seconds)
               : 0;
}

static void print_table(table *t, int json, int compares) {
    const line *whole = find_line(t, "step"), *yardstick = find_line(t, yardsticks[0]);
    if (!json)
        printf("%-20s %10s %7s %11s%s\n", "phase", "seconds", "share", "tokens/s",
               compares ? "   as fast, in units of gemm/1024" : "");
    for (uint32_t i = 0; i < t->n; i++) {
        const line *l = &t->rows[i];
        double rate = l->tokens > 0 && l->seconds > 0 ? l->tokens / l->seconds : 0;
        if (json) {
            printf("{\"name\":\"%s\",\"seconds\":%.9g,\"tokens_per_s\":%.6g}\n", l->name,
                   l->seconds, rate);
            continue;
        }
        printf("%-20s %10.4f", l->name, l->seconds);
        if (strncmp(l->name, "step", 4) == 0)
            printf(" %6.1f%%", 100 * l->seconds / whole->seconds);
        else
            printf(" %7s", "");
        if (rate > 0)
            printf(" %11.1f", rate);
        else
            printf(" %11s", "-");
        double up = speed_up(l, yardstick);
        if (compares && up > 0) printf("   %.2f", up);
        printf("\n");
    }
}

vkm_status vkm_bench_step(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config config;
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    vkm_dev *dev = NULL;
    vkm_run *r = NULL;
    table t = {0};
    int64_t steps = 3;
    int json = 0;
    const char *compare = "";
    vkm_opt own[] = {
        {"steps", VKM_OPT_INT, &steps, .min = 1, .max = 1000,
         .help = "that are measured, behind one that warms up"},
        {"compare", VKM_OPT_STRING, &compare, .arg = "FILE",
         .help = "an earlier --json: how many times as fast each phase is"},
        VKM_CLI_JSON(&json),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    vkm_opt opts[VKM_CLI_MAX_OPTS];
    memcpy(opts, own, sizeof own);
    size_t n = VKM_COUNTOF(own) + vkm_cli_config_opts(&given, opts + VKM_COUNTOF(own));
    if (vkm_cli_parse(opts, n, argc, argv, err) || vkm_cli_config_resolve(&given, &config, err))
        return err->status;
    if (!config.output_dir[0]) snprintf(config.output_dir, sizeof config.output_dir, "bench");
    if (vkm_config_check(&config, err) || vkm_cli_open_device(&d, &config, &dev, err))
        return err->status;
    if (!vkm_run_open(&config, VKM_RUN_TRAINS, dev, NULL, &r, err) &&
        !measure_steps(r, (uint32_t)steps, &t, err) && !measure_yardsticks(dev, &t, err) &&
        (!compare[0] || !vkm_jsonl_each(compare, NULL, read_before, &t, err)))
        print_table(&t, json, compare[0] != 0);
    vkm_run_close(r);
    vkm_cli_close_device(&d, dev);
    return err->status;
}
