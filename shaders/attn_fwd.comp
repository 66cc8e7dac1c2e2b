#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_fwd.glsl"
#include "attention.glsl"

/* Group (query block, head and slice of the outputs, sequence); a lane is one query. */
float q[D], acc[DS], total[DS];
float s[STEP];
uint base[STEP]; /* word of the row's first element, in k and in v */

void scores(uint row0, uint j, uint last, uint kvh) {
    [[unroll]] for (uint u = 0u; u < STEP; u++) {
        base[u] = ((row0 + min(j + u, last)) * pc.n_kv + kvh) * DW;
        s[u] = 0.0;
    }
    [[unroll]] for (uint i = 0u; i < DW; i++) {
        [[unroll]] for (uint u = 0u; u < STEP; u++) {
            uint w = LDW_k(base[u] + i);
            s[u] = madd2(q[2u * i], q[2u * i + 1u], w, s[u]);
        }
    }
    [[unroll]] for (uint u = 0u; u < STEP; u++) {
        precise float scaled = s[u] * pc.scale;
        s[u] = scaled;
    }
}

void main() {
    const uint slices = D / DS;
    uint h = gl_WorkGroupID.y / slices, d0 = (gl_WorkGroupID.y % slices) * DS;
    uint row0 = SEQ_ROW0(gl_WorkGroupID.z), len = SEQ_LEN(gl_WorkGroupID.z);
    uint first = gl_WorkGroupID.x * gl_WorkGroupSize.x;
    uint t = first + gl_LocalInvocationID.x;
    uint kp = (pc.n_heads * D + 7u) & ~7u;
    uint k_end = h + 1u == pc.n_heads && d0 + DS == D ? kp : h * D + d0 + DS;
    if (t >= len) { /* the pad of the last panel */
        if (t < padded(len))
            for (uint k = h * D + d0; k < k_end; k += 2u) STW_o(vkm_op_word(row0 + t, k / 2u, kp), 0u);
    }
    if (first >= len) return;

    uint kvh = h / (pc.n_heads / pc.n_kv);
    uint end = min(first + gl_WorkGroupSize.x, len), last = end - 1u;
    uint my = min(t, last);
    [[unroll]] for (uint i = 0u; i < DW; i++) {
        uint w = LDW_q(((row0 + my) * pc.n_heads + h) * DW + i);
        q[2u * i] = vkm_bf16_lo(w);
        q[2u * i + 1u] = vkm_bf16_hi(w);
    }

    float m = neg_infinity();
    for (uint j = 0u; j < end; j += STEP) {
        scores(row0, j, last, kvh);
        [[unroll]] for (uint u = 0u; u < STEP; u++) m = j + u <= my && s[u] > m ? s[u] : m;
    }
    m = vkm_canon(m);

    precise float l = 0.0;
    [[unroll]] for (uint d = 0u; d < DS; d++) total[d] = 0.0;
    for (uint c = 0u; c < end; c += CHUNK) {
        precise float lc = 0.0;
        [[unroll]] for (uint d = 0u; d < DS; d++) acc[d] = 0.0;
        uint c_end = min(c + CHUNK, end);
        for (uint j = c; j < c_end; j += STEP) {
            scores(row0, j, last, kvh);
            [[unroll]] for (uint u = 0u; u < STEP; u++) {
                precise float below = s[u] - m;
                s[u] = j + u <= my ? prob(below) : 0.0;
                lc = lc + s[u];
            }
            [[unroll]] for (uint i = 0u; i < DSW; i++) {
                [[unroll]] for (uint u = 0u; u < STEP; u++) {
                    uint w = LDW_v(base[u] + d0 / 2u + i);
                    acc[2u * i] = madd(s[u], vkm_bf16_lo(w), acc[2u * i]);
                    acc[2u * i + 1u] = madd(s[u], vkm_bf16_hi(w), acc[2u * i + 1u]);
                }
            }
        }
        l = l + lc;
        [[unroll]] for (uint d = 0u; d < DS; d++) {
            total[d] = add(total[d], acc[d]);
        }
    }

    if (t >= len) return;
    [[unroll]] for (uint i = 0u; i < DSW; i++)
        STW_o(vkm_op_word(row0 + t, (h * D + d0) / 2u + i, kp),
              vkm_bf16_pair(vkm_div(total[2u * i], l), vkm_div(total[2u * i + 1u], l)));
    for (uint k = h * D + d0 + DS; k < k_end; k += 2u)
        STW_o(vkm_op_word(row0 + t, k / 2u, kp), 0u);
    if (d0 == 0u) {
        ST_m((row0 + t) * pc.n_heads + h, m);
        ST_l((row0 + t) * pc.n_heads + h, l);
    }
}
