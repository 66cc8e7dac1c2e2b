/* `vkmoe bench`: how fast the kernels are on a device, beside what they compute and move. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/bench.h"
#include "cli/cli.h"

static const vkm_bench_group *const groups[] = {&vkm_bench_kernels, &vkm_bench_policy};

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

/* The share of the time that the device's peaks would need, and which of them. */
typedef struct limit {
    double share;
    const char *by;
} limit;

static limit limit_of(const vkm_bench_result *r, const vkm_bench_peaks *p) {
    double compute = r->flops / p->flops, move = r->bytes / p->bytes;
    if (r->seconds <= 0 || compute + move == 0) return (limit){0, "-"};
    return compute > move ? (limit){compute / r->seconds, "fma"}
                          : (limit){move / r->seconds, "copy"};
}

static void print_row(const vkm_bench_row *row, const vkm_bench_result *r, limit l, int json) {
    double gflops = rate(r->flops, r->seconds) / 1e9, gbs = rate(r->bytes, r->seconds) / 1e9;
    double tokens = rate(r->tokens, r->seconds);
    if (json) {
        printf("{\"name\":\"%s\",\"what\":\"%s\",\"seconds\":%.9g,\"flops\":%.17g,\"bytes\":%.17g,"
               "\"gflop_per_s\":%.6g,\"gb_per_s\":%.6g,\"tokens_per_s\":%.6g,\"limit\":\"%s\","
               "\"share\":%.4g}\n",
               row->name, row->what, r->seconds, r->flops, r->bytes, gflops, gbs, tokens, l.by,
               l.share);
    } else {
        char many[32] = "-", share[32] = "-";
        if (r->tokens > 0) snprintf(many, sizeof many, "%.1f", tokens);
        if (l.share > 0) snprintf(share, sizeof share, "%.0f%% %s", 100 * l.share, l.by);
        printf("%-24s %-40s %10.1f %9.1f %8.2f %10s %10s\n", row->name, row->what, 1e6 * r->seconds,
               gflops, gbs, many, share);
    }
    fflush(stdout);
}

vkm_status vkm_cmd_bench(int argc, char **argv, vkm_err *err) {
    vkm_cli_device d = {.backend = VKM_CLI_VULKAN};
    const char *part = "";
    int json = 0, list = 0, shown = 0;
    int64_t repeat = 3;
    double min_ms = 50;
    vkm_opt opts[] = {
        {"ROW", VKM_OPT_ARG_MAYBE, &part,
         .help = "only rows whose name contains this; grade: grading boxes, by themselves; step: a "
                 "GRPO step "
                 "by its phases, of a CONFIG (bench step --help)"},
        {"list", VKM_OPT_FLAG, &list, .help = "list the rows and measure none"},
        {"repeat", VKM_OPT_INT, &repeat, .min = 1, .max = 1000,
         .help = "measurements of a row; the best counts"},
        {"min-ms", VKM_OPT_FLOAT, &min_ms, .min = 0, .max = 60000,
         .help = "milliseconds that one measurement lasts at least"},
        VKM_CLI_JSON(&json),
        VKM_CLI_NUMERICS(&d),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (argc > 1 && !strcmp(argv[1], "step")) return vkm_bench_step(argc - 1, argv + 1, err);
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (!strcmp(part, "grade") && !list) return vkm_bench_grade((int)repeat, json, err);
    vkm_bench b = {.repeat = (uint32_t)repeat, .min_s = min_ms / 1000};
    vkm_bench_peaks peaks = {0};
    const vkm_bench_row *worst = NULL;
    limit least = {0};
    if (!list) {
        if (vkm_cli_open_device(&d, NULL, &b.dev, err)) return err->status;
        if (vkm_stream_new(b.dev, &b.s, err)) goto done;
        if (vkm_bench_peaks_of(&b, &peaks, err)) goto done;
        if (!json)
            printf("%-24s %-40s %10s %9s %8s %10s %10s\n", "row", "what", "us", "GFLOP/s", "GB/s",
                   "tokens/s", "of limit");
    }
    for (size_t g = 0; g < VKM_COUNTOF(groups); g++)
        for (uint32_t i = 0; i < groups[g]->n; i++) {
            const vkm_bench_row *row = &groups[g]->rows[i];
            vkm_bench_result r = {0};
            if (!strstr(row->name, part)) continue;
            shown++;
            if (list) {
                printf("%-24s %s\n", row->name, row->what);
                continue;
            }
            if (row->run(&b, row, &r, err)) {
                vkm_fail_in(err, "row '%s'", row->name);
                goto done;
            }
            limit l = limit_of(&r, &peaks);
            if (l.share > 0 && (!worst || l.share < least.share)) {
                worst = row;
                least = l;
            }
            print_row(row, &r, l, json);
        }
    if (worst && shown > 1 && !json)
        printf("furthest from its limit: %s, %.1f%% of what %s allows\n", worst->name,
               100 * least.share, least.by);
    if (list && strstr("grade", part))
        shown += printf("%-24s %s\n", "grade", "grading boxes, python3 and bwrap for each job") > 0;
    if (!shown) vkm_fail(err, VKM_USAGE, "no row's name contains '%s'; --list shows them", part);
done:
    vkm_stream_free(b.s);
    vkm_cli_close_device(&d, b.dev);
    return err->status;
}
