/* Bench rows of single kernels: products at training and decode shapes (those of a 0.6B model), and
 * attention. Bytes are what must be moved at least once. */
#include <stdlib.h>

#include "cli/bench.h"
#include "ops/kernels.h"
#include "ops/lmhead.h"
#include "ops/peak.h"

enum { MAX_TENSORS = 12, MAX_SEQS = 64 };

/* Tensors of a row; made, filled and freed as one. */
typedef struct kit {
    vkm_tensor t[MAX_TENSORS];
    vkm_plan *plan;
    vkm_mem *mem;
    uint32_t n;
    uint32_t size[5];
    double bytes;
} kit;

static kit kit_begin(vkm_bench *b, const vkm_bench_row *row) {
    kit k = {.plan = vkm_plan_new(b->dev)};
    for (int i = 0; i < 5; i++) k.size[i] = row->size[i];
    return k;
}

/* once: counted as moved. */
static uint32_t kit_add(kit *k, vkm_dtype dtype, uint64_t n, int once) {
    vkm_plan_add(k->plan, &k->t[k->n], dtype, n, "bench");
    if (once) k->bytes += (double)n * (dtype == VKM_BF16 ? 2 : 4);
    return k->n++;
}

/* Takes the memory and fills float tensors with numbers in [-1, 1); u32 tensors stay 0. */
static vkm_status kit_commit(kit *k, vkm_bench *b, vkm_err *err) {
    vkm_plan *plan = k->plan;
    k->plan = NULL;
    if (vkm_plan_commit(plan, &k->mem, err)) return err->status;
    uint32_t random = 12345;
    for (uint32_t i = 0; i < k->n; i++) {
        uint64_t n = k->t[i].n;
        if (k->t[i].dtype == VKM_U32) continue;
        uint32_t *words = vkm_calloc(n, 4, "bench data", err);
        if (!words) return err->status;
        uint16_t *halves = (uint16_t *)words;
        for (uint64_t j = 0; j < n; j++) {
            random = random * 1664525u + 1013904223u;
            float x = (float)(int32_t)random * 0x1p-31f;
            uint32_t bits = ((union {
                                float f;
                                uint32_t u;
                            }){x})
                                .u;
            if (k->t[i].dtype == VKM_BF16)
                halves[j] = (uint16_t)(bits >> 16);
            else
                words[j] = bits;
        }
        vkm_status st = vkm_write(b->dev, k->t[i], words, err);
        free(words);
        if (st) return st;
    }
    return VKM_OK;
}

static void kit_free(kit *k) {
    vkm_plan_free(k->plan);
    vkm_mem_free(k->mem);
}

static vkm_status kit_time(kit *k, vkm_bench *b, void (*record)(vkm_stream *s, const void *arg),
                           double flops, vkm_bench_result *out, vkm_err *err) {
    out->flops = flops;
    out->bytes = k->bytes;
    vkm_status st = vkm_bench_time(b, record, k, &out->seconds, err);
    kit_free(k);
    return st;
}

/* ---- products: size = m, n, k, experts, rank ----------------------------------------------------
 */

static void record_gemm(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, gemm, .a = k->t[0], .b = k->t[1], .c = k->t[2], .m = k->size[0], .n = k->size[1],
           .k = k->size[2], .kpa = k->size[2], .kpb = k->size[2], .ldc = k->size[1]);
}

static vkm_status run_gemm(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                           vkm_err *err) {
    kit k = kit_begin(b, row);
    kit_add(&k, VKM_BF16, vkm_op_size(k.size[0], k.size[2]), 1);
    kit_add(&k, VKM_BF16, vkm_op_size(k.size[1], k.size[2]), 1);
    kit_add(&k, VKM_F32, (uint64_t)k.size[0] * k.size[1], 1);
    if (kit_commit(&k, b, err)) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record_gemm, 2.0 * k.size[0] * k.size[1] * k.size[2], out, err);
}

static uint32_t expert_cols(const kit *k) {
    return 2 * (uint32_t)vkm_round_up(k->size[4], 4);
}

static void record_linear(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, linear, .a = k->t[0], .b = k->t[1], .a2 = k->t[2], .b2 = k->t[3], .scale = k->t[4],
           .row_seq = k->t[5], .res = k->t[6], .c = k->t[6], .m = k->size[0], .n = k->size[1],
           .k = k->size[2], .kper = expert_cols(k), .n_experts = k->size[3], .has_res = 1);
}

static vkm_status run_linear(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                             vkm_err *err) {
    kit k = kit_begin(b, row);
    uint32_t m = k.size[0], n = k.size[1], k2 = k.size[3] * expert_cols(&k);
    kit_add(&k, VKM_BF16, vkm_op_size(m, k.size[2]), 1);
    kit_add(&k, VKM_BF16, vkm_op_size(n, k.size[2]), 1);
    kit_add(&k, VKM_BF16, vkm_op_size(m, k2), 1);
    kit_add(&k, VKM_BF16, vkm_op_size(n, k2), 1);
    kit_add(&k, VKM_F32, k.size[3], 0);
    kit_add(&k, VKM_U32, m, 0);
    kit_add(&k, VKM_F32, 2ull * m * n, 1); /* read as the residual and written */
    if (kit_commit(&k, b, err)) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record_linear, 2.0 * m * n * (k.size[2] + k2), out, err);
}

static void record_gemm_seg(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, gemm_seg, .a = k->t[0], .b = k->t[1], .seqs = k->t[2], .scale = k->t[3], .c = k->t[4],
           .m = k->size[0], .n = k->size[1], .kpa = k->size[2], .kpb = k->size[2], .n_seq = 1);
}

static vkm_status run_gemm_seg(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                               vkm_err *err) {
    kit k = kit_begin(b, row);
    uint32_t m = k.size[0], n = k.size[1], rows = k.size[2];
    kit_add(&k, VKM_BF16, vkm_op_size(m, rows), 1);
    kit_add(&k, VKM_BF16, vkm_op_size(n, rows), 1);
    uint32_t seqs = kit_add(&k, VKM_U32, 4, 0);
    kit_add(&k, VKM_F32, 1, 0);
    kit_add(&k, VKM_F32, (uint64_t)m * n, 1);
    if (kit_commit(&k, b, err) ||
        vkm_write(b->dev, k.t[seqs], (const uint32_t[4]){0, rows, 0, 0}, err)) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record_gemm_seg, 2.0 * m * n * rows, out, err);
}

/* ---- attention: size = tokens or keys, heads, kv heads, head dim, sequences or rows
 * --------------------------- */

static vkm_status attention_kit(kit *k, vkm_bench *b, vkm_err *err) {
    uint64_t len = (uint64_t)k->size[0] * k->size[4];
    uint64_t q = len * k->size[1] * k->size[3], kv = len * k->size[2] * k->size[3];
    uint32_t table[4 * MAX_SEQS] = {0};
    kit_add(k, VKM_BF16, q, 1);  /* 0 q */
    kit_add(k, VKM_BF16, kv, 1); /* 1 k */
    kit_add(k, VKM_BF16, kv, 1); /* 2 v */
    uint32_t seqs = kit_add(k, VKM_U32, 4 * k->size[4], 0);
    kit_add(k, VKM_BF16, vkm_op_size(len, k->size[1] * k->size[3]), 1); /* 4 o */
    kit_add(k, VKM_F32, len * k->size[1], 0);                           /* 5 m */
    kit_add(k, VKM_F32, len * k->size[1], 0);                           /* 6 l */
    kit_add(k, VKM_BF16, q, 0);                                         /* 7 do */
    kit_add(k, VKM_F32, len * k->size[1], 0);                           /* 8 dr */
    kit_add(k, VKM_F32, q, 0);                                          /* 9 dq, or dk */
    kit_add(k, VKM_BF16, vkm_op_size(len, k->size[2] * k->size[3]), 0); /* 10 dv */
    if (kit_commit(k, b, err)) return err->status;
    for (uint32_t i = 0; i < k->size[4]; i++) {
        table[4 * i] = i * k->size[0];
        table[4 * i + 1] = k->size[0];
    }
    return vkm_write(b->dev, k->t[seqs], table, err);
}

#define ATTENTION(k)                                                                               \
    .q = (k)->t[0], .k = (k)->t[1], .v = (k)->t[2], .seqs = (k)->t[3], .m = (k)->t[5],             \
    .l = (k)->t[6], .n_seq = (k)->size[4], .max_len = (k)->size[0], .n_heads = (k)->size[1],       \
    .n_kv = (k)->size[2], .head_dim = (k)->size[3], .scale = 0.125f

static void record_attn_fwd(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, attn_fwd, ATTENTION(k), .o = k->t[4], .n_rows = k->size[0] * k->size[4]);
}

static void record_attn_bwd_dq(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, attn_bwd_dq, ATTENTION(k), .do_ = k->t[7], .dr = k->t[8], .dq = k->t[9]);
}

static void record_attn_bwd_dkv(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, attn_bwd_dkv, ATTENTION(k), .do_ = k->t[7], .dr = k->t[8], .dk = k->t[9],
           .dv = k->t[10]);
}

/* dots: products of head_dim by (query, key) pair. */
static vkm_status run_attention(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                                double dots, void (*record)(vkm_stream *s, const void *arg),
                                vkm_err *err) {
    kit k = kit_begin(b, row);
    double pairs = 0.5 * k.size[0] * (k.size[0] + 1.0) * k.size[1] * k.size[4];
    if (attention_kit(&k, b, err)) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record, 2 * dots * pairs * k.size[3], out, err);
}

static vkm_status run_attn_fwd(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                               vkm_err *err) {
    return run_attention(b, row, out, 2, record_attn_fwd, err);
}

static vkm_status run_attn_bwd_dq(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                                  vkm_err *err) {
    return run_attention(b, row, out, 3, record_attn_bwd_dq, err);
}

static vkm_status run_attn_bwd_dkv(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                                   vkm_err *err) {
    return run_attention(b, row, out, 4, record_attn_bwd_dkv, err);
}

static void record_attn_decode(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, attn_decode, .q = k->t[0], .prompt_k = k->t[1], .prompt_v = k->t[2], .own_k = k->t[3],
           .own_v = k->t[4], .state = k->t[5], .o = k->t[6], .scratch = k->t[7],
           .n_rows = k->size[4], .n_heads = k->size[1], .n_kv = k->size[2], .head_dim = k->size[3],
           .max_keys = k->size[0], .scale = 0.125f);
}

/* Every row has the same prompt but one key, and one key of its own. */
static vkm_status run_attn_decode(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                                  vkm_err *err) {
    kit k = kit_begin(b, row);
    uint32_t rows = k.size[4], keys = k.size[0], q = k.size[1] * k.size[3];
    uint64_t kv = (uint64_t)k.size[2] * k.size[3];
    uint32_t(*state)[8] = vkm_calloc(rows, sizeof *state, "decode state", err);
    kit_add(&k, VKM_BF16, (uint64_t)rows * q, 1);
    kit_add(&k, VKM_BF16, (keys - 1) * kv, 1);
    kit_add(&k, VKM_BF16, (keys - 1) * kv, 1);
    kit_add(&k, VKM_BF16, rows * kv, 1);
    kit_add(&k, VKM_BF16, rows * kv, 1);
    uint32_t at = kit_add(&k, VKM_U32, 8ull * rows, 0);
    kit_add(&k, VKM_BF16, vkm_op_size(rows, q), 1);
    kit_add(&k, VKM_F32, (uint64_t)rows * k.size[1] * keys, 0);
    for (uint32_t i = 0; state && i < rows; i++)
        state[i][1] = keys - 1, state[i][2] = i, state[i][3] = 1;
    vkm_status st = !state || kit_commit(&k, b, err) || vkm_write(b->dev, k.t[at], state, err);
    free(state);
    if (st) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record_attn_decode, 4.0 * rows * keys * q, out, err);
}

/* ---- row by row: size = rows, heads, head dim (or 1, columns) -----------------------------------
 */

static void record_rmsnorm_fwd(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, rmsnorm_fwd, .x = k->t[0], .gain = k->t[2], .y = k->t[3], .rstd = k->t[4],
           .n_rows = k->size[0], .n_cols = k->size[1] * k->size[2], .eps = 1e-6f);
}

static void record_headnorm_fwd(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, headnorm_fwd, .x = k->t[0], .gain = k->t[2], .y = k->t[1], .rstd = k->t[4],
           .n_rows = k->size[0], .n_heads = k->size[1], .head_dim = k->size[2], .eps = 1e-6f);
}

static void record_rope_fwd(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, rope_fwd, .x = k->t[0], .cos = k->t[2], .sin = k->t[2], .pos = k->t[5], .y = k->t[3],
           .n_rows = k->size[0], .n_heads = k->size[1], .head_dim = k->size[2]);
}

static void record_swiglu_fwd(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, swiglu_fwd, .gate = k->t[0], .up = k->t[1], .y = k->t[3], .n_rows = k->size[0],
           .n_cols = k->size[1] * k->size[2]);
}

static void record_pack_f32(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, pack_f32, .x = k->t[0], .y = k->t[3], .n_rows = k->size[0],
           .n_cols = k->size[1] * k->size[2], .ldx = k->size[1] * k->size[2]);
}

/* words: 4-byte words that an element moves. */
static vkm_status run_rows(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                           void (*record)(vkm_stream *s, const void *arg), double words,
                           vkm_err *err) {
    kit k = kit_begin(b, row);
    uint32_t cols = k.size[1] * k.size[2];
    uint64_t n = (uint64_t)k.size[0] * cols;
    uint32_t *order = vkm_calloc(k.size[0], sizeof *order, "rows", err);
    for (uint32_t i = 0; order && i < k.size[0]; i++) order[i] = i;
    kit_add(&k, VKM_F32, n, 0); /* 0, 1: what is read, or written */
    kit_add(&k, VKM_F32, n, 0);
    kit_add(&k, VKM_F32, n, 0);                               /* 2 gains, or a table of cosines */
    kit_add(&k, VKM_BF16, vkm_op_size(k.size[0], cols), 0);   /* 3 y */
    kit_add(&k, VKM_F32, (uint64_t)k.size[0] * k.size[1], 0); /* 4 1 / rms */
    uint32_t rows_of = kit_add(&k, VKM_U32, k.size[0], 0);    /* 5 rows, or positions */
    k.bytes = 4 * words * (double)n;
    int failed = !order || kit_commit(&k, b, err) || vkm_write(b->dev, k.t[rows_of], order, err);
    free(order);
    if (failed) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record, 0, out, err);
}

static void record_copy(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, gather_rows, .x = k->t[0], .y = k->t[1], .rows = k->t[5], .n_rows = k->size[0],
           .n_cols = k->size[1] * k->size[2]);
}

enum { PEAK_STEPS = 256 };

static void record_fma(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, fma_chains, .x = k->t[0], .y = k->t[1], .n = k->size[0], .steps = PEAK_STEPS,
           .factor = 0.5f, .term = 1.0f);
}

static vkm_status run_fma(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                          vkm_err *err) {
    kit k = kit_begin(b, row);
    kit_add(&k, VKM_F32, k.size[0], 0);
    kit_add(&k, VKM_F32, k.size[0], 0);
    if (kit_commit(&k, b, err)) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record_fma, 2.0 * VKM_CHAINS * PEAK_STEPS * k.size[0], out, err);
}

static vkm_status run_copy(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                           vkm_err *err) {
    return run_rows(b, row, out, record_copy, 2, err);
}

static vkm_status run_rmsnorm(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                              vkm_err *err) {
    return run_rows(b, row, out, record_rmsnorm_fwd, 1.5, err);
}

static vkm_status run_headnorm(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                               vkm_err *err) {
    return run_rows(b, row, out, record_headnorm_fwd, 2, err);
}

static vkm_status run_rope(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                           vkm_err *err) {
    return run_rows(b, row, out, record_rope_fwd, 1.5, err);
}

static vkm_status run_swiglu(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                             vkm_err *err) {
    return run_rows(b, row, out, record_swiglu_fwd, 2.5, err);
}

static vkm_status run_pack_f32(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                               vkm_err *err) {
    return run_rows(b, row, out, record_pack_f32, 1.5, err);
}

/* ---- output head: size = rows, vocabulary -------------------------------------------------------
 */

static void record_lse_block(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, lse_block, .logits = k->t[0], .mb = k->t[1], .lb = k->t[2], .sb = k->t[3],
           .n_rows = k->size[0], .n_vocab = k->size[1]);
}

/* Every row draws its first token of many, over and over. */
static void record_sample(vkm_stream *s, const void *arg) {
    const kit *k = arg;
    VKM_OP(s, sample, .logits = k->t[0], .mb = k->t[1], .lb = k->t[2], .params = k->t[4],
           .eos = k->t[5], .state = k->t[6], .tokens = k->t[7], .logp = k->t[8],
           .n_rows = k->size[0], .n_vocab = k->size[1], .max_new = 1u << 20);
}

static vkm_status run_head(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                           void (*record)(vkm_stream *s, const void *arg), vkm_err *err) {
    kit k = kit_begin(b, row);
    uint64_t n = k.size[0], logits = n * k.size[1], nb = vkm_n_blocks(k.size[1]);
    uint32_t words[VKM_SAMPLE_WORDS];
    vkm_sampling plain = {.temperature = 1, .top_p = 1};
    kit_add(&k, VKM_F32, logits, 1);
    for (int i = 0; i < 3; i++) kit_add(&k, VKM_F32, n * nb, 1);
    uint32_t params = kit_add(&k, VKM_U32, VKM_SAMPLE_WORDS, 0);
    kit_add(&k, VKM_U32, 1, 0);
    kit_add(&k, VKM_U32, n * VKM_ROW_WORDS, 0);
    kit_add(&k, VKM_U32, 1u << 20, 0);
    kit_add(&k, VKM_F32, 1u << 20, 0);
    if (vkm_sampling_words(&plain, 1, 0, 0, words, err) || kit_commit(&k, b, err) ||
        vkm_write(b->dev, k.t[params], words, err)) {
        kit_free(&k);
        return err->status;
    }
    return kit_time(&k, b, record, 0, out, err);
}

static vkm_status run_lse_block(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                                vkm_err *err) {
    return run_head(b, row, out, record_lse_block, err);
}

static vkm_status run_sample(vkm_bench *b, const vkm_bench_row *row, vkm_bench_result *out,
                             vkm_err *err) {
    return run_head(b, row, out, record_sample, err);
}

static const vkm_bench_row rows[] = {
    {"fma", "12 chains of multiply-adds, 262144 times", run_fma, {1 << 18}},
    {"copy", "64 MiB, row by row", run_copy, {4096, 1, 4096}},
    {"gemm/1024", "1024 x 1024 x 1024", run_gemm, {1024, 1024, 1024}},
    {"gemm/down", "adapter A: 1024 x 128 x 1024", run_gemm, {1024, 128, 1024}},
    {"gemm/head", "logits: 64 x 8192 x 1024", run_gemm, {64, 8192, 1024}},
    {"linear/train", "1024 x 3072 x 1024, 2 experts of 32", run_linear, {1024, 3072, 1024, 2, 32}},
    {"linear/tiny", "6400 x 128 x 128, 2 experts of 4", run_linear, {6400, 128, 128, 2, 4}},
    {"linear/tiny-0", "6400 x 128 x 128, no experts", run_linear, {6400, 128, 128, 0, 4}},
    {"gemm/tiny", "6400 x 128 x 128", run_gemm, {6400, 128, 128}},
    {"linear/decode-1", "1 x 3072 x 1024, 2 experts of 32", run_linear, {1, 3072, 1024, 2, 32}},
    {"linear/decode-8", "8 x 3072 x 1024, 2 experts of 32", run_linear, {8, 3072, 1024, 2, 32}},
    {"linear/decode-64", "64 x 3072 x 1024, 2 experts of 32", run_linear, {64, 3072, 1024, 2, 32}},
    {"gemm_seg", "gradient: 64 x 3072 over 1024 rows", run_gemm_seg, {64, 3072, 1024}},
    {"attn_fwd/128", "512 tokens, 16 heads over 8, 128", run_attn_fwd, {512, 16, 8, 128, 1}},
    {"attn_fwd/tiny", "64 x 96 tokens, 4 heads over 2, 32", run_attn_fwd, {96, 4, 2, 32, 64}},
    {"attn_bwd_dq/128", "512 tokens, 16 heads over 8, 128", run_attn_bwd_dq, {512, 16, 8, 128, 1}},
    {"attn_bwd_dq/tiny", "64 x 96 tokens, 4 heads over 2, 32", run_attn_bwd_dq, {96, 4, 2, 32, 64}},
    {"attn_bwd_dkv/128",
     "512 tokens, 16 heads over 8, 128",
     run_attn_bwd_dkv,
     {512, 16, 8, 128, 1}},
    {"attn_bwd_dkv/tiny",
     "64 x 96 tokens, 4 heads over 2, 32",
     run_attn_bwd_dkv,
     {96, 4, 2, 32, 64}},
    {"rmsnorm_fwd/1024", "1024 rows of 1024", run_rmsnorm, {1024, 1, 1024}},
    {"rmsnorm_fwd/tiny", "6400 rows of 128", run_rmsnorm, {6400, 1, 128}},
    {"headnorm_fwd/128", "1024 rows, 16 heads of 128", run_headnorm, {1024, 16, 128}},
    {"headnorm_fwd/tiny", "6400 rows, 4 heads of 32", run_headnorm, {6400, 4, 32}},
    {"rope_fwd/128", "1024 rows, 16 heads of 128", run_rope, {1024, 16, 128}},
    {"rope_fwd/tiny", "6400 rows, 4 heads of 32", run_rope, {6400, 4, 32}},
    {"swiglu_fwd", "1024 rows of 3072", run_swiglu, {1024, 1, 3072}},
    {"pack_f32", "1024 rows of 1024", run_pack_f32, {1024, 1, 1024}},
    {"lse_block", "32 rows of 151936 logits", run_lse_block, {32, 151936}},
    {"sample", "32 rows of 151936 logits", run_sample, {32, 151936}},
    {"attn_decode/128",
     "16 rows, 512 keys, 16 over 8, 128",
     run_attn_decode,
     {512, 16, 8, 128, 16}},
    {"attn_decode/tiny", "64 rows, 96 keys, 4 over 2, 32", run_attn_decode, {96, 4, 2, 32, 64}},
};

const vkm_bench_group vkm_bench_kernels = {rows, VKM_COUNTOF(rows)};

vkm_status vkm_bench_peaks_of(vkm_bench *b, vkm_bench_peaks *out, vkm_err *err) {
    enum { TRIES = 10 }; /* a limit is the best of many, where they take no time */
    vkm_bench_result fma = {0}, copy = {0};
    vkm_bench quick = *b;
    quick.repeat = 1;
    quick.min_s = 0.02;
    if (run_fma(&quick, &rows[0], &fma, err)) return err->status;
    if (fma.seconds < 0.1) quick.repeat = TRIES;
    if (run_fma(&quick, &rows[0], &fma, err) || run_copy(&quick, &rows[1], &copy, err))
        return err->status;
    *out = (vkm_bench_peaks){fma.flops / fma.seconds, copy.bytes / copy.seconds};
    return VKM_OK;
}
