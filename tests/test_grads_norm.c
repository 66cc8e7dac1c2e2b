/* Gradients of the norms, the rotary embedding and SwiGLU: the oracle's backward against central
 * differences of the oracle's forward, and the exact tier against the oracle. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/kernels.h"
#include "ops/rope_table.h"
#include "vk/backend.h"

enum { ROWS = 3, COLS = 70, HEADS = 2, DIM = 12, MAX_N = 448, MAX_TENSORS = 10 };

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

/* Values of about unit size that fp32 holds exactly. */
static double value(uint32_t i, uint32_t salt) {
    uint32_t h = (i * 2654435761u) ^ (salt * 40503u + 977u);
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return (double)(int)(h >> 12) * 0x1p-18 - 2;
}

/* ---- one run on one device ---------------------------------------------------------------------
 */

typedef struct bench {
    vkm_dev *dev;
    vkm_plan *plan;
    vkm_mem *mem;
    vkm_stream *stream;
    vkm_tensor t[MAX_TENSORS];
    uint32_t n;
} bench;

static vkm_tensor *tensor(bench *b, vkm_dtype dtype, uint64_t n) {
    assert_true(b->n < MAX_TENSORS);
    vkm_plan_add(b->plan, &b->t[b->n], dtype, n, "test");
    return &b->t[b->n++];
}

static void begin(bench *b) {
    vkm_err err = {0};
    check(vkm_plan_commit(b->plan, &b->mem, &err), &err);
    check(vkm_stream_new(b->dev, &b->stream, &err), &err);
}

static void put(bench *b, const vkm_tensor *t, const double *x) {
    vkm_err err = {0};
    check(vkm_write_f64(b->dev, *t, x, &err), &err);
}

static void put_values(bench *b, const vkm_tensor *t, uint32_t salt) {
    double x[MAX_N];
    for (uint32_t i = 0; i < t->n; i++) x[i] = value(i, salt);
    put(b, t, x);
}

static void get(bench *b, const vkm_tensor *t, double *x) {
    vkm_err err = {0};
    check(vkm_stream_flush(b->stream, &err), &err);
    check(vkm_read_f64(b->dev, *t, x, &err), &err);
}

static void get_operand(bench *b, const vkm_tensor *t, uint32_t rows, uint32_t k, double *x) {
    double raw[16 * 80];
    assert_true(t->n <= VKM_COUNTOF(raw));
    get(b, t, raw);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < k; j++) x[i * k + j] = raw[vkm_op_index(i, j, vkm_op_kp(k))];
}

static void end(bench *b) {
    vkm_stream_free(b->stream);
    vkm_mem_free(b->mem);
}

/* y = f(x); dx = (df/dx)^T dy. Row-major whatever the kernel's layout. */
typedef void (*run_fn)(vkm_dev *dev, const double *x, const double *dy, double *y, double *dx);

static void run_rmsnorm(vkm_dev *dev, const double *x, const double *dy, double *y, double *dx) {
    bench b = {.dev = dev, .plan = vkm_plan_new(dev)};
    vkm_tensor *tx = tensor(&b, VKM_F32, ROWS * COLS), *gain = tensor(&b, VKM_F32, COLS);
    vkm_tensor *ty = tensor(&b, VKM_BF16, vkm_op_size(ROWS, COLS)),
               *rstd = tensor(&b, VKM_F32, ROWS);
    vkm_tensor *tdy = tensor(&b, VKM_F32, ROWS * COLS), *tdx = tensor(&b, VKM_F32, ROWS * COLS);
    begin(&b);
    put(&b, tx, x);
    put(&b, tdy, dy);
    put_values(&b, gain, 1);
    VKM_OP(b.stream, rmsnorm_fwd, *tx, *gain, *ty, *rstd, ROWS, COLS, 1e-6f);
    VKM_OP(b.stream, rmsnorm_bwd, *tdy, *tx, *gain, *rstd, *tdx, ROWS, COLS, 0);
    get_operand(&b, ty, ROWS, COLS, y);
    get(&b, tdx, dx);
    end(&b);
}

/* The same through accumulation: dx = (dx0 + d) - dx0 is checked as the sum less its start. */
static void run_rmsnorm_adding(vkm_dev *dev, const double *x, const double *dy, double *y,
                               double *dx) {
    bench b = {.dev = dev, .plan = vkm_plan_new(dev)};
    vkm_tensor *tx = tensor(&b, VKM_F32, ROWS * COLS), *gain = tensor(&b, VKM_F32, COLS);
    vkm_tensor *ty = tensor(&b, VKM_BF16, vkm_op_size(ROWS, COLS)),
               *rstd = tensor(&b, VKM_F32, ROWS);
    vkm_tensor *tdy = tensor(&b, VKM_F32, ROWS * COLS), *tdx = tensor(&b, VKM_F32, ROWS * COLS);
    begin(&b);
    put(&b, tx, x);
    put(&b, tdy, dy);
    put_values(&b, gain, 1);
    put_values(&b, tdx, 7);
    VKM_OP(b.stream, rmsnorm_fwd, *tx, *gain, *ty, *rstd, ROWS, COLS, 1e-6f);
    VKM_OP(b.stream, rmsnorm_bwd, *tdy, *tx, *gain, *rstd, *tdx, ROWS, COLS, 1);
    get_operand(&b, ty, ROWS, COLS, y);
    get(&b, tdx, dx);
    for (uint32_t i = 0; i < ROWS * COLS; i++) dx[i] -= value(i, 7);
    end(&b);
}

/* The rotary embedding, behind the heads' norm or by itself. */
static void run_qk(vkm_dev *dev, uint32_t has_norm, const double *x, const double *dy, double *y,
                   double *dx) {
    enum { N = ROWS * HEADS * DIM, POSITIONS = 40 };
    static const uint32_t positions[ROWS] = {0, 7, 39};
    float c[POSITIONS * DIM / 2], s[POSITIONS * DIM / 2];
    vkm_err err = {0};
    bench b = {.dev = dev, .plan = vkm_plan_new(dev)};
    vkm_tensor *tx = tensor(&b, VKM_F32, N), *ty = tensor(&b, VKM_BF16, N);
    vkm_tensor *gain = tensor(&b, VKM_F32, DIM), *rstd = tensor(&b, VKM_F32, ROWS * HEADS);
    vkm_tensor *cosines = tensor(&b, VKM_F32, VKM_COUNTOF(c));
    vkm_tensor *sines = tensor(&b, VKM_F32, VKM_COUNTOF(s)), *pos = tensor(&b, VKM_U32, ROWS);
    vkm_tensor *tdy = tensor(&b, VKM_F32, N), *tdn = tensor(&b, VKM_F32, N);
    vkm_tensor *tdx = tensor(&b, VKM_BF16, vkm_op_size(ROWS, HEADS * DIM));
    begin(&b);
    vkm_rope_table(c, s, POSITIONS, DIM, &(vkm_rope){.theta = 10000});
    check(vkm_write(dev, *cosines, c, &err), &err);
    check(vkm_write(dev, *sines, s, &err), &err);
    check(vkm_write(dev, *pos, positions, &err), &err);
    put(&b, tx, x);
    put(&b, tdy, dy);
    put_values(&b, gain, 2);
    VKM_OP(b.stream, qk_fwd, *tx, *gain, *cosines, *sines, *pos, *pos, *ty, *rstd, ROWS, HEADS, DIM,
           has_norm, 0, 1e-6f);
    VKM_OP(b.stream, rope_bwd, *tdy, *cosines, *sines, *pos, *tdn, ROWS, HEADS, DIM);
    if (has_norm) VKM_OP(b.stream, headnorm_bwd, *tdn, *tx, *gain, *rstd, *tdx, ROWS, HEADS, DIM);
    get(&b, ty, y);
    if (has_norm)
        get_operand(&b, tdx, ROWS, HEADS * DIM, dx);
    else
        get(&b, tdn, dx);
    end(&b);
}

static void run_norm_and_rope(vkm_dev *dev, const double *x, const double *dy, double *y,
                              double *dx) {
    run_qk(dev, 1, x, dy, y, dx);
}
static void run_rope(vkm_dev *dev, const double *x, const double *dy, double *y, double *dx) {
    run_qk(dev, 0, x, dy, y, dx);
}

/* x = gate then up, dx likewise */
static void run_swiglu(vkm_dev *dev, const double *x, const double *dy, double *y, double *dx) {
    enum { N = ROWS * COLS };
    bench b = {.dev = dev, .plan = vkm_plan_new(dev)};
    vkm_tensor *gate = tensor(&b, VKM_F32, N), *up = tensor(&b, VKM_F32, N);
    vkm_tensor *tdy = tensor(&b, VKM_F32, N), *ty = tensor(&b, VKM_BF16, vkm_op_size(ROWS, COLS));
    vkm_tensor *dgate = tensor(&b, VKM_BF16, vkm_op_size(ROWS, COLS));
    vkm_tensor *dup = tensor(&b, VKM_BF16, vkm_op_size(ROWS, COLS));
    begin(&b);
    put(&b, gate, x);
    put(&b, up, x + N);
    put(&b, tdy, dy);
    VKM_OP(b.stream, swiglu_fwd, *gate, *up, *ty, ROWS, COLS);
    VKM_OP(b.stream, swiglu_bwd, *gate, *up, *tdy, *dgate, *dup, ROWS, COLS);
    get_operand(&b, ty, ROWS, COLS, y);
    get_operand(&b, dgate, ROWS, COLS, dx);
    get_operand(&b, dup, ROWS, COLS, dx + N);
    end(&b);
}

/* ---- the checks --------------------------------------------------------------------------------
 */

typedef struct subject {
    const char *name;
    run_fn run;
    uint32_t n_x, n_y;
    int y_bf16, dx_bf16; /* the exact tier rounds it to bf16 */
} subject;

static const subject subjects[] = {
    {"rmsnorm", run_rmsnorm, ROWS *COLS, ROWS *COLS, 1, 0},
    {"rmsnorm, adding", run_rmsnorm_adding, ROWS *COLS, ROWS *COLS, 1, 0},
    {"norm and rope", run_norm_and_rope, ROWS *HEADS *DIM, ROWS *HEADS *DIM, 1, 1},
    {"rope", run_rope, ROWS *HEADS *DIM, ROWS *HEADS *DIM, 1, 0},
    {"swiglu", run_swiglu, 2 * ROWS *COLS, ROWS *COLS, 1, 1},
};

static vkm_dev *open_dev(vkm_backend_id backend) {
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    vkm_dev_options o = {.backend = backend, .threads = 1};
    check(vkm_dev_open(&o, &dev, &err), &err);
    return dev;
}

static void inputs(const subject *s, double *x, double *dy) {
    for (uint32_t i = 0; i < s->n_x; i++) x[i] = value(i, 11);
    for (uint32_t i = 0; i < s->n_y; i++) dy[i] = value(i, 12);
}

/* |a - b| against the largest |b|, with relative to |b| itself allowed. */
static double worst_error(const double *a, const double *b, uint32_t n, double relative) {
    double scale = 0, worst = 0;
    for (uint32_t i = 0; i < n; i++) scale = fmax(scale, fabs(b[i]));
    for (uint32_t i = 0; i < n; i++) worst = fmax(worst, fabs(a[i] - b[i]) - relative * fabs(b[i]));
    return worst / scale;
}

static void test_finite_differences(void **state) {
    (void)state;
    vkm_dev *dev = open_dev(VKM_ORACLE);
    for (size_t k = 0; k < VKM_COUNTOF(subjects); k++) {
        const subject *s = &subjects[k];
        double x[MAX_N], dy[MAX_N], y[MAX_N], dx[MAX_N], unused[MAX_N], numeric[MAX_N];
        inputs(s, x, dy);
        s->run(dev, x, dy, y, dx);
        for (uint32_t i = 0; i < s->n_x; i++) {
            double at = x[i], h = 1e-5, sum[2] = {0, 0};
            for (int side = 0; side < 2; side++) {
                x[i] = side ? at + h : at - h;
                s->run(dev, x, dy, y, unused);
                for (uint32_t j = 0; j < s->n_y; j++) sum[side] += y[j] * dy[j];
            }
            x[i] = at;
            numeric[i] = (sum[1] - sum[0]) / (2 * h);
        }
        double e = worst_error(dx, numeric, s->n_x, 0);
        print_message("%-16s gradient against differences: %.2e\n", s->name, e);
        assert_true(e <= 1e-6);
    }
    vkm_dev_close(dev);
}

/* fp32 outputs within 1e-6 of the largest; bf16 outputs within half a bf16 unit (2^-8) more. */
static void test_exact_against_oracle(void **state) {
    (void)state;
    vkm_dev *oracle = open_dev(VKM_ORACLE), *exact = open_dev(VKM_CPU);
    for (size_t k = 0; k < VKM_COUNTOF(subjects); k++) {
        const subject *s = &subjects[k];
        double x[MAX_N], dy[MAX_N], y[2][MAX_N], dx[2][MAX_N];
        inputs(s, x, dy);
        s->run(exact, x, dy, y[0], dx[0]);
        s->run(oracle, x, dy, y[1], dx[1]);
        double ey = worst_error(y[0], y[1], s->n_y, s->y_bf16 ? 0x1p-8 : 0);
        double ex = worst_error(dx[0], dx[1], s->n_x, s->dx_bf16 ? 0x1p-8 : 0);
        print_message("%-16s exact tier: y %.2e, dx %.2e\n", s->name, ey, ex);
        assert_true(ey <= 1e-6);
        assert_true(ex <= 1e-6);
    }
    vkm_dev_close(oracle);
    vkm_dev_close(exact);
}

/* A device's class chooses how a reduction is shared out; it must not change a bit. */
static void test_device_in_both_shapes(void **state) {
    (void)state;
    static const vkm_dev_class classes[] = {VKM_CLASS_CPU_DRIVER, VKM_CLASS_GPU};
    vkm_err err = {0};
    vkm_dev *dev = NULL, *exact = open_dev(VKM_CPU);
    vkm_dev_options o = {.backend = VKM_VULKAN};
    if (vkm_dev_open(&o, &dev, &err)) {
        print_message("SKIP: %s\n", err.msg);
        vkm_dev_close(exact);
        skip();
    }
    for (size_t k = 0; k < VKM_COUNTOF(subjects); k++) {
        const subject *s = &subjects[k];
        double x[MAX_N], dy[MAX_N], y[2][MAX_N], dx[2][MAX_N];
        inputs(s, x, dy);
        s->run(exact, x, dy, y[0], dx[0]);
        for (size_t c = 0; c < VKM_COUNTOF(classes); c++) {
            dev->class = classes[c];
            s->run(dev, x, dy, y[1], dx[1]);
            assert_memory_equal(y[0], y[1], s->n_y * sizeof(double));
            assert_memory_equal(dx[0], dx[1], s->n_x * sizeof(double));
        }
    }
    vkm_dev_close(dev);
    vkm_dev_close(exact);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_exact_against_oracle),
        cmocka_unit_test(test_device_in_both_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
