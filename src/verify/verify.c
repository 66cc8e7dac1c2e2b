/* The gate harness: builds a case's tensors on the reference and on the device under test, runs the
 * op on both with two poisons, and compares the whole memory image, red zones included. */
#include "verify/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/numerics.h"
#include "verify/gates.h"

enum { MAX_TENSORS = 32, RED_ZONE_WORDS = 64 };
static const uint32_t poisons[2] = {0xffffffffu, 0x41c7a5b3u};

typedef struct host_tensor {
    uint32_t *words;
    uint64_t n, n_words;
    uint32_t dtype;
} host_tensor;

struct vkm_verify {
    const vkm_verify_options *o;
    vkm_dev *ref;
    vkm_stream *ref_stream, *dev_stream;
    uint64_t rng;
    host_tensor tensors[MAX_TENSORS];
    uint32_t n_tensors;
    int fast;     /* the device under test is in the fast tier */
    int integers; /* every value of a case is a small integer */
    int positive; /* no value of a case is negative */
    uint32_t cases, failures;
    int skipped; /* first_failure tells why */
    char first_failure[512];
};

/* ---- case data ---------------------------------------------------------------------------------
 */

static uint32_t random_u32(vkm_verify *v) { /* splitmix64; test data only */
    uint64_t z = (v->rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((z ^ (z >> 31)) >> 32);
}

uint32_t vkm_v_random(vkm_verify *v, uint32_t below) {
    return (uint32_t)(((uint64_t)random_u32(v) * below) >> 32);
}

int vkm_v_integers(const vkm_verify *v) {
    return v->integers;
}

static float normal(vkm_verify *v) {
    double u = (random_u32(v) + 1.0) / 4294967297.0, w = random_u32(v) / 4294967296.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * w));
}

static float adversarial(vkm_verify *v) {
    static const uint32_t bits[] = {0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff,
                                    0x00800000, 0x26800000, 0x267fffff, 0x26800001, 0xa67f8000,
                                    0x3f800000, 0xbf800000, 0x3f800001, 0x477fe000, 0x4b800000,
                                    0xcb7fffff, 0x33800000, 0xb4000000, 0x42b00000, 0xc2b00000};
    uint32_t pick = vkm_v_random(v, 2 * VKM_COUNTOF(bits));
    return pick < VKM_COUNTOF(bits) ? vkm_from_bits(bits[pick]) : normal(v);
}

static float fill_value(vkm_verify *v, vkm_fill fill) {
    if (v->integers)
        return fill == VKM_FILL_POSITIVE ? 1 + (float)vkm_v_random(v, 8)
                                         : (float)vkm_v_random(v, 17) - 8;
    if (v->positive) {
        float x = fabsf(normal(v));
        int far = fill == VKM_FILL_WIDE || fill == VKM_FILL_ADVERSARIAL;
        return far ? ldexpf(x, (int)vkm_v_random(v, 17) - 46) : x;
    }
    switch (fill) {
    case VKM_FILL_NORMAL:
        return normal(v);
    case VKM_FILL_SMALL:
        return ldexpf(normal(v), -20);
    case VKM_FILL_WIDE:
        return ldexpf(normal(v), (int)vkm_v_random(v, 91) - 60);
    case VKM_FILL_POSITIVE:
        return (float)((random_u32(v) >> 8) + 1) * 0x1p-24f;
    case VKM_FILL_ADVERSARIAL:
        return adversarial(v);
    case VKM_FILL_SPECIAL: {
        uint32_t pick = vkm_v_random(v, 16);
        return pick == 0 ? INFINITY : pick == 1 ? -INFINITY : pick == 2 ? NAN : adversarial(v);
    }
    }
    return 0;
}

static vkm_tensor new_tensor(vkm_verify *v, uint64_t n, vkm_dtype dtype) {
    VKM_BUG_ON(v->n_tensors == MAX_TENSORS, "too many tensors in one case");
    uint32_t esz = dtype == VKM_BF16 ? 2 : 4;
    host_tensor *t = &v->tensors[v->n_tensors++];
    t->n = n;
    t->n_words = (n * esz + 3) / 4;
    t->dtype = dtype;
    t->words = calloc(t->n_words + 1, 4);
    VKM_BUG_ON(!t->words, "no memory for a case");
    return (vkm_tensor){(uint64_t)(uintptr_t)t->words, n, esz, dtype};
}

vkm_tensor vkm_v_f32(vkm_verify *v, uint64_t n, vkm_fill fill) {
    vkm_tensor t = new_tensor(v, n, VKM_F32);
    for (uint64_t i = 0; i < n; i++) ((float *)(uintptr_t)t.addr)[i] = fill_value(v, fill);
    return t;
}

static uint16_t bf16_value(vkm_verify *v, vkm_fill fill) {
    return (uint16_t)vkm_bf16z(fill_value(v, fill));
}

vkm_tensor vkm_v_bf16(vkm_verify *v, uint64_t n, vkm_fill fill) {
    vkm_tensor t = new_tensor(v, n, VKM_BF16);
    for (uint64_t i = 0; i < n; i++) ((uint16_t *)(uintptr_t)t.addr)[i] = bf16_value(v, fill);
    return t;
}

vkm_tensor vkm_v_op16(vkm_verify *v, uint64_t rows, uint32_t k, vkm_fill fill) {
    vkm_tensor t = new_tensor(v, vkm_op_size(rows, k), VKM_BF16);
    uint16_t *x = (uint16_t *)(uintptr_t)t.addr;
    for (uint64_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < k; j++) x[vkm_op_index(i, j, vkm_op_kp(k))] = bf16_value(v, fill);
    return t;
}

vkm_tensor vkm_v_u32(vkm_verify *v, uint64_t n, uint32_t below) {
    vkm_tensor t = new_tensor(v, n, VKM_U32);
    for (uint64_t i = 0; i < n; i++) ((uint32_t *)(uintptr_t)t.addr)[i] = vkm_v_random(v, below);
    return t;
}

vkm_tensor vkm_v_u32_distinct(vkm_verify *v, uint32_t n, uint32_t below) {
    vkm_tensor t = new_tensor(v, n, VKM_U32);
    uint32_t *x = (uint32_t *)(uintptr_t)t.addr, each = below / n;
    for (uint32_t i = 0; i < n; i++) x[i] = (n - 1 - i) * each + vkm_v_random(v, each);
    return t;
}

vkm_tensor vkm_v_u32_data(vkm_verify *v, const uint32_t *x, uint64_t n) {
    vkm_tensor t = new_tensor(v, n, VKM_U32);
    memcpy((void *)(uintptr_t)t.addr, x, n * 4);
    return t;
}

vkm_tensor vkm_v_f32_data(vkm_verify *v, const float *x, uint64_t n) {
    vkm_tensor t = new_tensor(v, n, VKM_F32);
    memcpy((void *)(uintptr_t)t.addr, x, n * 4);
    return t;
}

vkm_tensor vkm_v_f32_out(vkm_verify *v, uint64_t n) {
    return new_tensor(v, n, VKM_F32);
}
vkm_tensor vkm_v_bf16_out(vkm_verify *v, uint64_t n) {
    return new_tensor(v, n, VKM_BF16);
}
vkm_tensor vkm_v_u32_out(vkm_verify *v, uint64_t n) {
    return new_tensor(v, n, VKM_U32);
}
vkm_tensor vkm_v_op16_out(vkm_verify *v, uint64_t rows, uint32_t k) {
    return new_tensor(v, vkm_op_size(rows, k), VKM_BF16);
}

/* ---- one run -----------------------------------------------------------------------------------
 */

/* The memory of one tensor after a run: red zone, data, red zone. */
typedef struct image {
    uint32_t *words[MAX_TENSORS];
} image;

static void image_free(image *im) {
    for (uint32_t i = 0; i < MAX_TENSORS; i++) free(im->words[i]);
    *im = (image){{0}};
}

/* 1 if any parameter that reads (or writes) uses tensor i. */
static int used_as(const vkm_kernel *k, const void *args, const host_tensor *t, int reading) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < k->n_params; i++) {
        vkm_param_kind kind = k->params[i].kind;
        uint32_t o = vkm_param_offset(&at, kind);
        if (!vkm_param_is_pointer(kind)) continue;
        vkm_tensor x;
        memcpy(&x, (const char *)args + o, sizeof x);
        if (x.addr != (uint64_t)(uintptr_t)t->words) continue;
        if (kind == VKM_P_INOUT || (kind == VKM_P_IN) == reading) return 1;
    }
    return 0;
}

static vkm_status execute(vkm_verify *v, vkm_stream *stream, const vkm_kernel *k, vkm_v_op op,
                          const void *args, uint32_t poison, image *out, vkm_err *err) {
    vkm_dev *dev = vkm_stream_dev(stream);
    vkm_tensor place[MAX_TENSORS];
    _Alignas(8) unsigned char moved[512];
    vkm_mem *mem = NULL;
    vkm_plan *plan = vkm_plan_new(dev);
    for (uint32_t i = 0; i < v->n_tensors; i++)
        vkm_plan_add(plan, &place[i], VKM_U32, v->tensors[i].n_words + 2 * RED_ZONE_WORDS, "case");
    if (vkm_plan_commit(plan, &mem, err)) return err->status;
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        const host_tensor *t = &v->tensors[i];
        uint64_t total = t->n_words + 2 * RED_ZONE_WORDS;
        out->words[i] = vkm_calloc(total, 4, "a case", err);
        if (!out->words[i]) goto done;
        for (uint64_t j = 0; j < total; j++) out->words[i][j] = poison;
        if (used_as(k, args, t, 1))
            memcpy(out->words[i] + RED_ZONE_WORDS, t->words, t->n_words * 4);
        if (vkm_write(dev, place[i], out->words[i], err)) goto done;
    }
    uint32_t at = 0, bytes = 0;
    for (uint32_t i = 0; i < k->n_params; i++) (void)vkm_param_offset(&bytes, k->params[i].kind);
    memcpy(moved, args, bytes);
    for (uint32_t i = 0; i < k->n_params; i++) {
        uint32_t o = vkm_param_offset(&at, k->params[i].kind), j = 0;
        if (!vkm_param_is_pointer(k->params[i].kind)) continue;
        vkm_tensor x;
        memcpy(&x, moved + o, sizeof x);
        while (j < v->n_tensors && (uint64_t)(uintptr_t)v->tensors[j].words != x.addr) j++;
        VKM_BUG_ON(j == v->n_tensors, "%s: '%s' is no tensor of this case", k->name,
                   k->params[i].name);
        x.addr = place[j].addr + 4ull * RED_ZONE_WORDS;
        memcpy(moved + o, &x, sizeof x);
    }
    op(stream, moved);
    if (vkm_stream_flush(stream, err)) goto done;
    for (uint32_t i = 0; i < v->n_tensors; i++)
        if (vkm_read(dev, place[i], out->words[i], err)) goto done;
done:
    vkm_mem_free(mem);
    return err->status;
}

static int is_nan_bf16(uint32_t h) {
    return (h & 0x7fff) > 0x7f80;
}

static int same_word(uint32_t dtype, uint32_t a, uint32_t b) {
    if (a == b) return 1;
    if (dtype == VKM_F32) return (a & 0x7fffffff) > 0x7f800000 && (b & 0x7fffffff) > 0x7f800000;
    if (dtype != VKM_BF16) return 0;
    int lo = (a & 0xffff) == (b & 0xffff) || (is_nan_bf16(a) && is_nan_bf16(b));
    int hi = (a >> 16) == (b >> 16) || (is_nan_bf16(a >> 16) && is_nan_bf16(b >> 16));
    return lo && hi;
}

void vkm_v_fail(vkm_verify *v, const char *fmt, ...) {
    if (v->failures++) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->first_failure, sizeof v->first_failure, fmt, ap);
    va_end(ap);
}

void vkm_v_skip(vkm_verify *v, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->first_failure, sizeof v->first_failure, fmt, ap);
    va_end(ap);
    v->skipped = 1;
}

static const char *name_of(const vkm_kernel *k, const void *args, const host_tensor *t) {
    uint32_t at = 0;
    for (uint32_t i = 0; i < k->n_params; i++) {
        uint32_t o = vkm_param_offset(&at, k->params[i].kind);
        if (!vkm_param_is_pointer(k->params[i].kind)) continue;
        vkm_tensor x;
        memcpy(&x, (const char *)args + o, sizeof x);
        if (x.addr == (uint64_t)(uintptr_t)t->words) return k->params[i].name;
    }
    return "?";
}

/* One line with every scalar of the case, to reproduce it. */
static void describe(const vkm_kernel *k, const void *args, char *out, size_t size) {
    uint32_t at = 0;
    size_t len = 0;
    out[0] = 0;
    for (uint32_t i = 0; i < k->n_params && len < size; i++) {
        uint32_t o = vkm_param_offset(&at, k->params[i].kind), u;
        if (vkm_param_is_pointer(k->params[i].kind)) continue;
        memcpy(&u, (const char *)args + o, 4);
        int wrote = k->params[i].kind == VKM_P_U32
                        ? snprintf(out + len, size - len, " %s=%u", k->params[i].name, u)
                        : snprintf(out + len, size - len, " %s=%g", k->params[i].name,
                                   (double)vkm_from_bits(u));
        len += (size_t)(wrote > 0 ? wrote : 0);
    }
}

/* ---- the fast tier's gate ----------------------------------------------------------------------
 * Products by cooperative matrices add in an order of the device's own. What is demanded of them:
 * on small integers, whose sums are exact in any order, the reference's bits; on other values a
 * bounded distance; the same bits twice.
 *
 * Products: PRODUCT times the sum of the terms' absolute values, which the reference makes of the
 * absolute values of all floats: an eighth of what one operand's rounding to bf16 may be. Attention
 * rounds a weight, its gradient and a sum of weights to bf16, each of which another order may tip
 * to the next one, a unit of 2^-7 at most; its terms are not linear in its inputs, so that these
 * are positive. */

static const float PRODUCT = 0x1p-12f, ATTENTION = 0x1p-7f;

static int has_matrix_form(const vkm_verify *v, const vkm_kernel *k) {
    if (!v->fast) return 0;
    const vkm_code *c = &k->forms[vkm_dev_matrix(v->o->dev).form];
    return c->at != c->end;
}

static int is_attention(const vkm_kernel *k) {
    return !strncmp(k->name, "attn_", 5);
}

static int is_bounded(const vkm_verify *v, const vkm_kernel *k) {
    return has_matrix_form(v, k) && !v->integers;
}

/* The reference's results on the absolute values of all floats. */
static vkm_status run_absolute(vkm_verify *v, const vkm_kernel *k, vkm_v_op op, const void *args,
                               image *out, vkm_err *err) {
    uint64_t n_words = 0;
    for (uint32_t i = 0; i < v->n_tensors; i++) n_words += v->tensors[i].n_words;
    uint32_t *kept = vkm_calloc(n_words, sizeof *kept, "a case", err), *to = kept;
    if (!kept) return err->status;
    for (uint32_t i = 0; i < v->n_tensors; i++) {
        host_tensor *t = &v->tensors[i];
        uint32_t mask = t->dtype == VKM_F32    ? 0x7fffffffu
                        : t->dtype == VKM_BF16 ? 0x7fff7fffu
                                               : 0xffffffffu;
        for (uint64_t j = 0; j < t->n_words; j++) {
            *to++ = t->words[j];
            t->words[j] &= mask;
        }
    }
    vkm_status st = execute(v, v->ref_stream, k, op, args, poisons[0], out, err);
    const uint32_t *from = kept;
    for (uint32_t i = 0; i < v->n_tensors; i++)
        for (uint64_t j = 0; j < v->tensors[i].n_words; j++) v->tensors[i].words[j] = *from++;
    free(kept);
    return st;
}

static int is_near(uint32_t dtype, uint32_t a, uint32_t b, uint32_t terms, float bound) {
    float slack = dtype == VKM_BF16 ? 0x1p-7f : 0; /* an output rounded to bf16: one unit */
    for (int half = 0; half < (dtype == VKM_BF16 ? 2 : 1); half++) {
        uint32_t shift = dtype == VKM_BF16 && !half ? 16 : 0,
                 mask = dtype == VKM_BF16 ? 0xffff0000u : ~0u;
        float x = vkm_from_bits((a << shift) & mask), y = vkm_from_bits((b << shift) & mask);
        float sum = fabsf(vkm_from_bits((terms << shift) & mask)), far = fabsf(x - y);
        if (!(far <= bound * sum + slack * fmaxf(fabsf(x), fabsf(y)))) return 0;
    }
    return 1;
}

/* ---- comparing ----------------------------------------------------------------------------------
 */

/* Compares the images of tensor i after runs of reference and device with one poison. terms: sums
 * of absolute terms, where a distance is allowed. */
static void compare(vkm_verify *v, const vkm_kernel *k, const void *args, uint32_t i,
                    const image *ref, const image *dev, const image *terms, uint32_t poison) {
    const host_tensor *t = &v->tensors[i];
    char scalars[256];
    float bound = is_attention(k) ? ATTENTION : PRODUCT;
    describe(k, args, scalars, sizeof scalars);
    for (uint64_t j = 0; j < t->n_words + 2 * RED_ZONE_WORDS; j++) {
        uint32_t a = ref->words[i][j], b = dev->words[i][j]; // NOLINT: execute filled them
        int red = j < RED_ZONE_WORDS || j >= RED_ZONE_WORDS + t->n_words;
        uint64_t at = (j - RED_ZONE_WORDS) * (t->dtype == VKM_BF16 ? 2 : 1);
        if (red && (a != poison || b != poison)) {
            vkm_v_fail(v, "%s:%s: %s wrote past '%s'", k->name, scalars,
                       a != poison ? "the reference" : "the device", name_of(k, args, t));
            return;
        }
        if (same_word(t->dtype, a, b)) continue;
        if (terms->words[i] && is_near(t->dtype, a, b, terms->words[i][j], bound)) continue;
        vkm_v_fail(v, "%s:%s: '%s'[%llu] is %08x (%g), the reference has %08x (%g)", k->name,
                   scalars, name_of(k, args, t), (unsigned long long)at, b,
                   (double)vkm_from_bits(b), a, (double)vkm_from_bits(a));
        return;
    }
}

/* A word that is written must not depend on what lay there before. */
static void compare_poisons(vkm_verify *v, const vkm_kernel *k, const void *args, uint32_t i,
                            const image *p0, const image *p1) {
    const host_tensor *t = &v->tensors[i];
    int reads = used_as(k, args, t, 1), writes = used_as(k, args, t, 0);
    for (uint64_t j = RED_ZONE_WORDS; j < RED_ZONE_WORDS + t->n_words; j++) {
        uint32_t a = p0->words[i][j], b = p1->words[i][j]; // NOLINT: execute filled them
        int kept = !reads && a == poisons[0] && b == poisons[1];
        if (!kept && !same_word(t->dtype, a, b)) {
            vkm_v_fail(v, "%s: '%s' depends on memory it was not given", k->name,
                       name_of(k, args, t));
            return;
        }
        if (reads && !writes && a != t->words[j - RED_ZONE_WORDS]) {
            vkm_v_fail(v, "%s: the input '%s' was changed", k->name, name_of(k, args, t));
            return;
        }
    }
}

void vkm_v_run(vkm_verify *v, const vkm_kernel *k, vkm_v_op op, const void *args,
               const char *what) {
    image ref[2] = {{{0}}}, dev[2] = {{{0}}}, terms = {{0}};
    vkm_err err = {0};
    vkm_status st = VKM_OK;
    for (int p = 0; p < 2 && !st; p++) {
        st = execute(v, v->ref_stream, k, op, args, poisons[p], &ref[p], &err);
        if (!st) st = execute(v, v->dev_stream, k, op, args, poisons[p], &dev[p], &err);
    }
    if (!st && is_bounded(v, k)) st = run_absolute(v, k, op, args, &terms, &err);
    if (st) vkm_v_fail(v, "%s: %s", what, err.msg);
    for (uint32_t i = 0; i < v->n_tensors && !st; i++) {
        for (int p = 0; p < 2; p++) compare(v, k, args, i, &ref[p], &dev[p], &terms, poisons[p]);
        compare_poisons(v, k, args, i, &dev[0], &dev[1]);
    }
    v->cases++;
    for (int p = 0; p < 2; p++) image_free(&ref[p]), image_free(&dev[p]);
    image_free(&terms);
    while (v->n_tensors) free(v->tensors[--v->n_tensors].words);
}

/* ---- for method gates --------------------------------------------------------------------------
 */

vkm_dev *vkm_v_dev(vkm_verify *v) {
    return v->o->dev;
}
void vkm_v_count(vkm_verify *v) {
    v->cases++;
}

/* ---- the table ---------------------------------------------------------------------------------
 */

static const vkm_gate kernel_gates[] = {
#define KERNEL(name, doc, ...) {#name, doc, vkm_cases_##name},
#include "ops/kernels.def"
#undef KERNEL
};

typedef struct tally {
    uint32_t gates, failed, skipped;
} tally;

/* k: the kernel that the gate is for, or NULL. */
static void run_gate(vkm_verify *v, const vkm_gate *g, const char *group, const vkm_kernel *k,
                     FILE *table, tally *sum) {
    char full[96];
    snprintf(full, sizeof full, "%s/%s", group, g->name);
    if (v->o->select && !strstr(full, v->o->select)) return;
    sum->gates++;
    if (v->o->list) {
        fprintf(table, "%-32s %s\n", full, g->doc);
        return;
    }
    v->cases = v->failures = 0;
    v->skipped = 0;
    v->rng = v->o->seed;
    double start = vkm_now_s();
    int by_matrices = k && has_matrix_form(v, k);
    if (v->fast && !strcmp(group, "method")) {
        vkm_v_skip(v, "it demands equal bits, which are the exact tier's");
    } else {
        v->integers = by_matrices;
        if (v->integers) g->run(v);
        v->integers = 0;
        v->positive = by_matrices && is_attention(k);
        g->run(v);
        v->positive = 0;
    }
    double ms = 1e3 * (vkm_now_s() - start);
    if (!v->cases && !v->skipped) vkm_v_fail(v, "the gate ran no case");
    const char *verdict = v->failures ? "FAIL" : v->skipped ? "skip" : "ok";
    if (v->failures) v->skipped = 0;
    sum->failed += v->failures != 0;
    sum->skipped += v->skipped != 0;
    if (v->o->json)
        fprintf(table,
                "{\"gate\":\"%s\",\"cases\":%u,\"failures\":%u,\"skipped\":%s,\"ms\":%.1f}\n", full,
                v->cases, v->failures, v->skipped ? "true" : "false", ms);
    else
        fprintf(table, "%-32s %6u  %-4s %9.1f ms\n", full, v->cases, verdict, ms);
    if (v->failures || v->skipped)
        vkm_warn("%s%s: %s", full, v->skipped ? " was not run" : "", v->first_failure);
    fflush(table);
}

vkm_status vkm_verify_run(const vkm_verify_options *o, FILE *table, vkm_err *err) {
    vkm_verify v = {.o = o};
    vkm_dev_options ref = {.backend = VKM_CPU, .threads = 1};
    tally sum = {0};
    if (vkm_dev_open(&ref, &v.ref, err)) return err->status;
    if (vkm_stream_new(v.ref, &v.ref_stream, err)) goto done;
    if (!o->list && vkm_stream_new(o->dev, &v.dev_stream, err)) goto done;
    v.fast = !o->list && vkm_dev_matrix(o->dev).m;
    if (!o->list && !o->json)
        fprintf(table, "device %s (%s)\n%-32s %6s  %-4s %12s\n", vkm_dev_name(o->dev),
                vkm_dev_driver(o->dev), "gate", "cases", "", "time");
    for (size_t i = 0; i < VKM_COUNTOF(kernel_gates); i++)
        run_gate(&v, &kernel_gates[i], "kernel", &vkm_kernels[i], table, &sum);
    for (uint32_t i = 0; i < vkm_n_method_gates; i++)
        run_gate(&v, &vkm_method_gates[i], "method", NULL, table, &sum);
    for (uint32_t i = 0; i < vkm_n_env_gates; i++)
        run_gate(&v, &vkm_env_gates[i], "env", NULL, table, &sum);
    if (!sum.gates)
        vkm_fail(err, VKM_USAGE, "no gate's name contains '%s'; --list shows them", o->select);
    else if (sum.failed)
        vkm_fail(err, VKM_FAILED, "%u of %u gates failed", sum.failed, sum.gates);
    else if (!o->list && !o->json && sum.skipped)
        fprintf(table, "%u gates passed, %u were not run\n", sum.gates - sum.skipped, sum.skipped);
    else if (!o->list && !o->json)
        fprintf(table, "%u gates passed\n", sum.gates);
done:
    vkm_stream_free(v.dev_stream);
    vkm_stream_free(v.ref_stream);
    vkm_dev_close(v.ref);
    return err->status;
}
