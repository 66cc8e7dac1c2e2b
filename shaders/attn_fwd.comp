#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_fwd.glsl"
#ifdef VKM_FORM_SHARED
#include "attn_fwd_staged.glsl"
#elif defined(VKM_FORM_HALF) || defined(VKM_FORM_BF16)
#include "attn_fwd_matrix.glsl"
#else
#include "attention_rows.glsl"

/* Group (query block of the sequence's own rows, head and slice of the outputs, sequence). Keys are
 * counted from the begin of the prefix: n_prefix rows of another sequence, from prefix0 on. */
float q[R * D], acc[R * DS], total[R * DS];
float s[R * STEP];
uint base[STEP]; /* word of the row's first element, in k and in v */

uint key_row(uint row0, uint prefix0, uint n_prefix, uint j) {
    return j < n_prefix ? prefix0 + j : row0 + (j - n_prefix);
}

/* Scaled scores of keys j .. j + STEP - 1. */
void scores(uint row0, uint prefix0, uint n_prefix, uint j, uint last, uint kvh) {
    uvec2 own[STEP * OWN];
    [[unroll]] for (uint u = 0u; u < STEP; u++) {
        base[u] = (key_row(row0, prefix0, n_prefix, min(j + u, last)) * pc.n_kv + kvh) * DW;
        OWN_WORDS(own, u, pc.k, base[u]);
    }
    [[unroll]] for (uint a = 0u; a < R * STEP; a++) s[a] = 0.0;
    [[unroll]] for (uint i = 0u; i < DW; i++) {
        [[unroll]] for (uint u = 0u; u < STEP; u++) {
            uint w = ROW_WORD(own, u, pc.k, base[u], i);
            [[unroll]] for (uint r = 0u; r < R; r++)
                s[r * STEP + u] =
                    madd2(q[r * D + 2u * i], q[r * D + 2u * i + 1u], w, s[r * STEP + u]);
        }
    }
    [[unroll]] for (uint a = 0u; a < R * STEP; a++) s[a] = mul(s[a], pc.scale);
}

/* Zeros in the columns beyond the last head, and in the pads: rows up to the end of the panel behind
 * a sequence, or behind the batch where sequences lie close together. */
void pad(uint row, uint from, uint to, uint kp) {
    for (uint c = from; c < to; c += 2u) STW_o(vkm_op_word(row, c / 2u, kp), 0u);
}

void main() {
    const uint slices = D / DS;
    uint h = gl_WorkGroupID.y / slices, d0 = (gl_WorkGroupID.y % slices) * DS;
    uint row0 = SEQ_ROW0(gl_WorkGroupID.z), len = SEQ_LEN(gl_WorkGroupID.z);
    uint at_prefix = pc.has_prefix == 0u ? 0u : 2u * gl_WorkGroupID.z;
    uint prefix0 = LD_prefix(at_prefix);
    uint n_prefix = pc.has_prefix == 0u ? 0u : LD_prefix(at_prefix + 1u);
    uint first = gl_WorkGroupID.x * group_rows();
    uint kp = (pc.n_heads * D + 7u) & ~7u;
    uint c_begin = h * D + d0;
    uint c_end = h + 1u == pc.n_heads && d0 + DS == D ? kp : c_begin + DS;
    [[unroll]] for (uint r = 0u; r < R; r++) {
        uint t = first + own_row(r);
        if (t >= len && row0 + t < padded(row0 + len) &&
            (pc.has_prefix == 0u || row0 + len == pc.n_rows))
            pad(row0 + t, c_begin, c_end, kp);
    }
    if (first >= len) return;

    uint kvh = h / (pc.n_heads / pc.n_kv);
    uint end = n_prefix + min(first + group_rows(), len), last = end - 1u;
    uint my[R];
    float m[R], l[R], lc[R];
    [[unroll]] for (uint r = 0u; r < R; r++) {
        my[r] = min(n_prefix + first + own_row(r), last);
        m[r] = neg_infinity();
        l[r] = 0.0;
        uint at = ((row0 + my[r] - n_prefix) * pc.n_heads + h) * DW;
        [[unroll]] for (uint i = 0u; i < DW; i++) {
            uint w = LDW_q(at + i);
            q[r * D + 2u * i] = vkm_bf16_lo(w);
            q[r * D + 2u * i + 1u] = vkm_bf16_hi(w);
        }
    }

    for (uint j = 0u; j < end; j += STEP) {
        scores(row0, prefix0, n_prefix, j, last, kvh);
        [[unroll]] for (uint r = 0u; r < R; r++) {
            [[unroll]] for (uint u = 0u; u < STEP; u++) {
                float x = s[r * STEP + u];
                m[r] = j + u <= my[r] && x > m[r] ? x : m[r];
            }
        }
    }
    [[unroll]] for (uint r = 0u; r < R; r++) m[r] = vkm_canon(m[r]);

    [[unroll]] for (uint a = 0u; a < R * DS; a++) total[a] = 0.0;
    for (uint c = 0u; c < end; c += CHUNK) {
        [[unroll]] for (uint r = 0u; r < R; r++) lc[r] = 0.0;
        [[unroll]] for (uint a = 0u; a < R * DS; a++) acc[a] = 0.0;
        uint chunk_end = min(c + CHUNK, end);
        for (uint j = c; j < chunk_end; j += STEP) {
            scores(row0, prefix0, n_prefix, j, last, kvh);
            [[unroll]] for (uint r = 0u; r < R; r++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    float p = vkm_exp_weight(sub(s[r * STEP + u], m[r]));
                    s[r * STEP + u] = j + u <= my[r] ? p : 0.0;
                    lc[r] = add(lc[r], s[r * STEP + u]);
                }
            }
            uvec2 own[STEP * OWN];
            [[unroll]] for (uint u = 0u; u < STEP; u++) OWN_WORDS(own, u, pc.v, base[u]);
            [[unroll]] for (uint i = 0u; i < DSW; i++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    uint w = ROW_WORD(own, u, pc.v, base[u], d0 / 2u + i);
                    float lo = vkm_bf16_lo(w), hi = vkm_bf16_hi(w);
                    [[unroll]] for (uint r = 0u; r < R; r++) {
                        uint a = r * DS + 2u * i;
                        acc[a] = madd(s[r * STEP + u], lo, acc[a]);
                        acc[a + 1u] = madd(s[r * STEP + u], hi, acc[a + 1u]);
                    }
                }
            }
        }
        [[unroll]] for (uint r = 0u; r < R; r++) l[r] = add(l[r], lc[r]);
        [[unroll]] for (uint a = 0u; a < R * DS; a++) total[a] = add(total[a], acc[a]);
    }

    [[unroll]] for (uint r = 0u; r < R; r++) {
        uint t = first + own_row(r);
        if (t < len) {
            [[unroll]] for (uint i = 0u; i < DSW; i++)
                STW_o(vkm_op_word(row0 + t, c_begin / 2u + i, kp),
                      vkm_bf16_pair(vkm_div(total[r * DS + 2u * i], l[r]),
                                    vkm_div(total[r * DS + 2u * i + 1u], l[r])));
            pad(row0 + t, c_begin + DS, c_end, kp);
            if (d0 == 0u) {
                ST_m((row0 + t) * pc.n_heads + h, m[r]);
                ST_l((row0 + t) * pc.n_heads + h, l[r]);
            }
        }
    }
}
#endif
