/* Attention forward: whole sequences (prefill and training) and one query against a cache (decode),
 * which give the same bits. For a row with visible keys 0 .. n - 1 of its sequence:
 *     s_j = scale * dot(q, k_j)        M = max s_j        p_j = bf16z(exp(s_j - M))
 *     L = sum p_j                      O = sum p_j v_j    o = bf16z(O / L)
 * Sums are taken in chunks of 256 keys counted from the sequence's start, and nothing is rescaled,
 * so it does not matter how the keys are cut into blocks or where they are stored. Masked keys
 * would add +0 and are skipped. M and L are kept for the backward pass (attention_bwd.c). */
#include "ops/attention.h"

enum { ATTN_HEADS = 4 }; /* query heads that share a conversion of the keys */

/* The keys of one decode row: the prompt's rows, then the rollout's own. */
typedef struct decode_keys {
    const bf16 *k[2], *v[2]; /* first row of each part, at the kv head */
    uint64_t stride;
    uint32_t prompt_len, n;
} decode_keys;

static inline const bf16 *decode_row(const decode_keys *x, const bf16 *const *part, uint32_t j) {
    return j < x->prompt_len ? part[0] + j * x->stride : part[1] + (j - x->prompt_len) * x->stride;
}

#define LANES_BODY "ops/attention_fwd_lanes.h"
#include "ops/lanes.h"

/* Columns of `state`. */
enum { PROMPT_ROW0, PROMPT_LEN, OWN_ROW0, N_OWN, TOKEN, FINISHED, ROLLOUT, STATE_COLS = 8 };

#ifndef VKM_TWIN64
int vkm_lanes_limit = 2;

void vkm_op_attn_fwd(vkm_stream *s, const vkm_args_attn_fwd *a) {
    vkm_args_attn_fwd b = *a;
    attn_check("attn_fwd", a->n_heads, a->n_kv, a->head_dim);
    if (!a->n_seq || !a->max_len) return;
    uint64_t rows = a->q.n / ((uint64_t)a->n_heads * a->head_dim);
    b.k = vkm_need(a->k, rows * a->n_kv * a->head_dim, "attn_fwd", "k");
    b.v = vkm_need(a->v, rows * a->n_kv * a->head_dim, "attn_fwd", "v");
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "attn_fwd", "seqs");
    /* unread without one */
    b.prefix = a->has_prefix ? vkm_need(a->prefix, 2ull * a->n_seq, "attn_fwd", "prefix") : b.seqs;
    b.o = vkm_need(a->o, vkm_op_size(rows, a->n_heads * a->head_dim), "attn_fwd", "o");
    b.m = vkm_need(a->m, rows * a->n_heads, "attn_fwd", "m");
    b.l = vkm_need(a->l, rows * a->n_heads, "attn_fwd", "l");
    double pairs = 0.5 * a->n_seq * a->n_heads * (double)a->max_len * a->max_len;
    uint32_t len = a->max_len + (a->has_prefix ? ATTN_BLOCK - 1 : 0); /* with pads */
    vkm_launch how = attn_launch(s, len, a->n_heads, a->n_seq, a->head_dim, 2, ATTN_MAX_D,
                                 pairs * (6.0 * a->head_dim + 60));
    attn_grid g = {len, a->n_heads, a->n_seq, a->head_dim, 1, 1, 1, attn_aligned(b.q, b.k, b.v)};
    vkm_stream_launch(s, &vkm_kernels[VKM_K_attn_fwd], &b, vkm_attn_form(s, how, g));
}

void vkm_op_attn_decode(vkm_stream *s, const vkm_args_attn_decode *a) {
    vkm_args_attn_decode b = *a;
    attn_check("attn_decode", a->n_heads, a->n_kv, a->head_dim);
    VKM_BUG_ON(a->n_rows > 65535, "attn_decode: %u rows", a->n_rows);
    if (!a->n_rows || !a->max_keys) return;
    uint64_t heads = (uint64_t)a->n_rows * a->n_heads;
    b.q = vkm_need(a->q, heads * a->head_dim, "attn_decode", "q");
    b.state = vkm_need(a->state, (uint64_t)STATE_COLS * a->n_rows, "attn_decode", "state");
    b.o = vkm_need(a->o, vkm_op_size(a->n_rows, a->n_heads * a->head_dim), "attn_decode", "o");
    b.scratch = vkm_need(a->scratch, heads * a->max_keys, "attn_decode", "scratch");
    /* heads of a group share a workgroup, and so the loads of keys and values */
    uint32_t group = a->n_heads / a->n_kv, shared_heads = group < 4 ? group : 4;
    while (shared_heads > 1 && group % shared_heads) shared_heads--;
    int gpu = vkm_dev_class_of(vkm_stream_dev(s)) == VKM_CLASS_GPU;
    uint32_t local = gpu ? 64 : 8, words = vkm_div_up(a->head_dim / 2, local);
    uint32_t fours = a->head_dim % 8 == 0;
    const vkm_tensor *const rows[] = {&a->prompt_k, &a->prompt_v, &a->own_k, &a->own_v};
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) fours &= rows[i]->addr % 16 == 0;
    double work = (double)heads * a->max_keys * (4.0 * a->head_dim + 60);
    vkm_launch how = {{a->n_heads / shared_heads, a->n_rows, 1},
                      {local, a->head_dim, words, shared_heads, fours, attn_spreads(s)},
                      work};
    vkm_stream_launch(s, &vkm_kernels[VKM_K_attn_decode], &b,
                      fours ? vkm_attn_decode_form(s, how, a->head_dim, shared_heads) : how);
}
#endif

VKM_REF(attn_fwd) {
    FOR_PART(at, attn_units(a->n_heads, a->n_seq, a->max_len)) {
        attn_unit u = attn_unit_at(at, a->n_seq, a->max_len);
        attn_seq seq = attn_seq_at(a->seqs, u.seq);
        if (a->has_prefix) {
            const uint32_t *p = ref_u32(a->prefix) + 2ull * u.seq; // (n_seq, 2): first row, rows
            seq.prefix0 = p[0];
            seq.prefix = p[1];
        }
        if (u.first < seq.len) LANES_CALL(fwd_block)(a, seq, u.head, u.first);
    }
}

VKM_REF(attn_decode) {
    const uint32_t group = a->n_heads / a->n_kv;
    const uint64_t stride = (uint64_t)a->n_kv * a->head_dim;
    FOR_PART(at, (uint64_t)a->n_rows * a->n_kv) {
        const uint64_t row = at / a->n_kv;
        const uint32_t kvh = (uint32_t)(at % a->n_kv);
        const uint32_t *state = ref_u32(a->state) + row * STATE_COLS;
        const uint64_t prompt = state[PROMPT_ROW0] * stride + kvh * a->head_dim;
        const uint64_t own = state[OWN_ROW0] * stride + kvh * a->head_dim;
        decode_keys keys = {
            .k = {ref_bf16(a->prompt_k) + prompt, ref_bf16(a->own_k) + own},
            .v = {ref_bf16(a->prompt_v) + prompt, ref_bf16(a->own_v) + own},
            .stride = stride,
            .prompt_len = state[PROMPT_LEN],
            .n = attn_min(state[PROMPT_LEN] + state[N_OWN], a->max_keys),
        };
        if (state[FINISHED] || !keys.n) continue;
        for (uint32_t h = 0; h < group; h += ATTN_HEADS) LANES_CALL(decode_heads)
        (a, keys, row, kvh * group + h, attn_min(group - h, ATTN_HEADS));
    }
}
