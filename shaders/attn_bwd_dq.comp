#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_bwd_dq.glsl"
#include "attention.glsl"

/* Group (query block, head and slice of the outputs, sequence); a lane is one query. */
float q[D], go[D], acc[DS], total[DS];
float ds[STEP];

void main() {
    const uint slices = D / DS;
    uint h = gl_WorkGroupID.y / slices, d0 = (gl_WorkGroupID.y % slices) * DS;
    uint row0 = SEQ_ROW0(gl_WorkGroupID.z), len = SEQ_LEN(gl_WorkGroupID.z);
    uint first = gl_WorkGroupID.x * gl_WorkGroupSize.x;
    uint t = first + gl_LocalInvocationID.x;
    if (first >= len) return;

    uint kvh = h / (pc.n_heads / pc.n_kv);
    uint end = min(first + gl_WorkGroupSize.x, len), last = end - 1u;
    uint my = min(t, last);
    uint stat = (row0 + my) * pc.n_heads + h;
    [[unroll]] for (uint i = 0u; i < DW; i++) {
        uint w = LDW_q(stat * DW + i), g = LDW_do_(stat * DW + i);
        q[2u * i] = vkm_bf16_lo(w);
        q[2u * i + 1u] = vkm_bf16_hi(w);
        go[2u * i] = vkm_bf16_lo(g);
        go[2u * i + 1u] = vkm_bf16_hi(g);
    }
    float m = LD_m(stat), l = LD_l(stat), dr = LD_dr(stat);

    [[unroll]] for (uint d = 0u; d < DS; d++) total[d] = 0.0;
    for (uint c = 0u; c < end; c += CHUNK) {
        [[unroll]] for (uint d = 0u; d < DS; d++) acc[d] = 0.0;
        uint c_end = min(c + CHUNK, end);
        for (uint j = c; j < c_end; j += STEP) {
            uint base[STEP];
            float s[STEP], dp[STEP];
            [[unroll]] for (uint u = 0u; u < STEP; u++) {
                base[u] = ((row0 + min(j + u, last)) * pc.n_kv + kvh) * DW;
                s[u] = 0.0;
                dp[u] = 0.0;
            }
            [[unroll]] for (uint i = 0u; i < DW; i++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    s[u] = madd2(q[2u * i], q[2u * i + 1u], LDW_k(base[u] + i), s[u]);
                    dp[u] = madd2(go[2u * i], go[2u * i + 1u], LDW_v(base[u] + i), dp[u]);
                }
            }
            [[unroll]] for (uint u = 0u; u < STEP; u++) {
                float p = weight(s[u], pc.scale, m, l);
                ds[u] = j + u <= my ? score_grad(p, dp[u], dr) : 0.0;
            }
            [[unroll]] for (uint i = 0u; i < DSW; i++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    uint w = LDW_k(base[u] + d0 / 2u + i);
                    acc[2u * i] = madd(ds[u], vkm_bf16_lo(w), acc[2u * i]);
                    acc[2u * i + 1u] = madd(ds[u], vkm_bf16_hi(w), acc[2u * i + 1u]);
                }
            }
        }
        [[unroll]] for (uint d = 0u; d < DS; d++) {
            total[d] = add(total[d], acc[d]);
        }
    }

    if (t >= len) return;
    [[unroll]] for (uint d = 0u; d < DS; d++) {
        precise float scaled = total[d] * pc.scale;
        ST_dq(stat * D + d0 + d, scaled);
    }
}
