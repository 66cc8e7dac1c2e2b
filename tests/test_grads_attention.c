/* Gradients of attention: the oracle's backward against central differences of the oracle's
 * forward, and the exact tier against the oracle. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/kernels.h"
#include "ops/numerics.h"

typedef struct shape {
    uint32_t n_heads, n_kv, head_dim, len[3]; /* 0 ends the sequences */
} shape;

static const shape small[] = {{1, 1, 2, {1}}, {2, 1, 4, {5, 9}}, {4, 2, 6, {17}}};
/* sums of keys and queries that cross a chunk of 256 */
static const shape large[] = {{4, 2, 32, {63, 300}}, {2, 2, 64, {257}}, {3, 1, 10, {16, 1, 513}}};

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

/* The four inputs, then the four results, all row-major (rows, heads * head_dim). */
enum { Q, K, V, DO, N_IN, O = N_IN, DQ, DK, DV, N_ALL };

typedef struct problem {
    shape s;
    uint32_t n_seq, max_len, rows, cols[N_ALL];
    double *x[N_ALL]; /* inputs are bf16 values; rows between sequences stay 0 in the results */
} problem;

static uint32_t noise_state;
static double noise(void) {
    noise_state = noise_state * 1664525u + 1013904223u;
    double x = (double)(int32_t)noise_state * 0x1p-30;
    return (double)vkm_from_bits(vkm_bf16z((float)x) << 16);
}

static problem make(shape s) {
    problem p = {.s = s};
    for (; p.n_seq < 3 && s.len[p.n_seq]; p.n_seq++) {
        p.rows += (uint32_t)vkm_round_up(s.len[p.n_seq], 16);
        if (s.len[p.n_seq] > p.max_len) p.max_len = s.len[p.n_seq];
    }
    noise_state = p.rows + s.head_dim;
    for (int i = 0; i < N_ALL; i++) {
        int kv = i == K || i == V || i == DK || i == DV;
        p.cols[i] = (kv ? s.n_kv : s.n_heads) * s.head_dim;
        p.x[i] = calloc((size_t)p.rows * p.cols[i], sizeof(double));
        assert_non_null(p.x[i]);
        for (uint32_t j = 0; i < N_IN && j < p.rows * p.cols[i]; j++) p.x[i][j] = noise();
    }
    return p;
}

static void drop(problem *p) {
    for (int i = 0; i < N_ALL; i++) free(p->x[i]);
}

/* ---- a run ------------------------------------------------------------------------------------
 */

typedef struct bench {
    vkm_dev *dev;
    vkm_mem *mem;
    vkm_stream *stream;
    vkm_tensor t[N_ALL], m, l, dr, seqs;
} bench;

static bench begin(vkm_backend_id backend, const problem *p) {
    vkm_err err = {0};
    bench b = {0};
    vkm_dev_options o = {.backend = backend, .threads = 2};
    check(vkm_dev_open(&o, &b.dev, &err), &err);
    vkm_plan *plan = vkm_plan_new(b.dev);
    for (int i = 0; i < N_ALL; i++) {
        int operand = i == O || i == DV, f32 = i == DQ || i == DK;
        vkm_plan_add(plan, &b.t[i], f32 ? VKM_F32 : VKM_BF16,
                     operand ? vkm_op_size(p->rows, p->cols[i]) : (uint64_t)p->rows * p->cols[i],
                     "test");
    }
    uint64_t stats = (uint64_t)p->rows * p->s.n_heads;
    vkm_plan_add(plan, &b.m, VKM_F32, stats, "test");
    vkm_plan_add(plan, &b.l, VKM_F32, stats, "test");
    vkm_plan_add(plan, &b.dr, VKM_F32, stats, "test");
    vkm_plan_add(plan, &b.seqs, VKM_U32, 4ull * p->n_seq, "test");
    check(vkm_plan_commit(plan, &b.mem, &err), &err);
    check(vkm_stream_new(b.dev, &b.stream, &err), &err);
    uint32_t seqs[3][4] = {{0}};
    for (uint32_t i = 0, row = 0; i < p->n_seq; i++) {
        seqs[i][0] = row;
        seqs[i][1] = p->s.len[i];
        row += (uint32_t)vkm_round_up(p->s.len[i], 16);
    }
    check(vkm_write(b.dev, b.seqs, seqs, &err), &err);
    return b;
}

static void end(bench *b) {
    vkm_stream_free(b->stream);
    vkm_mem_free(b->mem);
    vkm_dev_close(b->dev);
}

static void put(bench *b, const problem *p, int i) {
    vkm_err err = {0};
    vkm_tensor t = b->t[i];
    if (t.esz == 8) { /* the oracle's bf16 tensors are doubles like all others */
        t.dtype = VKM_F32;
        check(vkm_write_f64(b->dev, t, p->x[i], &err), &err);
        return;
    }
    uint16_t *bits = calloc(t.n, sizeof *bits);
    assert_non_null(bits);
    for (uint64_t j = 0; j < t.n; j++) bits[j] = (uint16_t)vkm_bf16z((float)p->x[i][j]);
    check(vkm_write(b->dev, t, bits, &err), &err);
    free(bits);
}

static void get(bench *b, problem *p, int i) {
    vkm_err err = {0};
    double *raw = calloc(b->t[i].n, sizeof *raw);
    assert_non_null(raw);
    check(vkm_read_f64(b->dev, b->t[i], raw, &err), &err);
    for (uint32_t row = 0; row < p->rows; row++)
        for (uint32_t c = 0; c < p->cols[i]; c++) {
            uint64_t at = (uint64_t)row * p->cols[i] + c;
            int operand = i == O || i == DV;
            p->x[i][at] = raw[operand ? vkm_op_index(row, c, vkm_op_kp(p->cols[i])) : at];
        }
    free(raw);
}

static void forward(bench *b, problem *p) {
    vkm_err err = {0};
    for (int i = 0; i < N_IN; i++) put(b, p, i);
    VKM_OP(b->stream, attn_fwd, .q = b->t[Q], .k = b->t[K], .v = b->t[V], .seqs = b->seqs,
           .o = b->t[O], .m = b->m, .l = b->l, .n_rows = p->rows, .n_seq = p->n_seq,
           .max_len = p->max_len, .n_heads = p->s.n_heads, .n_kv = p->s.n_kv,
           .head_dim = p->s.head_dim, .scale = 0.25f);
    check(vkm_stream_flush(b->stream, &err), &err);
    get(b, p, O);
}

static void backward(bench *b, problem *p) {
    vkm_err err = {0};
    VKM_OP(b->stream, attn_dr, .do_ = b->t[DO], .o = b->t[O], .dr = b->dr, .n_rows = p->rows,
           .n_heads = p->s.n_heads, .head_dim = p->s.head_dim);
    VKM_OP(b->stream, attn_bwd_dq, .q = b->t[Q], .k = b->t[K], .v = b->t[V], .do_ = b->t[DO],
           .m = b->m, .l = b->l, .dr = b->dr, .seqs = b->seqs, .dq = b->t[DQ], .n_seq = p->n_seq,
           .max_len = p->max_len, .n_heads = p->s.n_heads, .n_kv = p->s.n_kv,
           .head_dim = p->s.head_dim, .scale = 0.25f);
    VKM_OP(b->stream, attn_bwd_dkv, .q = b->t[Q], .k = b->t[K], .v = b->t[V], .do_ = b->t[DO],
           .m = b->m, .l = b->l, .dr = b->dr, .seqs = b->seqs, .dk = b->t[DK], .dv = b->t[DV],
           .n_seq = p->n_seq, .max_len = p->max_len, .n_heads = p->s.n_heads, .n_kv = p->s.n_kv,
           .head_dim = p->s.head_dim, .scale = 0.25f);
    check(vkm_stream_flush(b->stream, &err), &err);
    for (int i = DQ; i <= DV; i++) get(b, p, i);
}

/* ---- the oracle against differences -------------------------------------------------------------
 */

/* Sum of dO * o over the rows that belong to sequences (the others stay 0 in o). */
static double loss(bench *b, problem *p) {
    forward(b, p);
    double sum = 0;
    for (uint32_t i = 0; i < p->rows * p->cols[O]; i++) sum += p->x[O][i] * p->x[DO][i];
    return sum;
}

/* d loss / d (input along dir) by central differences. */
static double slope(bench *b, problem *p, int input, const double *dir) {
    const double step = 1e-5;
    uint32_t n = p->rows * p->cols[input];
    double *x = p->x[input], *kept = malloc(n * sizeof *kept), at[2];
    assert_non_null(kept);
    memcpy(kept, x, n * sizeof *kept);
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < n; i++) x[i] = kept[i] + (side ? step : -step) * dir[i];
        at[side] = loss(b, p);
    }
    memcpy(x, kept, n * sizeof *kept);
    free(kept);
    return (at[1] - at[0]) / (2 * step);
}

static void expect_slope(bench *b, problem *p, int input, const double *dir) {
    const double *grad = p->x[input - Q + DQ];
    double by_hand = slope(b, p, input, dir), by_kernel = 0, size = 0;
    for (uint32_t i = 0; i < p->rows * p->cols[input]; i++) {
        by_kernel += grad[i] * dir[i];
        size += fabs(grad[i] * dir[i]);
    }
    if (!(fabs(by_hand - by_kernel) <= 1e-6 * (size + 1e-3)))
        fail_msg("input %d of (%u,%u,%u): difference %.12g, kernel %.12g", input, p->s.n_heads,
                 p->s.n_kv, p->s.head_dim, by_hand, by_kernel);
}

static void every_element(void **state) {
    (void)state;
    for (size_t c = 0; c < VKM_COUNTOF(small); c++) {
        problem p = make(small[c]);
        bench b = begin(VKM_ORACLE, &p);
        (void)loss(&b, &p);
        backward(&b, &p);
        for (int input = Q; input <= V; input++) {
            uint32_t n = p.rows * p.cols[input];
            double *dir = calloc(n, sizeof *dir);
            assert_non_null(dir);
            for (uint32_t i = 0; i < n; i++) {
                dir[i] = 1;
                expect_slope(&b, &p, input, dir);
                dir[i] = 0;
            }
            free(dir);
        }
        end(&b);
        drop(&p);
    }
}

static void random_directions(void **state) {
    (void)state;
    for (size_t c = 0; c < VKM_COUNTOF(large); c++) {
        problem p = make(large[c]);
        bench b = begin(VKM_ORACLE, &p);
        (void)loss(&b, &p);
        backward(&b, &p);
        for (int i = 0; i < 9; i++) {
            int input = Q + i % 3;
            uint32_t n = p.rows * p.cols[input];
            double *dir = calloc(n, sizeof *dir);
            assert_non_null(dir);
            for (uint32_t j = 0; j < n; j++) dir[j] = noise();
            expect_slope(&b, &p, input, dir);
            free(dir);
        }
        end(&b);
        drop(&p);
    }
}

/* ---- the exact tier against the oracle
 * ----------------------------------------------------------- */

/* Relative error in the Euclidean norm. o: weights and result rounded to bf16 (each at most 2^-9,
 * by root mean square less); dQ, dK: dS rounded, and o inside Dr; dV: P and the result. */
static void exact_tier(void **state) {
    (void)state;
    static const struct {
        int what;
        double bound;
    } gates[] = {{O, 0.003}, {DQ, 0.005}, {DK, 0.005}, {DV, 0.004}};
    for (size_t c = 0; c < VKM_COUNTOF(large); c++) {
        problem exact = make(large[c]), oracle = make(large[c]);
        bench b = begin(VKM_CPU, &exact);
        forward(&b, &exact);
        backward(&b, &exact);
        end(&b);
        b = begin(VKM_ORACLE, &oracle);
        forward(&b, &oracle);
        backward(&b, &oracle);
        end(&b);
        for (size_t g = 0; g < VKM_COUNTOF(gates); g++) {
            const double *x = exact.x[gates[g].what], *y = oracle.x[gates[g].what];
            double off = 0, size = 0;
            for (uint32_t i = 0; i < exact.rows * exact.cols[gates[g].what]; i++) {
                off += (x[i] - y[i]) * (x[i] - y[i]);
                size += y[i] * y[i];
            }
            off = sqrt(off / size);
            print_message("result %d of case %zu: relative error %.2g\n", gates[g].what, c, off);
            if (!(off > 0 && off <= gates[g].bound))
                fail_msg("result %d of case %zu is %g from the oracle, bound %g", gates[g].what, c,
                         off, gates[g].bound);
        }
        drop(&exact);
        drop(&oracle);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_element),
                                       cmocka_unit_test(random_directions),
                                       cmocka_unit_test(exact_tier)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
