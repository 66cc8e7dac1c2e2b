/* `vkmoe tune`: tries tiles of the products on a device and keeps the fastest for later runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/bench.h"
#include "cli/cli.h"
#include "ops/kernels.h"
#include "ops/tiles.h"

enum { MAX_CANDIDATES = 512 };

/* Outputs that share a tile, and the one that stands for them. The first that fits counts. */
typedef struct class_row {
    const char *what;
    vkm_tile_choice limits;
    uint32_t m, n, k;
} class_row;

static const class_row classes[] = {
    {"decoding, experts", {64, 1u << 15, 2, {0}}, 64, 384, 2560},
    {"decoding, 8 rows", {8, UINT64_MAX, 2, {0}}, 8, 2048, 1024},
    {"decoding, 64 rows", {64, 1u << 18, 2, {0}}, 64, 2048, 1024},
    {"decoding, 64 rows, wide", {64, UINT64_MAX, 2, {0}}, 64, 16384, 1024},
    {"small outputs", {UINT32_MAX, 1u << 18, 2, {0}}, 512, 512, 1024},
    {"middling outputs", {UINT32_MAX, 1u << 20, 2, {0}}, 1024, 1024, 1024},
    {"large outputs", {UINT32_MAX, UINT64_MAX, 2, {0}}, 2048, 2048, 1024},
};

typedef struct bed {
    vkm_bench b;
    vkm_mem *mem;
    vkm_tensor x, w, c;
    const class_row *row;
    float *want, *got; /* (m, n) by the table's tile, by a candidate */
} bed;

/* GFLOP of one product. */
static double gflop_of(const class_row *row) {
    return 2e-9 * row->m * row->n * (double)row->k;
}

static void record(vkm_stream *s, const void *arg) {
    const bed *t = arg;
    VKM_OP(s, gemm, .a = t->x, .b = t->w, .c = t->c, .m = t->row->m, .n = t->row->n, .k = t->row->k,
           .kpa = t->row->k, .kpb = t->row->k, .ldc = t->row->n);
}

/* Small numbers of both signs, rounded as operands are. */
static vkm_status fill(vkm_dev *dev, vkm_tensor t, uint32_t seed, vkm_err *err) {
    uint16_t *v = vkm_calloc(t.n, 2, "operands", err);
    if (!v) return err->status;
    for (uint64_t i = 0; i < t.n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (uint16_t)((seed >> 16 & 0x8000u) | (0x3f00u + (seed >> 20 & 0xffu)));
    }
    vkm_status st = vkm_write(dev, t, v, err);
    free(v);
    return st;
}

static vkm_status lay_out(bed *t, vkm_err *err) {
    uint64_t outputs = (uint64_t)t->row->m * t->row->n;
    vkm_plan *p = vkm_plan_new(t->b.dev);
    vkm_plan_add(p, &t->x, VKM_BF16, vkm_op_size(t->row->m, t->row->k), "tune");
    vkm_plan_add(p, &t->w, VKM_BF16, vkm_op_size(t->row->n, t->row->k), "tune");
    vkm_plan_add(p, &t->c, VKM_F32, outputs, "tune");
    t->want = vkm_calloc(outputs, 4, "outputs", err);
    t->got = vkm_calloc(outputs, 4, "outputs", err);
    if (err->status) {
        vkm_plan_free(p);
        return err->status;
    }
    if (vkm_plan_commit(p, &t->mem, err) || fill(t->b.dev, t->x, 1, err)) return err->status;
    return fill(t->b.dev, t->w, 2, err);
}

static void clear_away(bed *t) {
    vkm_mem_free(t->mem);
    free(t->want);
    free(t->got);
    t->mem = NULL;
    t->want = t->got = NULL;
}

/* Seconds with the device's present tile, and its outputs. */
static vkm_status measure(bed *t, double *seconds, float *out, vkm_err *err) {
    if (vkm_bench_time(&t->b, record, t, seconds, err)) return err->status;
    return vkm_read(t->b.dev, t->c, out, err);
}

static void use_tile(vkm_dev *dev, vkm_tile tile) {
    const vkm_tile_choice only = {UINT32_MAX, UINT64_MAX, 16, tile};
    vkm_tiles_set(dev, &only, 1);
}

/* Tries all candidates; *best is the fastest of them. In the exact tier one that changes a bit is a
 * defect of the driver's compiler: it is named and left out. */
static vkm_status try_all(bed *t, const vkm_tile *tries, uint32_t n, vkm_tile *best, vkm_err *err) {
    vkm_dev *dev = t->b.dev;
    const class_row *row = t->row;
    double best_s = INFINITY;
    vkm_progress progress;
    vkm_progress_begin(&progress, row->what, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        double s;
        char text[64];
        vkm_tile_write(tries[i], text);
        use_tile(dev, tries[i]);
        if (measure(t, &s, t->got, err)) {
            vkm_fail_in(err, "tile %s", text);
            break;
        }
        if (!vkm_dev_matrix(dev).m && memcmp(t->want, t->got, 4 * (size_t)row->m * row->n) != 0) {
            vkm_warn("tile %s gives other bits on %s: left out", text, vkm_dev_driver(dev));
        } else if (s < best_s) {
            best_s = s;
            *best = tries[i];
        }
        vkm_progress_at(&progress, i + 1, "%.1f GFLOP/s", gflop_of(row) / best_s);
    }
    vkm_progress_end(&progress);
    return err->status;
}

/* The tile for one class of outputs: the fastest candidate, if it beats the table's tile when the
 * two run by turns; by the best of many measurements alone the luckiest would win on a busy
 * machine. */
static vkm_status search(bed *t, vkm_tile_choice *out, int json, vkm_err *err) {
    enum { TURNS = 5 };
    static vkm_tile tries[MAX_CANDIDATES];
    vkm_dev *dev = t->b.dev;
    const class_row *row = t->row;
    double seconds[2] = {INFINITY, INFINITY}, s;
    char text[2][64];
    vkm_tiles_set(dev, NULL, 0);
    vkm_tile two[2] = {vkm_tile_for(dev, 1, row->m, row->n)};
    two[1] = two[0];
    uint32_t n = vkm_tile_candidates(dev, row->m, row->n, tries, MAX_CANDIDATES);
    if (lay_out(t, err) || measure(t, &s, t->want, err) || try_all(t, tries, n, &two[1], err))
        return err->status;
    for (int i = 0; i < 2 * TURNS; i++) {
        use_tile(dev, two[i % 2]);
        if (measure(t, &s, t->got, err)) return err->status;
        if (s < seconds[i % 2]) seconds[i % 2] = s;
    }
    vkm_tiles_set(dev, NULL, 0);
    int won = seconds[1] < seconds[0];
    *out = row->limits;
    out->tile = two[won];
    for (int i = 0; i < 2; i++) vkm_tile_write(two[i], text[i]);
    if (json)
        printf("{\"class\":\"%s\",\"m\":%u,\"n\":%u,\"k\":%u,\"tried\":%u,\"table\":\"%s\","
               "\"table_seconds\":%.9g,\"tile\":\"%s\",\"seconds\":%.9g}\n",
               row->what, row->m, row->n, row->k, n, text[0], seconds[0], text[won], seconds[won]);
    else
        printf("%-24s %5u x %-5u %5u %-24s %9.1f  %-24s %9.1f %7.2f\n", row->what, row->m, row->n,
               n, text[0], gflop_of(row) / seconds[0], text[won], gflop_of(row) / seconds[won],
               seconds[0] / seconds[won]);
    fflush(stdout);
    return VKM_OK;
}

vkm_status vkm_cmd_tune(int argc, char **argv, vkm_err *err) {
    vkm_cli_device d = {.backend = VKM_CLI_VULKAN};
    bed t = {0};
    int json = 0, dry_run = 0;
    int64_t repeat = 3;
    double min_ms = 20;
    const char *part = "";
    vkm_tile_choice best[VKM_COUNTOF(classes)];
    uint32_t n = 0;
    char path[4096];
    vkm_opt opts[] = {
        {"CLASS", VKM_OPT_ARG_MAYBE, &part,
         .help = "only classes of outputs whose name contains this; implies --dry-run"},
        {"dry-run", VKM_OPT_FLAG, &dry_run, .help = "measure, and keep nothing"},
        {"repeat", VKM_OPT_INT, &repeat, .min = 1, .max = 1000,
         .help = "measurements of a tile; the best counts"},
        {"min-ms", VKM_OPT_FLOAT, &min_ms, .min = 0, .max = 60000,
         .help = "milliseconds that one measurement lasts at least"},
        VKM_CLI_JSON(&json),
        VKM_CLI_NUMERICS(&d),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err) || vkm_cli_choose_backend(&d, err))
        return err->status;
    if (d.backend == VKM_CLI_CPU)
        return vkm_fail(err, VKM_USAGE, "tiles are of Vulkan devices; the cpu backend has none");
    if (getenv("VKMOE_TILE"))
        return vkm_fail(err, VKM_USAGE,
                        "VKMOE_TILE is set, so every tile would be that one; unset it");
    if (vkm_cli_open_device(&d, NULL, &t.b.dev, err)) return err->status;
    t.b.repeat = (uint32_t)repeat;
    t.b.min_s = min_ms / 1000;
    if (vkm_stream_new(t.b.dev, &t.b.s, err)) goto done;
    if (!json)
        printf("%-24s %13s %5s %-24s %9s  %-24s %9s %7s\n", "outputs", "", "tried", "table's tile",
               "GFLOP/s", "best", "GFLOP/s", "times");
    for (size_t i = 0; i < VKM_COUNTOF(classes); i++) {
        if (!strstr(classes[i].what, part)) continue;
        t.row = &classes[i];
        vkm_status st = search(&t, &best[n++], json, err);
        clear_away(&t);
        if (st) goto done;
    }
    if (!n) {
        vkm_fail(err, VKM_USAGE, "no class of outputs has '%s' in its name", part);
        goto done;
    }
    if (dry_run || *part || vkm_tiles_save(t.b.dev, best, n, err)) goto done;
    vkm_tiles_path(t.b.dev, path);
    vkm_info("kept for later runs of this device and driver: %s", path);
done:
    vkm_stream_free(t.b.s);
    vkm_cli_close_device(&d, t.b.dev);
    return err->status;
}
