#include "cli/bench_kit.h"

#include <stdio.h>
#include <stdlib.h>

#include "ops/lora.h"

enum { SMALL = 512, OWN_VOCAB = 512 }; /* OWN_VOCAB: of the tokenizer that init-model makes */

/* A small model trains on 64 sequences of 96 tokens with experts of rank 4, others on 2 of 512 with
 * rank 32. */
vkm_kit vkm_kit_begin(vkm_bench *b, const vkm_bench_row *row, const vkm_model_preset *preset,
                      vkm_err *err) {
    vkm_kit k = {.row = row, .dev = b->dev, .plan = vkm_plan_new(b->dev), .err = err, .experts = 2};
    if (preset) k.c = preset->config;
    if (!k.c.V) k.c.V = OWN_VOCAB;
    int small = k.c.C < SMALL;
    k.n_seq = small ? 64 : 2;
    k.len = k.keys = small ? 96 : 512;
    k.rows = k.n_seq * k.len;
    k.decoding = small ? 64 : 32;
    k.rank = small ? 4 : 32;
    k.kper = vkm_lora_kper(k.rank);
    return k;
}

void vkm_kit_f32(vkm_kit *k, vkm_tensor *t, uint64_t n) {
    vkm_plan_add(k->plan, t, VKM_F32, n, "bench");
}

void vkm_kit_bf16(vkm_kit *k, vkm_tensor *t, uint64_t n) {
    vkm_plan_add(k->plan, t, VKM_BF16, n, "bench");
}

void vkm_kit_op16(vkm_kit *k, vkm_tensor *t, uint64_t rows, uint32_t cols) {
    vkm_kit_bf16(k, t, vkm_op_size(rows, cols));
}

uint32_t *vkm_kit_u32(vkm_kit *k, vkm_tensor *t, uint64_t n) {
    VKM_BUG_ON(k->n_tables == VKM_KIT_TABLES, "%s: more tables", k->row->name);
    vkm_plan_add(k->plan, t, VKM_U32, n, "bench");
    uint32_t *x = vkm_calloc(n, sizeof *x, "bench data", k->err);
    k->tables[k->n_tables].t = t;
    k->tables[k->n_tables++].x = x;
    return x;
}

void vkm_kit_count(vkm_kit *k, vkm_tensor *t, uint64_t n, uint32_t per, uint32_t below) {
    uint32_t *x = vkm_kit_u32(k, t, n);
    for (uint64_t i = 0; x && i < n; i++) x[i] = (uint32_t)(i / per % below);
}

void vkm_kit_seqs(vkm_kit *k, vkm_tensor *t) {
    uint32_t(*x)[4] = (uint32_t(*)[4])vkm_kit_u32(k, t, 4ull * k->n_seq);
    for (uint32_t i = 0; x && i < k->n_seq; i++) {
        x[i][0] = i * k->len;
        x[i][1] = k->len;
        x[i][2] = x[i][0] + k->len / 2;
        x[i][3] = k->len / 2;
    }
}

static uint32_t as_bits(float x) {
    union {
        float f;
        uint32_t u;
    } v = {x};
    return v.u;
}

static vkm_status fill_random(vkm_dev *dev, vkm_tensor t, vkm_err *err) {
    uint32_t random = 12345;
    uint32_t *words = vkm_calloc(t.n, sizeof *words, "bench data", err);
    if (!words) return err->status;
    uint16_t *halves = (uint16_t *)words;
    for (uint64_t i = 0; i < t.n; i++) {
        random = random * 1664525u + 1013904223u;
        uint32_t bits = as_bits((float)(int32_t)random * 0x1p-31f);
        if (t.dtype == VKM_BF16)
            halves[i] = (uint16_t)(bits >> 16);
        else
            words[i] = bits;
    }
    vkm_status st = vkm_write(dev, t, words, err);
    free(words);
    return st;
}

/* Fills the floats, counts the bytes and writes the sizes down, from the kernel's parameters. */
static vkm_status walk_params(vkm_kit *k, vkm_bench *b, vkm_bench_result *out) {
    double bytes = 0;
    size_t len = 0;
    uint32_t at = 0;
    for (uint32_t i = 0; i < k->kernel->n_params; i++) {
        const vkm_param *p = &k->kernel->params[i];
        const char *where = (const char *)k->args + vkm_param_offset(&at, p->kind);
        if (vkm_param_is_pointer(p->kind)) {
            vkm_tensor t = *(const vkm_tensor *)where;
            bytes += (double)t.n * t.esz * (p->kind == VKM_P_INOUT ? 2 : 1);
            if (t.n && t.dtype != VKM_U32 && fill_random(b->dev, t, k->err)) return k->err->status;
        } else if (p->kind == VKM_P_U32 && len < sizeof out->shape) {
            len += (size_t)snprintf(out->shape + len, sizeof out->shape - len, "%s%s %u",
                                    len ? ", " : "", p->name, *(const uint32_t *)where);
        }
    }
    out->bytes = k->bytes > 0 ? k->bytes : bytes;
    return VKM_OK;
}

static void record(vkm_stream *s, const void *arg) {
    const vkm_kit *k = arg;
    k->op(s, k->args);
}

static vkm_status measure(vkm_kit *k, vkm_bench *b, vkm_bench_result *out) {
    vkm_plan *plan = k->plan;
    if (k->err->status) return k->err->status; /* a table without memory */
    k->plan = NULL;
    if (vkm_plan_commit(plan, &k->mem, k->err) || walk_params(k, b, out)) return k->err->status;
    for (uint32_t i = 0; i < k->n_tables; i++)
        if (vkm_write(b->dev, *k->tables[i].t, k->tables[i].x, k->err)) return k->err->status;
    out->flops = k->flops;
    return vkm_bench_time(b, record, k, &out->seconds, k->err);
}

vkm_status vkm_kit_run(vkm_kit *k, vkm_bench *b, vkm_bench_result *out) {
    (void)!measure(k, b, out);
    vkm_plan_free(k->plan);
    vkm_mem_free(k->mem);
    for (uint32_t i = 0; i < k->n_tables; i++) free(k->tables[i].x);
    return k->err->status;
}
