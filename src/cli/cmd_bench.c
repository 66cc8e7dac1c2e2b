/* `vkmoe bench`: how fast the kernels are on a device, beside what they compute and move. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/bench.h"
#include "cli/cli.h"

static const vkm_bench_group *const groups[] = {&vkm_bench_limits, &vkm_bench_products,
                                                &vkm_bench_kernels, &vkm_bench_policy};
/* Shapes of a run that names none: those of the tiny testbed and of the smallest Qwen3. */
static const char *const usual[] = {"mini", "qwen3-0.6b"};

static vkm_status measure(vkm_bench *b, void (*record)(vkm_stream *s, const void *arg),
                          const void *arg, uint32_t times, double *seconds, vkm_err *err) {
    double start = vkm_now_s();
    for (uint32_t i = 0; i < times; i++) record(b->s, arg);
    vkm_status st = vkm_stream_flush(b->s, err);
    *seconds = (vkm_now_s() - start) / times;
    return st;
}

vkm_status vkm_bench_time(vkm_bench *b, void (*record)(vkm_stream *s, const void *arg),
                          const void *arg, double *seconds, vkm_err *err) {
    double best, took;
    if (measure(b, record, arg, 1, &took, err)) return err->status;
    if (measure(b, record, arg, 1, &best, err)) return err->status;
    uint32_t times = best < b->min_s / 1000 ? 1000 : (uint32_t)(b->min_s / best) + 1;
    for (uint32_t i = 0; i < b->repeat; i++) {
        if (measure(b, record, arg, times, &took, err)) return err->status;
        if (took < best) best = took;
    }
    *seconds = best;
    return VKM_OK;
}

static double rate(double quantity, double seconds) {
    return seconds > 0 ? quantity / seconds : 0;
}

/* The share of the time that the device's limits would need, and which of them is the longest. */
typedef enum { BY_NOTHING, BY_FMA, BY_COPY, BY_LAUNCH } limit_by;
static const char *const limit_names[] = {"-", "fma", "copy", "launch"};
typedef struct limit {
    double share;
    limit_by by;
} limit;

static limit limit_of(const vkm_bench_result *r, const vkm_bench_peaks *p) {
    double compute = r->flops / p->flops, move = r->bytes / p->bytes;
    double least = compute > move ? compute : move;
    if (r->seconds <= 0 || least <= 0) return (limit){0};
    if (p->launch > least) return (limit){p->launch / r->seconds, BY_LAUNCH};
    return (limit){least / r->seconds, compute > move ? BY_FMA : BY_COPY};
}

static void print_row(const char *name, const vkm_bench_result *r, limit l, int json) {
    double gflops = rate(r->flops, r->seconds) / 1e9, gbs = rate(r->bytes, r->seconds) / 1e9;
    double tokens = rate(r->tokens, r->seconds);
    if (json) {
        printf("{\"name\":\"%s\",\"what\":\"%s\",\"seconds\":%.9g,\"flops\":%.17g,\"bytes\":%.17g,"
               "\"gflop_per_s\":%.6g,\"gb_per_s\":%.6g,\"tokens_per_s\":%.6g,\"limit\":\"%s\","
               "\"share\":%.4g}\n",
               name, r->shape, r->seconds, r->flops, r->bytes, gflops, gbs, tokens,
               limit_names[l.by], l.share);
    } else {
        char many[32] = "-", share[32] = "-";
        if (r->tokens > 0) snprintf(many, sizeof many, "%.1f", tokens);
        if (l.share > 0)
            snprintf(share, sizeof share, "%.0f%% %s", 100 * l.share, limit_names[l.by]);
        printf("%-32s %10.1f %9.1f %8.2f %10s %11s   %s\n", name, 1e6 * r->seconds, gflops, gbs,
               many, share, r->shape);
    }
    fflush(stdout);
}

typedef struct table {
    vkm_bench b;
    vkm_bench_peaks peaks;
    const char *part, *preset; /* what names must contain; "": the usual presets */
    int json, list, shown;
    char worst[64];
    limit least; /* of rows that a launch does not hold */
} table;

static vkm_status add_row(table *t, const vkm_bench_row *row, const char *preset_name,
                          vkm_err *err) {
    const vkm_model_preset *preset = NULL;
    vkm_bench_result r = {0};
    char name[64];
    snprintf(name, sizeof name, preset_name[0] ? "%s/%s" : "%s", row->name, preset_name);
    if (!strstr(name, t->part)) return VKM_OK;
    t->shown++;
    if (t->list) {
        puts(name);
        return VKM_OK;
    }
    if (preset_name[0] && vkm_model_preset_find(preset_name, &preset, err)) return err->status;
    if (row->run(&t->b, row, preset, &r, err)) {
        vkm_fail_in(err, "row '%s'", name);
        return err->status;
    }
    limit l = limit_of(&r, &t->peaks);
    if (l.share > 0 && l.by != BY_LAUNCH && (!t->worst[0] || l.share < t->least.share)) {
        snprintf(t->worst, sizeof t->worst, "%s", name);
        t->least = l;
    }
    print_row(name, &r, l, t->json);
    return VKM_OK;
}

/* A row of its own preset is not part of a run that asks for another. */
static vkm_status add_rows(table *t, const vkm_bench_row *row, vkm_err *err) {
    int own = row->preset != NULL, asked = t->preset[0] != 0;
    if (own)
        return asked && row->preset[0] && strcmp(row->preset, t->preset) != 0
                   ? VKM_OK
                   : add_row(t, row, row->preset, err);
    if (asked) return add_row(t, row, t->preset, err);
    for (size_t i = 0; i < VKM_COUNTOF(usual); i++)
        if (add_row(t, row, usual[i], err)) return err->status;
    return VKM_OK;
}

vkm_status vkm_cmd_bench(int argc, char **argv, vkm_err *err) {
    vkm_cli_device d = {.backend = VKM_CLI_VULKAN};
    table t = {.part = "", .preset = ""};
    int64_t repeat = 3;
    double min_ms = 50;
    vkm_opt opts[] = {
        {"ROW", VKM_OPT_ARG_MAYBE, &t.part,
         .help =
             "only rows whose name contains this; grade: grading boxes beside python3 and bwrap "
             "for each job; step: a GRPO step by its phases, of a CONFIG (bench step --help)"},
        {"list", VKM_OPT_FLAG, &t.list, .help = "list the rows and measure none"},
        {"preset", VKM_OPT_STRING, &t.preset, .arg = "NAME",
         .help = "shapes of the kernels (init-model --list) in place of mini's and qwen3-0.6b's"},
        {"repeat", VKM_OPT_INT, &repeat, .min = 1, .max = 1000,
         .help = "measurements of a row; the best counts"},
        {"min-ms", VKM_OPT_FLOAT, &min_ms, .min = 0, .max = 60000,
         .help = "milliseconds that one measurement lasts at least"},
        VKM_CLI_JSON(&t.json),
        VKM_CLI_NUMERICS(&d),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (argc > 1 && !strcmp(argv[1], "step")) return vkm_bench_step(argc - 1, argv + 1, err);
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    const vkm_model_preset *known;
    if (t.preset[0] && vkm_model_preset_find(t.preset, &known, err)) return err->status;
    if (!strcmp(t.part, "grade") && !t.list) return vkm_bench_grade((int)repeat, t.json, err);
    t.b = (vkm_bench){.repeat = (uint32_t)repeat, .min_s = min_ms / 1000};
    if (!t.list) {
        if (vkm_cli_open_device(&d, NULL, &t.b.dev, err)) return err->status;
        if (vkm_stream_new(t.b.dev, &t.b.s, err)) goto done;
        if (vkm_bench_peaks_of(&t.b, &t.peaks, err)) goto done;
        if (!t.json)
            printf("%-32s %10s %9s %8s %10s %11s\n", "row", "us", "GFLOP/s", "GB/s", "tokens/s",
                   "of limit");
    }
    for (size_t g = 0; g < VKM_COUNTOF(groups); g++)
        for (uint32_t i = 0; i < groups[g]->n; i++)
            if (add_rows(&t, &groups[g]->rows[i], err)) goto done;
    if (t.worst[0] && t.shown > 1 && !t.json)
        printf("furthest from its limit: %s, %.1f%% of what %s allows\n", t.worst,
               100 * t.least.share, limit_names[t.least.by]);
    if (t.list && strstr("grade", t.part)) t.shown += puts("grade") >= 0;
    if (!t.shown)
        vkm_fail(err, VKM_USAGE, "no row's name contains '%s'; --list shows them", t.part);
done:
    vkm_stream_free(t.b.s);
    vkm_cli_close_device(&d, t.b.dev);
    return err->status;
}
