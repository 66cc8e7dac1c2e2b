/* The device probes: small runs of real kernels on a device and on the CPU reference, bit against
 * bit. They find compilers that re-associate, fold or contract sums, and drivers with defects,
 * before a run's first step does. */
#include "ops/device.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/kernels.h"
#include "ops/numerics.h"
#include "ops/tiles.h"

enum {
    N = 65536,     /* numbers of the arithmetic probes */
    SOFT_N = 8192, /* of each software function */
    GEMM_M = 40,   /* not a multiple of the panel height */
    GEMM_N = 72,
    NORM_ROWS = 23,  /* not a multiple of the panel height */
    NORM_COLS = 200, /* some lanes sum one more */
    ATT_LONG = 280,  /* keys in two chunks */
    ATT_SHORT = 21,
    ATT_ROWS = 288 + 32,
    ATT_HEADS = 2, /* on one key-value head */
    ATT_DIM = 16,
    GEMM_K = 520, /* two whole chunks and a part of one */
    N_SPECIAL = 8,
};

/* One of the two machines that a probe runs on. */
typedef struct bench {
    vkm_dev *dev;
    vkm_stream *stream;
    vkm_mem *mem;
    vkm_tensor x, y, w;       /* f32 (N) normal */
    vkm_tensor positive;      /* f32 (SOFT_N) |x| */
    vkm_tensor sx, sy, sw;    /* f32 (N_SPECIAL) */
    vkm_tensor a, b;          /* operands (GEMM_M, GEMM_K), (GEMM_N, GEMM_K) */
    vkm_tensor ia, ib;        /* the same of small integers */
    vkm_tensor q, k, v, seqs; /* bf16 (ATT_ROWS, heads * ATT_DIM); u32 (2,4) */
    vkm_tensor m, l;          /* f32 (ATT_ROWS, ATT_HEADS), not compared */
    vkm_tensor words, floats; /* results: bf16 pairs and f32, one probe after the other */
} bench;

typedef struct probe {
    const char *name, *what;
    int required;
    void (*record)(const bench *b, uint32_t which, vkm_tensor out);
    uint32_t which, n;                                    /* results */
    void (*inform)(vkm_probe_row *row, const float *got); /* of a probe that is not required */
    int operand; /* the n results are words, pairs of bf16, not floats */
} probe;

/* ---- the table
 * ----------------------------------------------------------------------------------- */

static void record_arith(const bench *b, uint32_t trap, vkm_tensor out) {
    VKM_OP(b->stream, arith_probe, .x = b->x, .y = b->y, .w = b->w, .z = out, .n = N, .trap = trap);
}

static void record_special(const bench *b, uint32_t trap, vkm_tensor out) {
    VKM_OP(b->stream, arith_probe, .x = b->sx, .y = b->sy, .w = b->sw, .z = out, .n = N_SPECIAL,
           .trap = trap);
}

static void record_soft(const bench *b, uint32_t function, vkm_tensor out) {
    VKM_OP(b->stream, softmath_probe, .x = b->x, .y = b->y, .z = out, .n = SOFT_N,
           .function = function);
}

/* Of what has no result below zero. */
static void record_soft_positive(const bench *b, uint32_t function, vkm_tensor out) {
    VKM_OP(b->stream, softmath_probe, .x = b->positive, .y = b->y, .z = out, .n = SOFT_N,
           .function = function);
}

static void record_gemm(const bench *b, uint32_t which, vkm_tensor out) {
    (void)which;
    VKM_OP(b->stream, gemm, .a = b->a, .b = b->b, .c = out, .m = GEMM_M, .n = GEMM_N, .k = GEMM_K,
           .kpa = GEMM_K, .kpb = GEMM_K, .ldc = GEMM_N);
}

static void record_integers(const bench *b, uint32_t which, vkm_tensor out) {
    (void)which;
    VKM_OP(b->stream, gemm, .a = b->ia, .b = b->ib, .c = out, .m = GEMM_M, .n = GEMM_N, .k = GEMM_K,
           .kpa = GEMM_K, .kpb = GEMM_K, .ldc = GEMM_N);
}

static void record_rmsnorm(const bench *b, uint32_t which, vkm_tensor out) {
    (void)which;
    VKM_OP(b->stream, rmsnorm_fwd, .x = b->x, .gain = b->y, .y = out, .rstd = b->m,
           .n_rows = NORM_ROWS, .n_cols = NORM_COLS, .eps = 1e-6f);
}

static void record_attention(const bench *b, uint32_t which, vkm_tensor out) {
    (void)which;
    VKM_OP(b->stream, attn_fwd, .q = b->q, .k = b->k, .v = b->v, .seqs = b->seqs, .o = out,
           .m = b->m, .l = b->l, .n_seq = 2, .max_len = ATT_LONG, .n_heads = ATT_HEADS, .n_kv = 1,
           .head_dim = ATT_DIM, .scale = 0.25f);
}

/* Rows of the special inputs; see `special` below. */
enum { FUSED = 0, DENORMAL = 1, INFINITE = 2 };

static void inform_fma(vkm_probe_row *row, const float *got) {
    snprintf(row->detail, sizeof row->detail, "fma() is %s",
             got[FUSED] != 0 ? "fused" : "mul, then add");
}

static void inform_denormals(vkm_probe_row *row, const float *got) {
    snprintf(row->detail, sizeof row->detail, "denormals are %s",
             got[DENORMAL] != 0 ? "kept" : "flushed");
}

static void inform_folding(vkm_probe_row *row, const float *got) {
    snprintf(row->detail, sizeof row->detail, "Inf * 0 gives %s", got[INFINITE] == 0 ? "0" : "NaN");
}

static const probe probes[] = {
    {"add", "x + y", 1, record_arith, 0, N, NULL},
    {"mul", "x * y", 1, record_arith, 1, N, NULL},
    {"mul_add", "x * y + w, rounded twice", 1, record_arith, 2, N, NULL},
    {"minus_zero", "sums and products of zeros are stored as +0", 1, record_special, 2, N_SPECIAL,
     NULL},
    {"reassociate", "(x + M) - M is not x, M a constant", 1, record_arith, 3, N, NULL},
    {"reassociate_value", "(x + w) - w is not x", 1, record_arith, 4, N, NULL},
    {"distribute", "x * y + x * w is not x * (y + w)", 1, record_arith, 5, N, NULL},
    {"times_zero", "x * 0 of finite x", 1, record_arith, 6, N, NULL},
    {"minus_self", "x - x of finite x", 1, record_arith, 7, N, NULL},
    {"exp", "the software exp", 1, record_soft, 0, SOFT_N, NULL},
    {"log", "the software log", 1, record_soft_positive, 1, SOFT_N, NULL},
    {"div", "the software division", 1, record_soft, 2, SOFT_N, NULL},
    {"sqrt", "the software square root", 1, record_soft_positive, 3, SOFT_N, NULL},
    {"rsqrt", "the software 1 / sqrt", 1, record_soft_positive, 4, SOFT_N, NULL},
    {"sigmoid", "the software sigmoid", 1, record_soft, 7, SOFT_N, NULL},
    {"silu", "the software silu", 1, record_soft, 8, SOFT_N, NULL},
    {"gemm", "a product with sums in chunks of 256", 1, record_gemm, 0, GEMM_M *GEMM_N, NULL},
    {"integers", "a product of small integers, whose sums no order changes", 1, record_integers, 0,
     GEMM_M *GEMM_N, NULL},
    {"rmsnorm", "a norm over rows, sums over 64 lanes", 1, record_rmsnorm, 0, 32 * NORM_COLS / 2,
     NULL, 1},
    {"attention", "causal attention over two sequences", 1, record_attention, 0,
     ATT_ROWS *ATT_HEADS *ATT_DIM / 2, NULL, 1},
    {"fused_fma", "whether fma() rounds once", 0, record_special, 8, N_SPECIAL, inform_fma},
    {"denormals", "whether denormals survive a product", 0, record_special, 9, N_SPECIAL,
     inform_denormals},
    {"folding", "whether x * 0 is folded to 0 for an Inf", 0, record_special, 6, N_SPECIAL,
     inform_folding},
};
_Static_assert(VKM_COUNTOF(probes) <= VKM_MAX_PROBES, "rows of a report");

/* ---- inputs: the same on every machine, so no libm
 * ------------------------------------------------- */

static uint32_t random_u32(uint32_t *state) {
    uint32_t x = *state = *state * 747796405u + 2891336453u;
    x = ((x >> ((x >> 28) + 4u)) ^ x) * 277803737u;
    return x >> 22 ^ x;
}

/* Bell-shaped: a sum of four uniform numbers, standard deviation about 0.6. */
static float bell(uint32_t *state) {
    int sum = 0;
    for (int i = 0; i < 4; i++) sum += (int)(random_u32(state) >> 8) - (1 << 23);
    return (float)sum * 0x1p-24f;
}

/* The same times 2^-8 to 2^7. */
static float normal(uint32_t *state) {
    float x = bell(state);
    int scale = (int)(random_u32(state) >> 28) - 8;
    return x * vkm_from_bits((uint32_t)(127 + scale) << 23);
}

typedef struct inputs {
    float x[N], y[N], w[N], positive[SOFT_N];
    uint16_t a[(GEMM_M + 15) / 16 * 16 * GEMM_K], b[(GEMM_N + 15) / 16 * 16 * GEMM_K];
    uint16_t ia[(GEMM_M + 15) / 16 * 16 * GEMM_K], ib[(GEMM_N + 15) / 16 * 16 * GEMM_K];
    uint16_t q[ATT_ROWS * ATT_HEADS * ATT_DIM], k[ATT_ROWS * ATT_DIM], v[ATT_ROWS * ATT_DIM];
    float want[N], got[N];
} inputs;

static const uint32_t attention_seqs[8] = {0, ATT_LONG, 0, 0, 288, ATT_SHORT, 0, 0};
static const float special_x[N_SPECIAL] = {1 + 0x1p-12f, 0x1p-100f, INFINITY, -0.0f, 0, -1, 0, 0};
static const float special_y[N_SPECIAL] = {1 + 0x1p-12f, 0x1p-40f, 1, 1, -1, 0, -0.0f, 0};
static const float special_w[N_SPECIAL] = {-1 - 0x1p-11f, 0x1p100f, 0, -0.0f, -0.0f, 0, -0.0f, 0};

static void fill_operand(uint16_t *v, uint32_t rows, uint32_t *state) {
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t k = 0; k < GEMM_K; k++)
            v[vkm_op_index(i, k, GEMM_K)] = (uint16_t)vkm_bf16z(normal(state));
}

/* -8 to 8. */
static void fill_integers(uint16_t *v, uint32_t rows, uint32_t *state) {
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t k = 0; k < GEMM_K; k++)
            v[vkm_op_index(i, k, GEMM_K)] =
                (uint16_t)vkm_bf16z((float)((int)(random_u32(state) % 17) - 8));
}

static void fill_bf16(uint16_t *v, uint32_t n, uint32_t *state) {
    for (uint32_t i = 0; i < n; i++) v[i] = (uint16_t)vkm_bf16z(bell(state));
}

static void fill_inputs(inputs *in) {
    uint32_t state = 20240229;
    for (uint32_t i = 0; i < N; i++) {
        in->x[i] = normal(&state);
        in->y[i] = normal(&state);
        in->w[i] = normal(&state);
        if (i < SOFT_N) in->positive[i] = in->x[i] < 0 ? -in->x[i] : in->x[i];
    }
    fill_operand(in->a, GEMM_M, &state);
    fill_operand(in->b, GEMM_N, &state);
    fill_integers(in->ia, GEMM_M, &state);
    fill_integers(in->ib, GEMM_N, &state);
    fill_bf16(in->q, VKM_COUNTOF(in->q), &state);
    fill_bf16(in->k, VKM_COUNTOF(in->k), &state);
    fill_bf16(in->v, VKM_COUNTOF(in->v), &state);
}

/* ---- running
 * --------------------------------------------------------------------------------------- */

/* How many results all probes have, of floats or of words. */
static uint64_t results(int operand) {
    uint64_t n = 0;
    for (size_t i = 0; i < VKM_COUNTOF(probes); i++)
        if (probes[i].operand == operand) n += probes[i].n;
    return n;
}

static vkm_status set_up(bench *b, vkm_dev *dev, const inputs *in, vkm_err *err) {
    *b = (bench){.dev = dev};
    vkm_plan *p = vkm_plan_new(dev);
    vkm_plan_add(p, &b->x, VKM_F32, N, "probes");
    vkm_plan_add(p, &b->y, VKM_F32, N, "probes");
    vkm_plan_add(p, &b->w, VKM_F32, N, "probes");
    vkm_plan_add(p, &b->floats, VKM_F32, results(0), "probes");
    vkm_plan_add(p, &b->words, VKM_BF16, 2 * results(1), "probes");
    vkm_plan_add(p, &b->q, VKM_BF16, VKM_COUNTOF(in->q), "probes");
    vkm_plan_add(p, &b->k, VKM_BF16, VKM_COUNTOF(in->k), "probes");
    vkm_plan_add(p, &b->v, VKM_BF16, VKM_COUNTOF(in->v), "probes");
    vkm_plan_add(p, &b->seqs, VKM_U32, VKM_COUNTOF(attention_seqs), "probes");
    vkm_plan_add(p, &b->m, VKM_F32, (uint64_t)ATT_ROWS * ATT_HEADS, "probes");
    vkm_plan_add(p, &b->l, VKM_F32, (uint64_t)ATT_ROWS * ATT_HEADS, "probes");
    vkm_plan_add(p, &b->positive, VKM_F32, SOFT_N, "probes");
    vkm_plan_add(p, &b->sx, VKM_F32, N_SPECIAL, "probes");
    vkm_plan_add(p, &b->sy, VKM_F32, N_SPECIAL, "probes");
    vkm_plan_add(p, &b->sw, VKM_F32, N_SPECIAL, "probes");
    vkm_plan_add(p, &b->a, VKM_BF16, VKM_COUNTOF(in->a), "probes");
    vkm_plan_add(p, &b->b, VKM_BF16, VKM_COUNTOF(in->b), "probes");
    vkm_plan_add(p, &b->ia, VKM_BF16, VKM_COUNTOF(in->ia), "probes");
    vkm_plan_add(p, &b->ib, VKM_BF16, VKM_COUNTOF(in->ib), "probes");
    if (vkm_plan_commit(p, &b->mem, err) || vkm_stream_new(dev, &b->stream, err))
        return err->status;
    const struct {
        vkm_tensor t;
        const void *src;
    } copies[] = {
        {b->x, in->x},      {b->y, in->y},      {b->w, in->w},      {b->positive, in->positive},
        {b->q, in->q},      {b->k, in->k},      {b->v, in->v},      {b->seqs, attention_seqs},
        {b->sx, special_x}, {b->sy, special_y}, {b->sw, special_w}, {b->a, in->a},
        {b->b, in->b},      {b->ia, in->ia},    {b->ib, in->ib}};
    for (size_t i = 0; i < VKM_COUNTOF(copies); i++)
        if (vkm_write(dev, copies[i].t, copies[i].src, err)) return err->status;
    return VKM_OK;
}

static void tear_down(bench *b) {
    vkm_stream_free(b->stream);
    vkm_mem_free(b->mem);
}

/* The results of probe i, which follow those of the probes before it. */
static vkm_tensor results_of(const bench *b, size_t i) {
    uint64_t at = 0;
    for (size_t j = 0; j < i; j++)
        if (probes[j].operand == probes[i].operand) at += probes[j].n;
    return probes[i].operand ? vkm_view(b->words, 2 * at, 2ull * probes[i].n)
                             : vkm_view(b->floats, at, probes[i].n);
}

/* All probes in one submit, so that their pipelines are made side by side. */
static vkm_status run_all(const bench *b, vkm_err *err) {
    for (size_t i = 0; i < VKM_COUNTOF(probes); i++)
        probes[i].record(b, probes[i].which, results_of(b, i));
    return vkm_stream_flush(b->stream, err);
}

static int same(float a, float b) {
    uint32_t x = vkm_bits(a), y = vkm_bits(b);
    int both_nan = (x & 0x7fffffffu) > 0x7f800000u && (y & 0x7fffffffu) > 0x7f800000u;
    return x == y || both_nan;
}

static void compare(vkm_probe_row *row, const probe *p, const float *want, const float *got) {
    *row = (vkm_probe_row){.name = p->name, .what = p->what, .required = p->required, .n = p->n};
    for (uint32_t i = p->n; i-- > 0;) {
        /* a special value's row belongs to the probe that informs of it */
        if (p->record == record_special && (p->inform || i < 3)) continue;
        if (same(want[i], got[i])) continue;
        row->n_bad++;
        snprintf(row->detail, sizeof row->detail, "element %u is %a (0x%08x), not %a (0x%08x)", i,
                 (double)got[i], vkm_bits(got[i]), (double)want[i], vkm_bits(want[i]));
    }
    row->passed = row->n_bad == 0;
    if (p->inform) p->inform(row, got);
}

/* Sums of real numbers are the device's own in the fast tier: `integers` judges it. */
static void leave_out(vkm_probe_row *row) {
    row->required = 0;
    snprintf(row->detail, sizeof row->detail, "products by cooperative matrices: fast tier");
}

vkm_status vkm_probe_run(vkm_dev *dev, vkm_probe_report *out, vkm_err *err) {
    const vkm_dev_options reference = {.backend = VKM_CPU, .threads = 1};
    double start = vkm_now_s();
    vkm_dev *cpu = NULL;
    bench theirs = {0}, ours = {0};
    *out = (vkm_probe_report){0};
    inputs *in = vkm_calloc(1, sizeof *in, "probes", err);
    if (!in) return err->status;
    fill_inputs(in);
    if (vkm_dev_open(&reference, &cpu, err)) goto done;
    if (set_up(&theirs, dev, in, err) || set_up(&ours, cpu, in, err)) goto done;
    if (run_all(&ours, err) || run_all(&theirs, err)) {
        vkm_fail_in(err, "probes");
        goto done;
    }
    for (size_t i = 0; i < VKM_COUNTOF(probes); i++) {
        if (vkm_read(cpu, results_of(&ours, i), in->want, err) ||
            vkm_read(dev, results_of(&theirs, i), in->got, err))
            goto done;
        vkm_probe_row *row = &out->rows[out->n++];
        compare(row, &probes[i], in->want, in->got);
        if (vkm_dev_matrix(dev).m && probes[i].record == record_gemm) leave_out(row);
        out->n_failed += row->required && !row->passed;
    }
done:
    tear_down(&theirs);
    tear_down(&ours);
    vkm_dev_close(cpu);
    vkm_dev_forget_profile(dev);
    free(in);
    out->seconds = vkm_now_s() - start;
    return err->status;
}

vkm_status vkm_probe_verdict(const vkm_dev *dev, const vkm_probe_report *report, vkm_err *err) {
    for (uint32_t i = 0; i < report->n; i++) {
        const vkm_probe_row *r = &report->rows[i];
        if (!r->required || r->passed) continue;
        return vkm_fail(err, VKM_FAILED,
                        "%s (%s) does not keep the numerics contract: probe '%s' (%s): %u of %u "
                        "results differ from the reference, %s; %u of the probes fail; update the "
                        "driver, choose another --device, or use --backend cpu",
                        vkm_dev_name(dev), vkm_dev_driver(dev), r->name, r->what, r->n_bad, r->n,
                        r->detail, report->n_failed);
    }
    return VKM_OK;
}

void vkm_probe_write(const vkm_probe_report *report, vkm_jw *w, const char *key) {
    vkm_jw_arr(w, key);
    for (uint32_t i = 0; i < report->n; i++) {
        const vkm_probe_row *r = &report->rows[i];
        vkm_jw_obj(w, NULL);
        vkm_jw_str(w, "name", r->name);
        vkm_jw_str(w, "what", r->what);
        vkm_jw_bool(w, "required", r->required);
        vkm_jw_bool(w, "passed", r->passed);
        vkm_jw_u64(w, "results", r->n);
        vkm_jw_u64(w, "differing", r->n_bad);
        vkm_jw_str(w, "detail", r->detail[0] ? r->detail : NULL);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
}

/* The report stays with the device, for the config.json of its runs. */
static vkm_status keep_report(vkm_dev *dev, const vkm_probe_report *report, vkm_err *err) {
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 0);
    vkm_probe_write(report, &w, NULL);
    if (vkm_strbuf_check(&text, "the probes", err))
        vkm_strbuf_free(&text);
    else
        vkm_dev_set_probes(dev, text.data);
    return err->status;
}

vkm_status vkm_device_open(const vkm_dev_options *o, vkm_dev **out, vkm_err *err) {
    vkm_dev *dev = NULL;
    if (vkm_dev_open(o, &dev, err)) return err->status;
    if (o->backend == VKM_VULKAN && !o->skip_probes) {
        vkm_probe_report *report = vkm_calloc(1, sizeof *report, "probes", err);
        if (!report || vkm_probe_run(dev, report, err) || vkm_probe_verdict(dev, report, err) ||
            keep_report(dev, report, err)) {
            free(report);
            vkm_dev_close(dev);
            return err->status;
        }
        vkm_debug("%u probes in %.0f ms", report->n, 1e3 * report->seconds);
        free(report);
    }
    vkm_tiles_load(dev);
    *out = dev;
    return VKM_OK;
}
