/* Attention backward, from the saved maximum M and sum L of each row (attention.c):
 *     P = exp(s - M) / L      dP = dot(dO, v)      dS = bf16z(P (dP - Dr)), Dr = sum of dO * o
 *     dQ = scale * sum over keys of dS k
 *     dK = sum over the group's heads of scale * sum over queries of dS q
 *     dV = sum over the group's heads of sum over queries of bf16z(P) dO
 * Sums over keys and queries are taken in chunks of 256 counted from the sequence's start, heads
 * ascending; no atomics: dQ lies along queries and dK, dV along keys, each recomputes the scores.
 */
#include "ops/attention.h"

static inline real weight(real s, real m, real l) {
    return vkm_div(vkm_exp(s - m), l);
}

#define LANES_BODY "ops/attention_bwd_lanes.h"
#include "ops/lanes.h"

#ifndef VKM_TWIN64
void vkm_op_attn_dr(vkm_stream *s, const vkm_args_attn_dr *a) {
    vkm_args_attn_dr b = *a;
    attn_check("attn_dr", a->n_heads, 1, a->head_dim);
    if (!a->n_rows) return;
    uint64_t heads = (uint64_t)a->n_rows * a->n_heads;
    b.do_ = vkm_need(a->do_, heads * a->head_dim, "attn_dr", "do_");
    b.o = vkm_need(a->o, vkm_op_size(a->n_rows, a->n_heads * a->head_dim), "attn_dr", "o");
    b.dr = vkm_need(a->dr, heads, "attn_dr", "dr");
    double work = (double)heads * (18.0 * a->head_dim + 64);
    vkm_stream_launch(s, &vkm_kernels[VKM_K_attn_dr], &b, vkm_launch_flat(heads, 64, work));
}

void vkm_op_attn_bwd_dq(vkm_stream *s, const vkm_args_attn_bwd_dq *a) {
    vkm_args_attn_bwd_dq b = *a;
    attn_check("attn_bwd_dq", a->n_heads, a->n_kv, a->head_dim);
    if (!a->n_seq || !a->max_len) return;
    uint64_t rows = a->q.n / ((uint64_t)a->n_heads * a->head_dim);
    b.k = vkm_need(a->k, rows * a->n_kv * a->head_dim, "attn_bwd_dq", "k");
    b.v = vkm_need(a->v, rows * a->n_kv * a->head_dim, "attn_bwd_dq", "v");
    b.do_ = vkm_need(a->do_, rows * a->n_heads * a->head_dim, "attn_bwd_dq", "do_");
    b.m = vkm_need(a->m, rows * a->n_heads, "attn_bwd_dq", "m");
    b.l = vkm_need(a->l, rows * a->n_heads, "attn_bwd_dq", "l");
    b.dr = vkm_need(a->dr, rows * a->n_heads, "attn_bwd_dq", "dr");
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "attn_bwd_dq", "seqs");
    b.dq = vkm_need(a->dq, rows * a->n_heads * a->head_dim, "attn_bwd_dq", "dq");
    double pairs = 0.5 * a->n_seq * a->n_heads * (double)a->max_len * a->max_len;
    vkm_launch how = attn_launch(s, a->max_len, a->n_heads, a->n_seq, a->head_dim, 2, 32,
                                 pairs * (6.0 * a->head_dim + 130));
    attn_grid g = {a->max_len, a->n_heads,
                   a->n_seq,   a->head_dim,
                   1,          2,
                   1,          attn_aligned(b.q, b.k, b.v) && attn_aligned(b.do_, b.dq, b.q)};
    vkm_stream_launch(s, &vkm_kernels[VKM_K_attn_bwd_dq], &b, vkm_attn_form(s, how, g));
}

void vkm_op_attn_bwd_dkv(vkm_stream *s, const vkm_args_attn_bwd_dkv *a) {
    vkm_args_attn_bwd_dkv b = *a;
    attn_check("attn_bwd_dkv", a->n_heads, a->n_kv, a->head_dim);
    if (!a->n_seq || !a->max_len) return;
    uint64_t rows = a->q.n / ((uint64_t)a->n_heads * a->head_dim);
    b.k = vkm_need(a->k, rows * a->n_kv * a->head_dim, "attn_bwd_dkv", "k");
    b.v = vkm_need(a->v, rows * a->n_kv * a->head_dim, "attn_bwd_dkv", "v");
    b.do_ = vkm_need(a->do_, rows * a->n_heads * a->head_dim, "attn_bwd_dkv", "do_");
    b.m = vkm_need(a->m, rows * a->n_heads, "attn_bwd_dkv", "m");
    b.l = vkm_need(a->l, rows * a->n_heads, "attn_bwd_dkv", "l");
    b.dr = vkm_need(a->dr, rows * a->n_heads, "attn_bwd_dkv", "dr");
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "attn_bwd_dkv", "seqs");
    b.dk = vkm_need(a->dk, rows * a->n_kv * a->head_dim, "attn_bwd_dkv", "dk");
    b.dv = vkm_need(a->dv, vkm_op_size(rows, a->n_kv * a->head_dim), "attn_bwd_dkv", "dv");
    double pairs = 0.5 * a->n_seq * a->n_heads * (double)a->max_len * a->max_len;
    vkm_launch how = attn_launch(s, a->max_len, a->n_kv, a->n_seq, a->head_dim, 1, 32,
                                 pairs * (8.0 * a->head_dim + 130));
    /* six sums an output: a lane of 128 dimensions would have too many */
    attn_grid g = {a->max_len,
                   a->n_kv,
                   a->n_seq,
                   a->head_dim,
                   a->head_dim == 128 ? 2 : 1,
                   2,
                   2,
                   attn_aligned(b.q, b.k, b.v) && attn_aligned(b.do_, b.dk, b.q)};
    vkm_stream_launch(s, &vkm_kernels[VKM_K_attn_bwd_dkv], &b, vkm_attn_form(s, how, g));
}
#endif

VKM_REF(attn_dr) {
    FOR_PART(at, (uint64_t)vkm_div_up(a->n_rows, ATTN_BLOCK) * a->n_heads) {
        LANES_CALL(dr_block)
        (a, (uint32_t)(at / a->n_heads) * ATTN_BLOCK, (uint32_t)(at % a->n_heads));
    }
}

VKM_REF(attn_bwd_dq) {
    FOR_PART(at, attn_units(a->n_heads, a->n_seq, a->max_len)) {
        attn_unit u = attn_unit_at(at, a->n_seq, a->max_len);
        attn_seq seq = attn_seq_at(a->seqs, u.seq);
        if (u.first < seq.len) LANES_CALL(dq_block)(a, seq, u.head, u.first);
    }
}

VKM_REF(attn_bwd_dkv) {
    FOR_PART(at, attn_units(a->n_kv, a->n_seq, a->max_len)) {
        attn_unit u = attn_unit_at(at, a->n_seq, a->max_len);
        attn_seq seq = attn_seq_at(a->seqs, u.seq);
        if (u.first < seq.len) LANES_CALL(dkv_block)(a, seq, u.head, u.first);
    }
}
