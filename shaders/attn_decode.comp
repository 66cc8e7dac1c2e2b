#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_decode.glsl"
#include "attention.glsl"

layout(constant_id = 1) const uint D = 2u; /* head dimension, even */
layout(constant_id = 2) const uint W = 1u; /* words of the output a lane has, LOCAL apart */
layout(constant_id = 3) const uint R = 1u; /* heads of a workgroup, all of one kv head */
const uint DW = D / 2u;
const uint LOCAL = gl_WorkGroupSize.x;

/* Group (heads, row). Lanes first lie along keys (scores, then weights, in scratch), then along the
 * output's words. */
shared float lane_max[R * LOCAL];
float q[R * D], s[R], m[R], l[R], lc[R];
float acc[2u * W * R], total[2u * W * R];

void main() {
    uint h0 = gl_WorkGroupID.x * R, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
    uint prompt_row0 = LD_state(8u * row), prompt_len = LD_state(8u * row + 1u);
    uint own_row0 = LD_state(8u * row + 2u);
    uint n_keys = min(prompt_len + LD_state(8u * row + 3u), pc.max_keys);
    if (LD_state(8u * row + 5u) != 0u || n_keys == 0u) return;

    uint kvh = h0 / (pc.n_heads / pc.n_kv);
    uint head = row * pc.n_heads + h0;
    [[unroll]] for (uint i = 0u; i < R * DW; i++) {
        uint w = LDW_q(head * DW + i);
        q[2u * i] = vkm_bf16_lo(w);
        q[2u * i + 1u] = vkm_bf16_hi(w);
    }
    [[unroll]] for (uint r = 0u; r < R; r++) m[r] = neg_infinity();
    for (uint j0 = 0u; j0 < n_keys; j0 += LOCAL) {
        uint j = min(j0 + lane, n_keys - 1u);
        bool own = j >= prompt_len;
        uint at = ((own ? own_row0 + j - prompt_len : prompt_row0 + j) * pc.n_kv + kvh) * DW;
        uvec2 keys = own ? pc.own_k : pc.prompt_k;
        [[unroll]] for (uint r = 0u; r < R; r++) s[r] = 0.0;
        [[unroll]] for (uint i = 0u; i < DW; i++) {
            uint w = U32_R(keys).v[at + i];
            [[unroll]] for (uint r = 0u; r < R; r++)
                s[r] = madd2(q[r * D + 2u * i], q[r * D + 2u * i + 1u], w, s[r]);
        }
        [[unroll]] for (uint r = 0u; r < R; r++) {
            float x = mul(s[r], pc.scale);
            m[r] = x > m[r] ? x : m[r];
            if (j0 + lane < n_keys) ST_scratch((head + r) * pc.max_keys + j, x);
        }
    }
    [[unroll]] for (uint r = 0u; r < R; r++) lane_max[r * LOCAL + lane] = m[r];
    barrier();
    [[unroll]] for (uint r = 0u; r < R; r++) {
        for (uint i = 0u; i < LOCAL; i++) {
            float x = lane_max[r * LOCAL + i];
            m[r] = x > m[r] ? x : m[r];
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
        for (uint j = c; j < c_end; j++) {
            bool own = j >= prompt_len;
            uint at = ((own ? own_row0 + j - prompt_len : prompt_row0 + j) * pc.n_kv + kvh) * DW;
            uvec2 values = own ? pc.own_v : pc.prompt_v;
            [[unroll]] for (uint r = 0u; r < R; r++) {
                s[r] = LD_scratch((head + r) * pc.max_keys + j);
                lc[r] = add(lc[r], s[r]);
            }
            [[unroll]] for (uint i = 0u; i < W; i++) {
                uint w = U32_R(values).v[at + min(i * LOCAL + lane, DW - 1u)];
                float lo = vkm_bf16_lo(w), hi = vkm_bf16_hi(w);
                [[unroll]] for (uint r = 0u; r < R; r++) {
                    uint a = 2u * (r * W + i);
                    acc[a] = madd(s[r], lo, acc[a]);
                    acc[a + 1u] = madd(s[r], hi, acc[a + 1u]);
                }
            }
        }
        [[unroll]] for (uint r = 0u; r < R; r++) l[r] = add(l[r], lc[r]);
        [[unroll]] for (uint a = 0u; a < 2u * W * R; a++) total[a] = add(total[a], acc[a]);
    }

    uint kp = (pc.n_heads * D + 7u) & ~7u;
    [[unroll]] for (uint r = 0u; r < R; r++) {
        [[unroll]] for (uint i = 0u; i < W; i++) {
            uint word = i * LOCAL + lane, a = 2u * (r * W + i);
            if (word < DW)
                STW_o(vkm_op_word(row, (h0 + r) * DW + word, kp),
                      vkm_bf16_pair(vkm_div(total[a], l[r]), vkm_div(total[a + 1u], l[r])));
        }
    }
    if (h0 + R == pc.n_heads)
        for (uint k = pc.n_heads * DW + lane; k < kp / 2u; k += LOCAL)
            STW_o(vkm_op_word(row, k, kp), 0u);
}
