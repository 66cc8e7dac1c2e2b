/* The adapter's backward formulas, as the kernels compose them, against central finite differences
 * of the forward, all in double; and the factor g of weight gradients, bit for bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/kernels.h"

/* Two sequences of 10 and 7 rows, each padded to 16. Loss = sum of dy * y. */
enum { T = 32, IN = 24, OUT = 16, E = 2, R = 3, ER = E * R, KPER = 8, SEQS = 2 };
enum { N_X = T * IN, N_A = ER * IN, N_B = ER * OUT, N_Y = T * OUT, N_W = OUT * IN, N_F = SEQS * E };
static const uint32_t seqs[SEQS][4] = {{0, 10, 0, 0}, {16, 7, 0, 0}};

typedef struct problem {
    double x[N_X], w[N_W], wt[N_W], da[N_A], a0[N_A], b0t[N_B], dbt[N_B], f[N_F], dy[N_Y];
} problem;

typedef struct rig {
    vkm_dev *dev;
    vkm_stream *s;
    vkm_mem *mem;
    vkm_tensor x, w, wt, da, a0, b0t, dbt, f, dy; /* fp32 (double here), row-major */
    vkm_tensor xo, wo, wto, dyo, xto, dyto, stack_a, stack_b, b2, a2; /* operands */
    vkm_tensor t, h, y, dx, df, gda, gdbt, uh, ht, pz, pt, row_seq, seqs;
} rig;

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

static void rig_open(rig *r, vkm_backend_id backend) {
    vkm_err err = {0};
    vkm_dev_options o = {.backend = backend, .threads = 1};
    check(vkm_dev_open(&o, &r->dev, &err), &err);
    check(vkm_stream_new(r->dev, &r->s, &err), &err);
    struct {
        vkm_tensor *t;
        vkm_dtype dtype;
        uint64_t n;
    } all[] = {
        {&r->x, VKM_F32, N_X},
        {&r->w, VKM_F32, N_W},
        {&r->wt, VKM_F32, N_W},
        {&r->da, VKM_F32, N_A},
        {&r->a0, VKM_F32, N_A},
        {&r->b0t, VKM_F32, N_B},
        {&r->dbt, VKM_F32, N_B},
        {&r->f, VKM_F32, N_F},
        {&r->dy, VKM_F32, N_Y},
        {&r->xo, VKM_BF16, vkm_op_size(T, IN)},
        {&r->wo, VKM_BF16, vkm_op_size(OUT, IN)},
        {&r->wto, VKM_BF16, vkm_op_size(IN, OUT)},
        {&r->dyo, VKM_BF16, vkm_op_size(T, OUT)},
        {&r->xto, VKM_BF16, vkm_op_size(IN, T)},
        {&r->dyto, VKM_BF16, vkm_op_size(OUT, T)},
        {&r->stack_a, VKM_BF16, E * KPER * IN},
        {&r->stack_b, VKM_BF16, E * KPER * OUT},
        {&r->b2, VKM_BF16, vkm_op_size(OUT, E * KPER)},
        {&r->a2, VKM_BF16, vkm_op_size(IN, E * KPER)},
        {&r->t, VKM_F32, T * E * KPER},
        {&r->h, VKM_F32, T * E * KPER / 2},
        {&r->y, VKM_F32, N_Y},
        {&r->dx, VKM_F32, N_X},
        {&r->df, VKM_F32, T * E},
        {&r->gda, VKM_F32, N_A},
        {&r->gdbt, VKM_F32, N_B},
        {&r->uh, VKM_BF16, vkm_op_size(T, E * KPER)},
        {&r->ht, VKM_BF16, vkm_op_size(ER, T)},
        {&r->pz, VKM_BF16, vkm_op_size(T, E * KPER)},
        {&r->pt, VKM_BF16, vkm_op_size(ER, T)},
        {&r->row_seq, VKM_U32, T},
        {&r->seqs, VKM_U32, 4 * SEQS},
    };
    vkm_plan *p = vkm_plan_new(r->dev);
    for (size_t i = 0; i < VKM_COUNTOF(all); i++)
        vkm_plan_add(p, all[i].t, all[i].dtype, all[i].n, "test");
    check(vkm_plan_commit(p, &r->mem, &err), &err);
    uint32_t rows[T];
    memset(rows, 0xff, sizeof rows);
    for (uint32_t i = 0; i < SEQS; i++)
        for (uint32_t j = 0; j < seqs[i][1]; j++) rows[seqs[i][0] + j] = i;
    check(vkm_write(r->dev, r->row_seq, rows, &err), &err);
    check(vkm_write(r->dev, r->seqs, seqs, &err), &err);
}

static void rig_close(rig *r) {
    vkm_mem_free(r->mem);
    vkm_stream_free(r->s);
    vkm_dev_close(r->dev);
}

static void put(rig *r, vkm_tensor t, const double *x) {
    vkm_err err = {0};
    check(vkm_write_f64(r->dev, t, x, &err), &err);
}

static void get(rig *r, vkm_tensor t, double *x) {
    vkm_err err = {0};
    check(vkm_read_f64(r->dev, t, x, &err), &err);
}

static void load(rig *r, const problem *p) {
    put(r, r->x, p->x), put(r, r->w, p->w), put(r, r->wt, p->wt), put(r, r->da, p->da);
    put(r, r->a0, p->a0), put(r, r->b0t, p->b0t), put(r, r->dbt, p->dbt), put(r, r->f, p->f);
    put(r, r->dy, p->dy);
}

static void pack(rig *r, vkm_tensor x, vkm_tensor y, uint32_t rows, uint32_t cols) {
    VKM_OP(r->s, pack_f32, .x = x, .y = y, .n_rows = rows, .n_cols = cols, .ldx = cols);
}

static void pack_stack(rig *r, vkm_tensor first, vkm_tensor second, vkm_tensor y, uint32_t cols) {
    VKM_OP(r->s, lora_pack, .p0 = first, .p1 = second, .y = y, .n_experts = E, .rank = R,
           .n_cols = cols);
}

/* y += f (B0 u + dB h), u = dA x, h = A0 x + u. */
static void forward(rig *r) {
    pack(r, r->x, r->xo, T, IN);
    pack(r, r->w, r->wo, OUT, IN);
    pack_stack(r, r->da, r->a0, r->stack_a, IN);
    VKM_OP(r->s, lora_down, .a = r->xo, .b = r->stack_a, .uh = r->uh, .h = r->h, .m = T,
           .n = E * KPER, .k = IN, .has_h = 1);
    VKM_OP(r->s, lora_pack_t, .p0 = r->b0t, .p1 = r->dbt, .y = r->b2, .n_cols = OUT, .n_experts = E,
           .rank = R);
    VKM_OP(r->s, linear, .a = r->xo, .b = r->wo, .a2 = r->uh, .b2 = r->b2, .scale = r->f,
           .row_seq = r->row_seq, .res = r->y, .c = r->y, .m = T, .n = OUT, .k = IN,
           .kpa2 = E * KPER, .kper = KPER, .n_experts = E);
}

/* v = B0^T dy, z = dB^T dy; d(dA) = g (v + z) x^T; d(dB)^T = g h dy^T;
 * dx = W^T dy + f (dA^T (v + z) + A0^T z); df = v.u + z.h. Here g = f. */
static void backward(rig *r) {
    pack(r, r->dy, r->dyo, T, OUT);
    pack(r, r->wt, r->wto, IN, OUT);
    pack_stack(r, r->b0t, r->dbt, r->stack_b, OUT);
    VKM_OP(r->s, gemm, .a = r->dyo, .b = r->stack_b, .c = r->t, .m = T, .n = E * KPER, .k = OUT,
           .kpa = OUT, .kpb = OUT, .ldc = E * KPER);
    VKM_OP(r->s, lora_mid, .t = r->t, .uh = r->uh, .row_seq = r->row_seq, .pz = r->pz, .pt = r->pt,
           .ht = r->ht, .df = r->df, .n_rows = T, .kpu = E * KPER, .n_experts = E, .rank = R);
    VKM_OP(r->s, pack_transpose, .x = r->xo, .row_seq = r->row_seq, .y = r->xto, .n_rows = T,
           .n_cols = IN, .has_seq = 1);
    VKM_OP(r->s, pack_transpose, .x = r->dyo, .row_seq = r->row_seq, .y = r->dyto, .n_rows = T,
           .n_cols = OUT, .has_seq = 1);
    VKM_OP(r->s, gemm_seg, .a = r->pt, .b = r->xto, .seqs = r->seqs, .scale = r->f, .c = r->gda,
           .m = ER, .n = IN, .kpa = T, .kpb = T, .n_seq = SEQS, .rows_per_scale = R,
           .scale_stride = E);
    VKM_OP(r->s, gemm_seg, .a = r->ht, .b = r->dyto, .seqs = r->seqs, .scale = r->f, .c = r->gdbt,
           .m = ER, .n = OUT, .kpa = T, .kpb = T, .n_seq = SEQS, .rows_per_scale = R,
           .scale_stride = E);
    VKM_OP(r->s, lora_pack_t, .p0 = r->da, .p1 = r->a0, .y = r->a2, .n_cols = IN, .n_experts = E,
           .rank = R);
    VKM_OP(r->s, linear, .a = r->dyo, .b = r->wto, .a2 = r->pz, .b2 = r->a2, .scale = r->f,
           .row_seq = r->row_seq, .res = r->dx, .c = r->dx, .m = T, .n = IN, .k = OUT,
           .kpa2 = E * KPER, .kper = KPER, .n_experts = E);
}

static void flush(rig *r) {
    vkm_err err = {0};
    check(vkm_stream_flush(r->s, &err), &err);
}

static uint64_t state = 88172645463325252ull;
static double uniform(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) * 0x1p-53 * 2 - 1;
}
static void fill(double *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = uniform();
}

static void make(problem *p) {
    fill(p->x, N_X), fill(p->w, N_W), fill(p->da, N_A), fill(p->a0, N_A), fill(p->b0t, N_B);
    fill(p->dbt, N_B), fill(p->f, N_F), fill(p->dy, N_Y);
    for (int i = 0; i < OUT; i++)
        for (int j = 0; j < IN; j++) p->wt[j * OUT + i] = p->w[i * IN + j];
    for (int i = 0; i < T; i++) { /* padding rows carry no gradient */
        int real_row = i < 10 || (i >= 16 && i < 23);
        for (int j = 0; j < OUT && !real_row; j++) p->dy[i * OUT + j] = 0;
    }
}

static double loss(rig *r, const problem *p) {
    static double y[N_Y];
    load(r, p);
    forward(r);
    flush(r);
    get(r, r->y, y);
    double sum = 0;
    for (int i = 0; i < N_Y; i++) sum += p->dy[i] * y[i];
    return sum;
}

static void compare(rig *r, problem *p, const char *what, double *param, const double *grad,
                    int n) {
    const double step = 1e-4;
    double scale = 0;
    for (int i = 0; i < n; i++) scale = fmax(scale, fabs(grad[i]));
    assert_true(scale > 1e-3);
    for (int i = 0; i < n; i++) {
        double kept = param[i];
        param[i] = kept + step;
        double up = loss(r, p);
        param[i] = kept - step;
        double down = loss(r, p);
        param[i] = kept;
        double want = (up - down) / (2 * step);
        if (!(fabs(grad[i] - want) <= 1e-6 * scale))
            fail_msg("d%s[%d] is %.12g, differences give %.12g", what, i, grad[i], want);
    }
}

static void finite_differences(void **unused) {
    (void)unused;
    static problem p;
    static double dx[N_X], gda[N_A], gdbt[N_B], df_rows[T * E];
    double df[N_F] = {0};
    rig r = {0};
    rig_open(&r, VKM_ORACLE);
    make(&p);
    (void)loss(&r, &p);
    backward(&r);
    flush(&r);
    get(&r, r.dx, dx), get(&r, r.gda, gda), get(&r, r.gdbt, gdbt), get(&r, r.df, df_rows);
    for (int s = 0; s < SEQS; s++)
        for (uint32_t i = 0; i < seqs[s][1]; i++)
            for (int e = 0; e < E; e++) df[s * E + e] += df_rows[(seqs[s][0] + i) * E + e];
    compare(&r, &p, "x", p.x, dx, N_X);
    compare(&r, &p, "dA", p.da, gda, N_A);
    compare(&r, &p, "dB^T", p.dbt, gdbt, N_B);
    compare(&r, &p, "f", p.f, df, N_F);
    rig_close(&r);
}

/* The weight gradient of one sequence with g = 0, 1/2, 1, in the exact reference: nothing, exactly
 * half, all of the gradient without a factor. */
static void factor_of_gradients(void **unused) {
    (void)unused;
    static problem p;
    static const double g[3] = {0, 0.5, 1};
    static double got[4][N_A];
    rig r = {0};
    vkm_err err = {0};
    rig_open(&r, VKM_CPU);
    make(&p);
    (void)loss(&r, &p);
    backward(&r);
    flush(&r);
    for (int i = 0; i < 4; i++) {
        double f[N_F];
        for (int j = 0; j < N_F; j++) f[j] = i < 3 ? g[i] : 0;
        put(&r, r.f, f);
        check(vkm_zero(r.dev, r.gda, &err), &err);
        VKM_OP(r.s, gemm_seg, .a = r.pt, .b = r.xto, .seqs = r.seqs, .scale = r.f, .c = r.gda,
               .m = ER, .n = IN, .kpa = T, .kpb = T, .n_seq = 1, .rows_per_scale = R,
               .scale_stride = i < 3 ? E : 0);
        flush(&r);
        get(&r, r.gda, got[i]);
    }
    for (int j = 0; j < N_A; j++) {
        assert_true(got[3][j] != 0);
        assert_true(got[0][j] == 0 && !signbit(got[0][j]));
        assert_true(got[1][j] == 0.5 * got[3][j]);
        assert_true(got[2][j] == got[3][j]);
    }
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(finite_differences),
                                       cmocka_unit_test(factor_of_gradients)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
