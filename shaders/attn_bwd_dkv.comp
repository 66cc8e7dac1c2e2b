#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_bwd_dkv.glsl"
#ifdef VKM_FORM_SHARED
#include "attn_bwd_dkv_staged.glsl"
#elif defined(VKM_FORM_HALF) || defined(VKM_FORM_BF16)
#include "attn_bwd_dkv_matrix.glsl"
#else
#include "attention_rows.glsl"

/* Group (key block, kv head and slice of the outputs, sequence). Sums by chunk of queries, then by
 * head, then over the heads of the group. */
float k[R * D], v[R * D];
float kc[R * DS], kh[R * DS], kt[R * DS], vc[R * DS], vh[R * DS], vt[R * DS];
float s[R * STEP], dp[R * STEP];

/* Zeros in the columns beyond the last head, and in rows of the last panel beyond the sequence. */
void pad(uint row, uint from, uint to, uint kp) {
    for (uint c = from; c < to; c += 2u) STW_dv(vkm_op_word(row, c / 2u, kp), 0u);
}

void main() {
    const uint slices = D / DS;
    uint kvh = gl_WorkGroupID.y / slices, d0 = (gl_WorkGroupID.y % slices) * DS;
    uint row0 = SEQ_ROW0(gl_WorkGroupID.z), len = SEQ_LEN(gl_WorkGroupID.z);
    uint first = gl_WorkGroupID.x * group_rows();
    uint kp = (pc.n_kv * D + 7u) & ~7u;
    uint c_begin = kvh * D + d0;
    uint c_end = kvh + 1u == pc.n_kv && d0 + DS == D ? kp : c_begin + DS;
    [[unroll]] for (uint r = 0u; r < R; r++) {
        uint t = first + own_row(r);
        if (t >= len && row0 + t < padded(row0 + len)) pad(row0 + t, c_begin, c_end, kp);
    }
    if (first >= len) return;

    uint group = pc.n_heads / pc.n_kv, last = len - 1u;
    uint my[R];
    [[unroll]] for (uint r = 0u; r < R; r++) {
        my[r] = min(first + own_row(r), last);
        uint at = ((row0 + my[r]) * pc.n_kv + kvh) * DW;
        [[unroll]] for (uint i = 0u; i < DW; i++) {
            uint x = LDW_k(at + i), y = LDW_v(at + i);
            k[r * D + 2u * i] = vkm_bf16_lo(x);
            k[r * D + 2u * i + 1u] = vkm_bf16_hi(x);
            v[r * D + 2u * i] = vkm_bf16_lo(y);
            v[r * D + 2u * i + 1u] = vkm_bf16_hi(y);
        }
    }
    [[unroll]] for (uint a = 0u; a < R * DS; a++) kt[a] = vt[a] = 0.0;

    for (uint h = kvh * group; h < (kvh + 1u) * group; h++) {
        [[unroll]] for (uint a = 0u; a < R * DS; a++) kh[a] = vh[a] = 0.0;
        for (uint c = first & ~(CHUNK - 1u); c < len; c += CHUNK) {
            [[unroll]] for (uint a = 0u; a < R * DS; a++) kc[a] = vc[a] = 0.0;
            uint chunk_end = min(c + CHUNK, len);
            for (uint t = max(c, first & ~(STEP - 1u)); t < chunk_end; t += STEP) {
                uint stat[STEP];
                uvec2 own_q[STEP * OWN], own_do[STEP * OWN];
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    stat[u] = (row0 + min(t + u, last)) * pc.n_heads + h;
                    OWN_WORDS(own_q, u, pc.q, stat[u] * DW);
                    OWN_WORDS(own_do, u, pc.do_, stat[u] * DW);
                }
                [[unroll]] for (uint a = 0u; a < R * STEP; a++) s[a] = dp[a] = 0.0;
                [[unroll]] for (uint i = 0u; i < DW; i++) {
                    [[unroll]] for (uint u = 0u; u < STEP; u++) {
                        uint x = ROW_WORD(own_q, u, pc.q, stat[u] * DW, i);
                        uint y = ROW_WORD(own_do, u, pc.do_, stat[u] * DW, i);
                        [[unroll]] for (uint r = 0u; r < R; r++) {
                            uint a = r * STEP + u, b = r * D + 2u * i;
                            s[a] = madd2(k[b], k[b + 1u], x, s[a]);
                            dp[a] = madd2(v[b], v[b + 1u], y, dp[a]);
                        }
                    }
                }
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    float m = LD_m(stat[u]), l = LD_l(stat[u]), dr = LD_dr(stat[u]);
                    [[unroll]] for (uint r = 0u; r < R; r++) {
                        uint a = r * STEP + u;
                        bool seen = t + u >= my[r] && t + u <= last;
                        float p = weight(s[a], pc.scale, m, l);
                        s[a] = seen ? unpack_bf16(vkm_bf16z(p)) : 0.0;
                        dp[a] = seen ? score_grad(p, dp[a], dr) : 0.0;
                    }
                }
                [[unroll]] for (uint i = 0u; i < DSW; i++) {
                    [[unroll]] for (uint u = 0u; u < STEP; u++) {
                        uint x = ROW_WORD(own_q, u, pc.q, stat[u] * DW, d0 / 2u + i);
                        uint y = ROW_WORD(own_do, u, pc.do_, stat[u] * DW, d0 / 2u + i);
                        [[unroll]] for (uint r = 0u; r < R; r++) {
                            uint a = r * DS + 2u * i, b = r * STEP + u;
                            kc[a] = madd(dp[b], vkm_bf16_lo(x), kc[a]);
                            kc[a + 1u] = madd(dp[b], vkm_bf16_hi(x), kc[a + 1u]);
                            vc[a] = madd(s[b], vkm_bf16_lo(y), vc[a]);
                            vc[a + 1u] = madd(s[b], vkm_bf16_hi(y), vc[a + 1u]);
                        }
                    }
                }
            }
            [[unroll]] for (uint a = 0u; a < R * DS; a++) {
                kh[a] = add(kh[a], kc[a]);
                vh[a] = add(vh[a], vc[a]);
            }
        }
        [[unroll]] for (uint a = 0u; a < R * DS; a++) {
            kt[a] = add(kt[a], vkm_canon(mul(kh[a], pc.scale)));
            vt[a] = add(vt[a], vh[a]);
        }
    }

    [[unroll]] for (uint r = 0u; r < R; r++) {
        uint t = first + own_row(r);
        if (t < len) {
            uint at = ((row0 + t) * pc.n_kv + kvh) * D + d0;
            [[unroll]] for (uint d = 0u; d < DS; d++) ST_dk(at + d, kt[r * DS + d]);
            [[unroll]] for (uint i = 0u; i < DSW; i++)
                STW_dv(vkm_op_word(row0 + t, c_begin / 2u + i, kp),
                       vkm_bf16_pair(vt[r * DS + 2u * i], vt[r * DS + 2u * i + 1u]));
            pad(row0 + t, c_begin + DS, c_end, kp);
        }
    }
}
#endif
