#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_bwd_dq.glsl"
#ifdef VKM_FORM_SHARED
#include "attn_bwd_dq_staged.glsl"
#elif defined(VKM_FORM_HALF) || defined(VKM_FORM_BF16)
#include "attn_bwd_dq_matrix.glsl"
#else
#include "attention_rows.glsl"

/* Group (query block, head and slice of the outputs, sequence). */
float q[R * D], go[R * D], acc[R * DS], total[R * DS];
float s[R * STEP], dp[R * STEP];

void main() {
    const uint slices = D / DS;
    uint h = gl_WorkGroupID.y / slices, d0 = (gl_WorkGroupID.y % slices) * DS;
    uint row0 = SEQ_ROW0(gl_WorkGroupID.z), len = SEQ_LEN(gl_WorkGroupID.z);
    uint first = gl_WorkGroupID.x * group_rows();
    if (first >= len) return;

    uint kvh = h / (pc.n_heads / pc.n_kv);
    uint end = min(first + group_rows(), len), last = end - 1u;
    uint my[R], stat[R];
    float m[R], l[R], dr[R];
    [[unroll]] for (uint r = 0u; r < R; r++) {
        my[r] = min(first + own_row(r), last);
        stat[r] = (row0 + my[r]) * pc.n_heads + h;
        m[r] = LD_m(stat[r]);
        l[r] = LD_l(stat[r]);
        dr[r] = LD_dr(stat[r]);
        [[unroll]] for (uint i = 0u; i < DW; i++) {
            uint w = LDW_q(stat[r] * DW + i), g = LDW_do_(stat[r] * DW + i);
            q[r * D + 2u * i] = vkm_bf16_lo(w);
            q[r * D + 2u * i + 1u] = vkm_bf16_hi(w);
            go[r * D + 2u * i] = vkm_bf16_lo(g);
            go[r * D + 2u * i + 1u] = vkm_bf16_hi(g);
        }
    }

    [[unroll]] for (uint a = 0u; a < R * DS; a++) total[a] = 0.0;
    for (uint c = 0u; c < end; c += CHUNK) {
        [[unroll]] for (uint a = 0u; a < R * DS; a++) acc[a] = 0.0;
        uint chunk_end = min(c + CHUNK, end);
        for (uint j = c; j < chunk_end; j += STEP) {
            uint base[STEP];
            uvec2 own_k[STEP * OWN], own_v[STEP * OWN];
            [[unroll]] for (uint u = 0u; u < STEP; u++) {
                base[u] = ((row0 + min(j + u, last)) * pc.n_kv + kvh) * DW;
                OWN_WORDS(own_k, u, pc.k, base[u]);
                OWN_WORDS(own_v, u, pc.v, base[u]);
            }
            [[unroll]] for (uint a = 0u; a < R * STEP; a++) s[a] = dp[a] = 0.0;
            [[unroll]] for (uint i = 0u; i < DW; i++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    uint x = ROW_WORD(own_k, u, pc.k, base[u], i);
                    uint y = ROW_WORD(own_v, u, pc.v, base[u], i);
                    [[unroll]] for (uint r = 0u; r < R; r++) {
                        uint a = r * STEP + u, b = r * D + 2u * i;
                        s[a] = madd2(q[b], q[b + 1u], x, s[a]);
                        dp[a] = madd2(go[b], go[b + 1u], y, dp[a]);
                    }
                }
            }
            [[unroll]] for (uint r = 0u; r < R; r++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    uint a = r * STEP + u;
                    float p = weight(s[a], pc.scale, m[r], l[r]);
                    s[a] = j + u <= my[r] ? score_grad(p, dp[a], dr[r]) : 0.0;
                }
            }
            [[unroll]] for (uint i = 0u; i < DSW; i++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    uint w = ROW_WORD(own_k, u, pc.k, base[u], d0 / 2u + i);
                    float lo = vkm_bf16_lo(w), hi = vkm_bf16_hi(w);
                    [[unroll]] for (uint r = 0u; r < R; r++) {
                        uint a = r * DS + 2u * i;
                        acc[a] = madd(s[r * STEP + u], lo, acc[a]);
                        acc[a + 1u] = madd(s[r * STEP + u], hi, acc[a + 1u]);
                    }
                }
            }
        }
        [[unroll]] for (uint a = 0u; a < R * DS; a++) total[a] = add(total[a], acc[a]);
    }

    [[unroll]] for (uint r = 0u; r < R; r++)
        if (first + own_row(r) < len)
            [[unroll]] for (uint d = 0u; d < DS; d++)
                ST_dq(stat[r] * D + d0 + d, mul(total[r * DS + d], pc.scale));
}
#endif
