/* One row, the same bits: attention of a whole sequence, decode against a prompt and own keys cut
 * at any seam, and the definition written out; whatever stands beside it in the batch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/attention.h"

enum { MAX_LEN = 513, MAX_D = 128 };

static const uint32_t lengths[] = {1, 2, 255, 256, 257, 300, 513};
static const uint32_t shapes[][3] = {{1, 1, 2}, {4, 2, 32}, {3, 1, 64}, {6, 1, 128}};

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

static uint32_t state_ = 1;
static uint16_t noise(void) {
    state_ = state_ * 1664525u + 1013904223u;
    return (uint16_t)vkm_bf16z((float)(int32_t)state_ * 0x1p-30f);
}
static float value(uint16_t h) {
    return vkm_from_bits((uint32_t)h << 16);
}

/* ---- the definition ----------------------------------------------------------------------------
 */

/* o (D) of query row `len - 1` over keys 0 .. len - 1; k, v rows are `stride` apart. */
static void define(const uint16_t *q, const uint16_t *k, const uint16_t *v, uint32_t stride,
                   uint32_t len, uint32_t n_dims, float scale, uint16_t *o, float *m, float *l) {
    static float s[MAX_LEN];
    *m = -INFINITY;
    for (uint32_t j = 0; j < len; j++) {
        float dot = 0;
        for (uint32_t d = 0; d < n_dims; d++) dot += value(q[d]) * value(k[j * stride + d]);
        s[j] = dot * scale;
        if (s[j] > *m) *m = s[j];
    }
    *m = vkm_canon(*m);
    for (uint32_t j = 0; j < len; j++) s[j] = value((uint16_t)vkm_bf16z(vkm_exp(s[j] - *m)));
    *l = 0;
    for (uint32_t c = 0; c < len; c += 256) {
        float sum = 0;
        for (uint32_t j = c; j < len && j < c + 256; j++) sum += s[j];
        *l += sum;
    }
    for (uint32_t d = 0; d < n_dims; d++) {
        float total = 0;
        for (uint32_t c = 0; c < len; c += 256) {
            float sum = 0;
            for (uint32_t j = c; j < len && j < c + 256; j++)
                sum += s[j] * value(v[j * stride + d]);
            total += sum;
        }
        o[d] = (uint16_t)vkm_bf16z(vkm_div(total, *l));
    }
}

/* ---- a sequence on a device
 * ---------------------------------------------------------------------- */

/* Rows 0 .. ROW0 - 1 hold a short sequence, the one under test starts at ROW0. */
enum { ROW0 = 32, OTHER = 19, ROWS = ROW0 + 528 };

typedef struct bench {
    vkm_dev *dev;
    vkm_mem *mem;
    vkm_stream *stream;
    uint32_t n_heads, n_kv, n_dims, kp;
    vkm_tensor q, k, v, o, m, l, seqs, row_q, row_o, state, scratch;
    uint16_t *hq, *hk, *hv, *ho;
    float *hm, *hl;
} bench;

static float scale_of(const bench *b) {
    return b->n_dims == 64 ? 2.0f : 0.3f; /* large scores: most weights underflow */
}

static bench begin(vkm_dev *dev, const uint32_t *shape) {
    vkm_err err = {0};
    bench b = {.dev = dev, .n_heads = shape[0], .n_kv = shape[1], .n_dims = shape[2]};
    b.kp = vkm_op_kp(b.n_heads * b.n_dims);
    uint64_t nq = (uint64_t)ROWS * b.n_heads * b.n_dims, nk = (uint64_t)ROWS * b.n_kv * b.n_dims;
    vkm_plan *p = vkm_plan_new(dev);
    vkm_plan_add(p, &b.q, VKM_BF16, nq, "test");
    vkm_plan_add(p, &b.k, VKM_BF16, nk, "test");
    vkm_plan_add(p, &b.v, VKM_BF16, nk, "test");
    vkm_plan_add(p, &b.o, VKM_BF16, vkm_op_size(ROWS, b.n_heads * b.n_dims), "test");
    vkm_plan_add(p, &b.m, VKM_F32, (uint64_t)ROWS * b.n_heads, "test");
    vkm_plan_add(p, &b.l, VKM_F32, (uint64_t)ROWS * b.n_heads, "test");
    vkm_plan_add(p, &b.seqs, VKM_U32, 8, "test");
    vkm_plan_add(p, &b.row_q, VKM_BF16, (uint64_t)b.n_heads * b.n_dims, "test");
    vkm_plan_add(p, &b.row_o, VKM_BF16, vkm_op_size(1, b.n_heads * b.n_dims), "test");
    vkm_plan_add(p, &b.state, VKM_U32, 8, "test");
    vkm_plan_add(p, &b.scratch, VKM_F32, (uint64_t)b.n_heads * MAX_LEN, "test");
    check(vkm_plan_commit(p, &b.mem, &err), &err);
    check(vkm_stream_new(dev, &b.stream, &err), &err);
    b.hq = malloc(nq * 2), b.hk = malloc(nk * 2), b.hv = malloc(nk * 2);
    b.ho = malloc(b.o.n * 2);
    b.hm = malloc(b.m.n * 4), b.hl = malloc(b.l.n * 4);
    for (uint64_t i = 0; i < nq; i++) b.hq[i] = noise();
    for (uint64_t i = 0; i < nk; i++) b.hk[i] = noise(), b.hv[i] = noise();
    check(vkm_write(dev, b.q, b.hq, &err), &err);
    check(vkm_write(dev, b.k, b.hk, &err), &err);
    check(vkm_write(dev, b.v, b.hv, &err), &err);
    return b;
}

static void end(bench *b) {
    free(b->hq), free(b->hk), free(b->hv), free(b->ho), free(b->hm), free(b->hl);
    vkm_stream_free(b->stream);
    vkm_mem_free(b->mem);
}

/* o, m and l of the sequence at ROW0, alone or beside another. */
static void forward(bench *b, uint32_t len, int beside) {
    vkm_err err = {0};
    const uint32_t seqs[2][4] = {{ROW0, len, 0, 0}, {0, OTHER, 0, 0}};
    check(vkm_write(b->dev, b->seqs, seqs, &err), &err);
    VKM_OP(b->stream, attn_fwd, .q = b->q, .k = b->k, .v = b->v, .seqs = b->seqs, .o = b->o,
           .m = b->m, .l = b->l, .n_rows = ROWS, .n_seq = beside ? 2 : 1,
           .max_len = len < OTHER && beside ? OTHER : len, .n_heads = b->n_heads, .n_kv = b->n_kv,
           .head_dim = b->n_dims, .scale = scale_of(b));
    check(vkm_stream_flush(b->stream, &err), &err);
    check(vkm_read(b->dev, b->o, b->ho, &err), &err);
    check(vkm_read(b->dev, b->m, b->hm, &err), &err);
    check(vkm_read(b->dev, b->l, b->hl, &err), &err);
}

/* The last row of the sequence, its first `prompt` keys read as a prompt's. */
static void decode(bench *b, uint32_t len, uint32_t prompt, uint16_t *o) {
    vkm_err err = {0};
    uint32_t cols = b->n_heads * b->n_dims;
    const uint32_t state[8] = {ROW0, prompt, ROW0 + prompt, len - prompt};
    check(vkm_write(b->dev, b->state, state, &err), &err);
    check(vkm_write(b->dev, b->row_q, b->hq + (uint64_t)(ROW0 + len - 1) * cols, &err), &err);
    VKM_OP(b->stream, attn_decode, .q = b->row_q, .prompt_k = b->k, .prompt_v = b->v, .own_k = b->k,
           .own_v = b->v, .state = b->state, .o = b->row_o, .scratch = b->scratch, .n_rows = 1,
           .n_heads = b->n_heads, .n_kv = b->n_kv, .head_dim = b->n_dims, .max_keys = MAX_LEN,
           .scale = scale_of(b));
    check(vkm_stream_flush(b->stream, &err), &err);
    uint16_t *raw = malloc(b->row_o.n * 2);
    check(vkm_read(b->dev, b->row_o, raw, &err), &err);
    for (uint32_t c = 0; c < cols; c++) o[c] = raw[vkm_op_index(0, c, b->kp)];
    free(raw);
}

/* ---- tests
 * ----------------------------------------------------------------------------------------- */

static void expect_row(const bench *b, uint32_t row, const uint16_t *o, const char *what,
                       uint32_t len, uint32_t seam) {
    for (uint32_t c = 0; c < b->n_heads * b->n_dims; c++)
        if (b->ho[vkm_op_index(row, c, b->kp)] != o[c])
            fail_msg(
                "%s at length %u, seam %u, head_dim %u: column %u is %04x, the sequence has %04x",
                what, len, seam, b->n_dims, c, o[c], b->ho[vkm_op_index(row, c, b->kp)]);
}

static void agree(vkm_dev *dev) {
    uint16_t o[8 * MAX_D];
    for (size_t s = 0; s < VKM_COUNTOF(shapes); s++) {
        bench b = begin(dev, shapes[s]);
        for (size_t i = 0; i < VKM_COUNTOF(lengths); i++) {
            uint32_t len = lengths[i], row = ROW0 + len - 1;
            forward(&b, len, 0);
            for (uint32_t h = 0; h < b.n_heads; h++) {
                uint32_t kvh = h / (b.n_heads / b.n_kv), stride = b.n_kv * b.n_dims;
                uint64_t kv = (uint64_t)ROW0 * stride + kvh * b.n_dims;
                float m, l;
                define(b.hq + ((uint64_t)row * b.n_heads + h) * b.n_dims, b.hk + kv, b.hv + kv,
                       stride, len, b.n_dims, scale_of(&b), o + h * b.n_dims, &m, &l);
                assert_int_equal(vkm_bits(m), vkm_bits(b.hm[row * b.n_heads + h]));
                assert_int_equal(vkm_bits(l), vkm_bits(b.hl[row * b.n_heads + h]));
            }
            expect_row(&b, row, o, "the definition", len, 0);
            const uint32_t seams[] = {0, 1, len / 2, len - 1, 255, 256};
            for (size_t j = 0; j < VKM_COUNTOF(seams); j++) {
                if (seams[j] >= len) continue;
                decode(&b, len, seams[j], o);
                expect_row(&b, row, o, "decode", len, seams[j]);
            }
            uint16_t *alone = malloc(b.o.n * 2);
            memcpy(alone, b.ho, b.o.n * 2);
            forward(&b, len, 1);
            for (uint32_t r = ROW0; r < ROW0 + len; r++)
                for (uint32_t c = 0; c < b.n_heads * b.n_dims; c++)
                    if (alone[vkm_op_index(r, c, b.kp)] != b.ho[vkm_op_index(r, c, b.kp)])
                        fail_msg("row %u depends on the sequence beside it", r);
            free(alone);
        }
        end(&b);
    }
}

static void on_cpu(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *dev;
    vkm_dev_options o = {.backend = VKM_CPU, .threads = 2};
    check(vkm_dev_open(&o, &dev, &err), &err);
    for (vkm_lanes_limit = 0; vkm_lanes_limit <= 2; vkm_lanes_limit++) agree(dev);
    vkm_dev_close(dev);
}

static void on_vulkan(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *dev;
    vkm_dev_options o = {.backend = VKM_VULKAN};
    if (vkm_dev_open(&o, &dev, &err)) {
        print_message("skipped: %s\n", err.msg);
        skip();
    }
    agree(dev);
    vkm_dev_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(on_cpu), cmocka_unit_test(on_vulkan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
