#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_bwd_dkv.glsl"
#include "attention.glsl"

/* Group (key block, kv head and slice of the outputs, sequence); a lane is one key. Sums by chunk
 * of queries, then by head, then over the heads of the group. */
float k[D], v[D];
float kc[DS], kh[DS], kt[DS], vc[DS], vh[DS], vt[DS];

void main() {
    const uint slices = D / DS;
    uint kvh = gl_WorkGroupID.y / slices, d0 = (gl_WorkGroupID.y % slices) * DS;
    uint row0 = SEQ_ROW0(gl_WorkGroupID.z), len = SEQ_LEN(gl_WorkGroupID.z);
    uint first = gl_WorkGroupID.x * gl_WorkGroupSize.x;
    uint t = first + gl_LocalInvocationID.x;
    uint kp = (pc.n_kv * D + 7u) & ~7u;
    uint k_end = kvh + 1u == pc.n_kv && d0 + DS == D ? kp : kvh * D + d0 + DS;
    if (t >= len) { /* the pad of the last panel */
        if (t < padded(len))
            for (uint i = kvh * D + d0; i < k_end; i += 2u)
                STW_dv(vkm_op_word(row0 + t, i / 2u, kp), 0u);
    }
    if (first >= len) return;

    uint group = pc.n_heads / pc.n_kv, last = len - 1u;
    uint my = min(t, last);
    uint at = ((row0 + my) * pc.n_kv + kvh) * DW;
    [[unroll]] for (uint i = 0u; i < DW; i++) {
        uint a = LDW_k(at + i), b = LDW_v(at + i);
        k[2u * i] = vkm_bf16_lo(a);
        k[2u * i + 1u] = vkm_bf16_hi(a);
        v[2u * i] = vkm_bf16_lo(b);
        v[2u * i + 1u] = vkm_bf16_hi(b);
    }
    [[unroll]] for (uint d = 0u; d < DS; d++) kt[d] = vt[d] = 0.0;

    for (uint h = kvh * group; h < (kvh + 1u) * group; h++) {
        [[unroll]] for (uint d = 0u; d < DS; d++) kh[d] = vh[d] = 0.0;
        for (uint c = first & ~(CHUNK - 1u); c < len; c += CHUNK) {
            [[unroll]] for (uint d = 0u; d < DS; d++) kc[d] = vc[d] = 0.0;
            uint c_end = min(c + CHUNK, len);
            for (uint i0 = max(c, first & ~(STEP - 1u)); i0 < c_end; i0 += STEP) {
                uint stat[STEP];
                float s[STEP], dp[STEP];
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    stat[u] = (row0 + min(i0 + u, last)) * pc.n_heads + h;
                    s[u] = 0.0;
                    dp[u] = 0.0;
                }
                [[unroll]] for (uint i = 0u; i < DW; i++) {
                    [[unroll]] for (uint u = 0u; u < STEP; u++) {
                        s[u] = madd2(k[2u * i], k[2u * i + 1u], LDW_q(stat[u] * DW + i), s[u]);
                        dp[u] = madd2(v[2u * i], v[2u * i + 1u], LDW_do_(stat[u] * DW + i), dp[u]);
                    }
                }
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    bool seen = i0 + u >= my && i0 + u <= last;
                    float p = weight(s[u], pc.scale, LD_m(stat[u]), LD_l(stat[u]));
                    s[u] = seen ? unpack_bf16(vkm_bf16z(p)) : 0.0;
                    dp[u] = seen ? score_grad(p, dp[u], LD_dr(stat[u])) : 0.0;
                }
                [[unroll]] for (uint i = 0u; i < DSW; i++) {
                    [[unroll]] for (uint u = 0u; u < STEP; u++) {
                        uint a = LDW_q(stat[u] * DW + d0 / 2u + i);
                        uint b = LDW_do_(stat[u] * DW + d0 / 2u + i);
                        kc[2u * i] = madd(dp[u], vkm_bf16_lo(a), kc[2u * i]);
                        kc[2u * i + 1u] = madd(dp[u], vkm_bf16_hi(a), kc[2u * i + 1u]);
                        vc[2u * i] = madd(s[u], vkm_bf16_lo(b), vc[2u * i]);
                        vc[2u * i + 1u] = madd(s[u], vkm_bf16_hi(b), vc[2u * i + 1u]);
                    }
                }
            }
            [[unroll]] for (uint d = 0u; d < DS; d++) {
                kh[d] = add(kh[d], kc[d]);
                vh[d] = add(vh[d], vc[d]);
            }
        }
        [[unroll]] for (uint d = 0u; d < DS; d++) {
            precise float scaled = kh[d] * pc.scale;
            kt[d] = add(kt[d], vkm_canon(scaled));
            vt[d] = add(vt[d], vh[d]);
        }
    }

    if (t >= len) return;
    [[unroll]] for (uint d = 0u; d < DS; d++) ST_dk(at * 2u + d0 + d, kt[d]);
    [[unroll]] for (uint i = 0u; i < DSW; i++)
        STW_dv(vkm_op_word(row0 + t, (kvh * D + d0) / 2u + i, kp),
               vkm_bf16_pair(vt[2u * i], vt[2u * i + 1u]));
    for (uint i = kvh * D + d0 + DS; i < k_end; i += 2u)
        STW_dv(vkm_op_word(row0 + t, i / 2u, kp), 0u);
}
