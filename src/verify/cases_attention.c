/* Cases of the attention kernels: odd head shapes and presets, lengths at the borders of blocks,
 * panels and chunks, several sequences with gaps. */
#include <math.h>

#include "ops/numerics.h"
#include "verify/verify.h"

/* Heads, kv heads, head dimension; how many of the lists of sequences it takes. */
static const uint32_t shapes[][4] = {
    {1, 1, 2, 6}, {4, 2, 32, 6}, {3, 1, 64, 4}, {4, 2, 128, 4}, {16, 8, 128, 2}};

/* Sequences of a case; 0 ends the list. */
static const uint32_t lengths[][4] = {
    {1}, {2, 63, 64, 65}, {127, 1, 2}, {257}, {255, 256, 257}, {513, 300},
};

/* Sequences one after another: close together, or at multiples of 16, a whole panel between them.
 */
typedef struct layout {
    uint32_t n_seq, max_len, n_rows;
    vkm_tensor seqs;
} layout;

static layout lay_out(vkm_verify *v, const uint32_t *len, int close) {
    layout x = {0};
    uint32_t seqs[4][4] = {{0}};
    for (; x.n_seq < 4 && len[x.n_seq]; x.n_seq++) {
        uint32_t n = len[x.n_seq];
        seqs[x.n_seq][0] = x.n_rows;
        seqs[x.n_seq][1] = n;
        x.n_rows += close ? n : (uint32_t)vkm_round_up(n, 16) + 16;
        if (n > x.max_len) x.max_len = n;
    }
    x.seqs = vkm_v_u32_data(v, seqs[0], 4ull * x.n_seq);
    return x;
}

/* Large scores make nearly every weight underflow: of integers, all but those of the maxima. */
static float scale_of(const vkm_verify *v, uint32_t head_dim, size_t i) {
    return vkm_v_integers(v) ? 128.0f : i % 2 ? 4.0f : 1.0f / (float)head_dim;
}

#define FOR_ATTENTION(shape, x)                                                                    \
    for (size_t shape_i = 0; shape_i < VKM_COUNTOF(shapes); shape_i++)                             \
        for (size_t length_i = 0; length_i < shapes[shape_i][3]; length_i++)                       \
            for (const uint32_t *shape = shapes[shape_i], *x = lengths[length_i]; x; x = NULL)

/* Whole sequences; and, close together, the later ones behind the first or part of it. */
VKM_CASES(attn_fwd) {
    FOR_ATTENTION(shape, len)
    for (uint32_t has_prefix = 0; has_prefix < 2; has_prefix++) {
        layout x = lay_out(v, len, (int)has_prefix);
        vkm_args_attn_fwd a = {
            .n_rows = x.n_rows, .n_seq = x.n_seq, .max_len = x.max_len, .n_heads = shape[0]};
        uint32_t prefix[4][2] = {{0}};
        for (uint32_t i = 1; i < x.n_seq; i++) prefix[i][1] = i % 2 ? len[0] : len[0] / 2;
        a.n_kv = shape[1];
        a.head_dim = shape[2];
        a.scale = scale_of(v, shape[2], shape_i + length_i);
        a.has_prefix = has_prefix;
        uint32_t q_cols = shape[0] * shape[2], kv_cols = shape[1] * shape[2];
        vkm_fill fill = length_i == 2 ? VKM_FILL_ADVERSARIAL : VKM_FILL_NORMAL;
        a.q = vkm_v_bf16(v, (uint64_t)x.n_rows * q_cols, VKM_FILL_NORMAL);
        a.k = vkm_v_bf16(v, (uint64_t)x.n_rows * kv_cols, VKM_FILL_NORMAL);
        a.v = vkm_v_bf16(v, (uint64_t)x.n_rows * kv_cols, fill);
        a.seqs = x.seqs;
        a.prefix = vkm_v_u32_data(v, prefix[0], 2ull * x.n_seq);
        a.o = vkm_v_op16_out(v, x.n_rows, q_cols);
        a.m = vkm_v_f32_out(v, (uint64_t)x.n_rows * shape[0]);
        a.l = vkm_v_f32_out(v, (uint64_t)x.n_rows * shape[0]);
        VKM_V_RUN(v, attn_fwd, &a);
    }
}

/* Rows of `state` with prompts shared by every other row, some rows finished. */
static vkm_tensor decode_state(vkm_verify *v, uint32_t n_rows, uint32_t max_prompt,
                               uint32_t max_own) {
    vkm_tensor t = vkm_v_u32(v, 8ull * n_rows, 100);
    uint32_t *s = (uint32_t *)(uintptr_t)t.addr;
    for (uint32_t i = 0; i < n_rows; i++, s += 8) {
        s[0] = i % 2 * max_prompt;
        s[1] = i % 2 ? max_prompt : 1 + max_prompt / 2;
        s[2] = i * max_own;
        s[3] = i == 0 ? max_own : 1 + vkm_v_random(v, max_own);
        s[5] = i % 5 == 3;
    }
    return t;
}

VKM_CASES(attn_decode) {
    static const uint32_t keys[][2] = {{1, 1}, {63, 2}, {64, 64}, {250, 7}, {100, 300}};
    for (size_t i = 0; i < VKM_COUNTOF(shapes); i++)
        for (size_t j = 0; j < VKM_COUNTOF(keys); j++) {
            const uint32_t *shape = shapes[i], prompt = keys[j][0], own = keys[j][1];
            uint32_t n_rows = shape[2] == 128 ? 3 : 5 + (uint32_t)j;
            vkm_args_attn_decode a = {.n_rows = n_rows, .n_heads = shape[0], .n_kv = shape[1]};
            a.head_dim = shape[2];
            a.max_keys = prompt + own + (uint32_t)j;
            a.scale = scale_of(v, shape[2], i + j);
            uint64_t kv_cols = shape[1] * shape[2];
            a.q = vkm_v_bf16(v, (uint64_t)n_rows * shape[0] * shape[2], VKM_FILL_NORMAL);
            a.prompt_k = vkm_v_bf16(v, 2 * prompt * kv_cols, VKM_FILL_NORMAL);
            a.prompt_v = vkm_v_bf16(v, 2 * prompt * kv_cols, VKM_FILL_ADVERSARIAL);
            a.own_k = vkm_v_bf16(v, n_rows * own * kv_cols, VKM_FILL_NORMAL);
            a.own_v = vkm_v_bf16(v, n_rows * own * kv_cols, VKM_FILL_NORMAL);
            a.state = decode_state(v, n_rows, prompt, own);
            a.o = vkm_v_op16_out(v, n_rows, shape[0] * shape[2]);
            a.scratch = vkm_v_f32_out(v, (uint64_t)n_rows * shape[0] * a.max_keys);
            VKM_V_RUN(v, attn_decode, &a);
        }
}

VKM_CASES(attn_dr) {
    FOR_SIZES(n_rows, 1, 63, 64, 65, 127) {
        for (size_t i = 0; i <= VKM_COUNTOF(shapes); i++) {
            vkm_args_attn_dr a = {.n_rows = n_rows};
            a.n_heads = i < VKM_COUNTOF(shapes) ? shapes[i][0] : 2;
            a.head_dim = i < VKM_COUNTOF(shapes) ? shapes[i][2] : 256;
            a.do_ = vkm_v_bf16(v, (uint64_t)n_rows * a.n_heads * a.head_dim, VKM_FILL_ADVERSARIAL);
            a.o = vkm_v_op16(v, n_rows, a.n_heads * a.head_dim, VKM_FILL_NORMAL);
            a.dr = vkm_v_f32_out(v, (uint64_t)n_rows * a.n_heads);
            VKM_V_RUN(v, attn_dr, &a);
        }
    }
}

/* Row statistics as the forward pass leaves them: maxima of plausible size, sums in [1, keys]. */
static vkm_tensor sums_of(vkm_verify *v, uint64_t n) {
    vkm_tensor t = vkm_v_f32(v, n, VKM_FILL_POSITIVE);
    float *l = (float *)(uintptr_t)t.addr;
    for (uint64_t i = 0; i < n; i++)
        l[i] = vkm_v_integers(v) ? (float)(1u << (int)l[i] / 3) : 1.0f + 300.0f * l[i];
    return t;
}

static float value(vkm_tensor t, uint64_t at) {
    return vkm_bf16_lo(((const uint16_t *)(uintptr_t)t.addr)[at]);
}

/* Of integers the true maxima, so that weights are 0 or 1. */
static vkm_tensor maxima_of(vkm_verify *v, vkm_tensor q, vkm_tensor k, layout x,
                            const uint32_t *shape, float scale) {
    vkm_tensor t = vkm_v_f32(v, (uint64_t)x.n_rows * shape[0], VKM_FILL_NORMAL);
    float *m = (float *)(uintptr_t)t.addr;
    const uint32_t *seqs = (const uint32_t *)(uintptr_t)x.seqs.addr, dims = shape[2];
    if (!vkm_v_integers(v)) return t;
    for (uint64_t i = 0; i < (uint64_t)x.n_seq * x.max_len * shape[0]; i++) {
        uint64_t seq = i / x.max_len / shape[0], row = i / shape[0] % x.max_len, h = i % shape[0];
        uint64_t row0 = seqs[4 * seq], at = (row0 + row) * shape[0] + h;
        if (row >= seqs[4 * seq + 1]) continue;
        m[at] = -INFINITY;
        for (uint64_t j = row0; j <= row0 + row; j++) {
            uint64_t key = j * shape[1] + h / (shape[0] / shape[1]);
            float s = 0;
            for (uint32_t d = 0; d < dims; d++)
                s += value(q, at * dims + d) * value(k, key * dims + d);
            m[at] = fmaxf(m[at], scale * s);
        }
    }
    return t;
}

/* Values; of integers two a row that are not 0, so that a score's gradient has no more digits than
 * bf16. */
static vkm_tensor values_of(vkm_verify *v, uint64_t n_rows, uint32_t dims) {
    vkm_tensor t = vkm_v_bf16(v, n_rows * dims, VKM_FILL_NORMAL);
    uint16_t *x = (uint16_t *)(uintptr_t)t.addr;
    for (uint64_t i = 0; vkm_v_integers(v) && i < n_rows * dims; i++)
        if ((i % dims + 7 * (i / dims)) % (dims / 2)) x[i] = 0;
    return t;
}

VKM_CASES(attn_bwd_dq) {
    FOR_ATTENTION(shape, len) {
        layout x = lay_out(v, len, 0);
        vkm_args_attn_bwd_dq a = {.n_seq = x.n_seq, .max_len = x.max_len, .n_heads = shape[0]};
        a.n_kv = shape[1];
        a.head_dim = shape[2];
        a.scale = scale_of(v, shape[2], 0);
        uint64_t q_n = (uint64_t)x.n_rows * shape[0] * shape[2];
        uint64_t kv_n = (uint64_t)x.n_rows * shape[1] * shape[2];
        uint64_t stats = (uint64_t)x.n_rows * shape[0];
        a.q = vkm_v_bf16(v, q_n, VKM_FILL_NORMAL);
        a.k = vkm_v_bf16(v, kv_n, VKM_FILL_NORMAL);
        a.v = values_of(v, (uint64_t)x.n_rows * shape[1], shape[2]);
        a.do_ = vkm_v_bf16(v, q_n, length_i == 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.m = maxima_of(v, a.q, a.k, x, shape, a.scale);
        a.l = sums_of(v, stats);
        a.dr = vkm_v_f32(v, stats, VKM_FILL_NORMAL);
        a.seqs = x.seqs;
        a.dq = vkm_v_f32_out(v, q_n);
        VKM_V_RUN(v, attn_bwd_dq, &a);
    }
}

VKM_CASES(attn_bwd_dkv) {
    FOR_ATTENTION(shape, len) {
        layout x = lay_out(v, len, 0);
        vkm_args_attn_bwd_dkv a = {.n_seq = x.n_seq, .max_len = x.max_len, .n_heads = shape[0]};
        a.n_kv = shape[1];
        a.head_dim = shape[2];
        a.scale = scale_of(v, shape[2], 0);
        uint64_t q_n = (uint64_t)x.n_rows * shape[0] * shape[2];
        uint64_t kv_n = (uint64_t)x.n_rows * shape[1] * shape[2];
        uint64_t stats = (uint64_t)x.n_rows * shape[0];
        a.q = vkm_v_bf16(v, q_n, VKM_FILL_NORMAL);
        a.k = vkm_v_bf16(v, kv_n, VKM_FILL_NORMAL);
        a.v = values_of(v, (uint64_t)x.n_rows * shape[1], shape[2]);
        a.do_ = vkm_v_bf16(v, q_n, length_i == 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.m = maxima_of(v, a.q, a.k, x, shape, a.scale);
        a.l = sums_of(v, stats);
        a.dr = vkm_v_f32(v, stats, VKM_FILL_NORMAL);
        a.seqs = x.seqs;
        a.dk = vkm_v_f32_out(v, kv_n);
        a.dv = vkm_v_op16_out(v, x.n_rows, shape[1] * shape[2]);
        VKM_V_RUN(v, attn_bwd_dkv, &a);
    }
}
