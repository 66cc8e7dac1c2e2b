#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_decode.glsl"

/* Behind a barrier lanes read of the scratch what others wrote: no cache may lie between them. */
layout(buffer_reference, std430, buffer_reference_align = 4) coherent buffer SCRATCH { float v[]; };
#undef LD_scratch
#undef ST_scratch
#define LD_scratch(at_)     (SCRATCH(pc.scratch).v[at_])
#define ST_scratch(at_, x_) SCRATCH(pc.scratch).v[at_] = vkm_canon(x_)

#ifdef VKM_FORM_SHARED
#include "attn_decode_staged.glsl"
#else
#include "attention.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint D = 2u; /* head dimension, even */
layout(constant_id = 2) const uint W = 1u; /* words of the output a lane has, one beside the other */
layout(constant_id = 3) const uint R = 1u; /* heads of a workgroup, all of one kv head */
layout(constant_id = 4) const uint FOURS = 0u;  /* 1: four words of a key lie where one load finds them all */
layout(constant_id = 5) const uint SPREAD = 0u; /* 1: eight lanes load a head's weights of eight keys */
const uint DW = D / 2u;
const uint LOCAL = gl_WorkGroupSize.x;
const uint KEYS = SPREAD != 0u ? 8u : 1u; /* a step; divides CHUNK */

/* Group (heads, row). Lanes first lie along keys (scores, then weights, in scratch), then along the
 * output's words. */
shared float lane_max[R * LOCAL];
float q[R * D], s[R], m[R], l[R], lc[R];
float acc[2u * W * R], total[2u * W * R];

/* The keys' or the values' rows of a row of the batch. */
struct rows {
    uint prompt_row0, prompt_len, own_row0, kvh;
};

/* Word of the first element of key j. */
uint key_word(rows x, uint j) {
    uint row = j >= x.prompt_len ? x.own_row0 + j - x.prompt_len : x.prompt_row0 + j;
    return (row * pc.n_kv + x.kvh) * DW;
}

/* s[r] += elements 2 i and 2 i + 1 of q of head r times those of a key. */
void take_word(uint w, uint i) {
    [[unroll]] for (uint r = 0u; r < R; r++)
        s[r] = madd2(q[r * D + 2u * i], q[r * D + 2u * i + 1u], w, s[r]);
}

/* s[r] = q of head r times the key at word `at`. */
void scores(uvec2 addr, uint at) {
    [[unroll]] for (uint r = 0u; r < R; r++) s[r] = 0.0;
    if (FOURS != 0u) {
        [[unroll]] for (uint i = 0u; i < DW / 4u; i++) {
            uvec4 w = vkm_words4(addr, at / 4u + i);
            [[unroll]] for (uint e = 0u; e < 4u; e++) take_word(w[e], 4u * i + e);
        }
    } else {
        [[unroll]] for (uint i = 0u; i < DW; i++) take_word(U32_R(addr).v[at + i], i);
    }
}

/* This lane's words of a value row, which start at word `first`: acc += s times them; zeros if the
 * key does not exist. */
void take_value(uvec2 addr, uint at, uint first, bool exists) {
    uint w[W];
    if (FOURS != 0u && W % 2u == 0u) {
        [[unroll]] for (uint i = 0u; i < W; i += 2u) {
            uvec2 x = vkm_words2(addr, (at + min(first + i, DW - 2u)) / 2u);
            w[i] = x.x;
            w[i + 1u] = x.y;
        }
    } else {
        [[unroll]] for (uint i = 0u; i < W; i++) w[i] = U32_R(addr).v[at + min(first + i, DW - 1u)];
    }
    [[unroll]] for (uint i = 0u; i < W; i++) {
        uint word = exists ? w[i] : 0u;
        float lo = vkm_bf16_lo(word), hi = vkm_bf16_hi(word);
        [[unroll]] for (uint r = 0u; r < R; r++) {
            uint a = 2u * (r * W + i);
            acc[a] = madd(s[r], lo, acc[a]);
            acc[a + 1u] = madd(s[r], hi, acc[a + 1u]);
        }
    }
}

void main() {
    uint h0 = gl_WorkGroupID.x * R, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
    uint kvh = h0 / (pc.n_heads / pc.n_kv);
    rows x = rows(LD_state(8u * row), LD_state(8u * row + 1u), LD_state(8u * row + 2u), kvh);
    uint n_keys = min(x.prompt_len + LD_state(8u * row + 3u), pc.max_keys);
    if (LD_state(8u * row + 5u) != 0u || n_keys == 0u) return;

    uint head = row * pc.n_heads + h0;
    [[unroll]] for (uint i = 0u; i < R * DW; i++) {
        uint w = LDW_q(head * DW + i);
        q[2u * i] = vkm_bf16_lo(w);
        q[2u * i + 1u] = vkm_bf16_hi(w);
    }
    [[unroll]] for (uint r = 0u; r < R; r++) m[r] = neg_infinity();
    for (uint j0 = 0u; j0 < n_keys; j0 += LOCAL) {
        uint j = min(j0 + lane, n_keys - 1u);
        scores(j >= x.prompt_len ? pc.own_k : pc.prompt_k, key_word(x, j));
        [[unroll]] for (uint r = 0u; r < R; r++) {
            float y = mul(s[r], pc.scale);
            m[r] = y > m[r] ? y : m[r];
            if (j0 + lane < n_keys) ST_scratch((head + r) * pc.max_keys + j, y);
        }
    }
    [[unroll]] for (uint r = 0u; r < R; r++) lane_max[r * LOCAL + lane] = m[r];
    barrier();
    [[unroll]] for (uint r = 0u; r < R; r++) {
        for (uint i = 0u; i < LOCAL; i++) {
            float y = lane_max[r * LOCAL + i];
            m[r] = y > m[r] ? y : m[r];
        }
        m[r] = vkm_canon(m[r]);
        uint at = (head + r) * pc.max_keys;
        for (uint j = lane; j < n_keys; j += LOCAL) /* each lane its own scores */
            ST_scratch(at + j, vkm_exp_weight(sub(LD_scratch(at + j), m[r])));
    }
    memoryBarrierBuffer();
    barrier();

    [[unroll]] for (uint r = 0u; r < R; r++) l[r] = 0.0;
    [[unroll]] for (uint a = 0u; a < 2u * W * R; a++) total[a] = 0.0;
    for (uint c = 0u; c < n_keys; c += CHUNK) {
        [[unroll]] for (uint r = 0u; r < R; r++) lc[r] = 0.0;
        [[unroll]] for (uint a = 0u; a < 2u * W * R; a++) acc[a] = 0.0;
        uint c_end = min(c + CHUNK, n_keys);
        for (uint j0 = c; j0 < c_end; j0 += KEYS) {
            float own[R]; /* of key j0 + this lane of eight, 0 past the end */
            [[unroll]] for (uint r = 0u; r < R; r++) {
                uint j = j0 + lane % KEYS;
                float p = LD_scratch((head + r) * pc.max_keys + min(j, n_keys - 1u));
                own[r] = j < c_end ? p : 0.0;
            }
            [[unroll]] for (uint u = 0u; u < KEYS; u++) {
                [[unroll]] for (uint r = 0u; r < R; r++) {
                    s[r] = SPREAD != 0u ? VKM_FROM_LANE(own[r], u) : own[r];
                    lc[r] = add(lc[r], s[r]);
                }
                uint j = min(j0 + u, n_keys - 1u);
                take_value(j >= x.prompt_len ? pc.own_v : pc.prompt_v, key_word(x, j), lane * W,
                           KEYS == 1u || j0 + u < c_end);
            }
        }
        [[unroll]] for (uint r = 0u; r < R; r++) l[r] = add(l[r], lc[r]);
        [[unroll]] for (uint a = 0u; a < 2u * W * R; a++) total[a] = add(total[a], acc[a]);
    }

    uint kp = (pc.n_heads * D + 7u) & ~7u;
    [[unroll]] for (uint r = 0u; r < R; r++) {
        [[unroll]] for (uint i = 0u; i < W; i++) {
            uint word = lane * W + i, a = 2u * (r * W + i);
            if (word < DW)
                STW_o(vkm_op_word(row, (h0 + r) * DW + word, kp),
                      vkm_bf16_pair(vkm_div(total[a], l[r]), vkm_div(total[a + 1u], l[r])));
        }
    }
    if (h0 + R == pc.n_heads)
        for (uint k = pc.n_heads * DW + lane; k < kp / 2u; k += LOCAL)
            STW_o(vkm_op_word(row, k, kp), 0u);
}
#endif
