#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_decode.glsl"
#include "attention.glsl"

/* Group (head, row). Lanes first lie along keys (scores, then weights, in scratch), then along the
 * output's words. */
const uint LOCAL = gl_WorkGroupSize.x;
shared float lane_max[LOCAL];

/* Which rows hold the keys: the prompt's, then the rollout's own. */
uint prompt_row0, prompt_len, own_row0;

void main() {
    uint h = gl_WorkGroupID.x, row = gl_WorkGroupID.y, lane = gl_LocalInvocationID.x;
    prompt_row0 = LD_state(8u * row);
    prompt_len = LD_state(8u * row + 1u);
    own_row0 = LD_state(8u * row + 2u);
    uint n_keys = min(prompt_len + LD_state(8u * row + 3u), pc.max_keys);
    if (LD_state(8u * row + 5u) != 0u || n_keys == 0u) return;

    uint kvh = h / (pc.n_heads / pc.n_kv);
    uint q_at = (row * pc.n_heads + h) * DW;
    uint scratch_at = (row * pc.n_heads + h) * pc.max_keys;

    float m = neg_infinity();
    for (uint j0 = 0u; j0 < n_keys; j0 += LOCAL) {
        uint j = min(j0 + lane, n_keys - 1u);
        bool own = j >= prompt_len;
        uint at = ((own ? own_row0 + j - prompt_len : prompt_row0 + j) * pc.n_kv + kvh) * DW;
        precise float s = 0.0;
        if (own) {
            for (uint i = 0u; i < DW; i++) {
                uint a = LDW_q(q_at + i), b = LDW_own_k(at + i);
                s = fma(vkm_bf16_lo(a), vkm_bf16_lo(b), s);
                s = fma(vkm_bf16_hi(a), vkm_bf16_hi(b), s);
            }
        } else {
            for (uint i = 0u; i < DW; i++) {
                uint a = LDW_q(q_at + i), b = LDW_prompt_k(at + i);
                s = fma(vkm_bf16_lo(a), vkm_bf16_lo(b), s);
                s = fma(vkm_bf16_hi(a), vkm_bf16_hi(b), s);
            }
        }
        s = s * pc.scale;
        if (j0 + lane < n_keys) ST_scratch(scratch_at + j, s);
        m = s > m ? s : m;
    }
    lane_max[lane] = m;
    barrier();
    for (uint i = 0u; i < LOCAL; i++) m = lane_max[i] > m ? lane_max[i] : m;
    m = vkm_canon(m);
    for (uint j = lane; j < n_keys; j += LOCAL) { /* each lane its own scores */
        precise float below = LD_scratch(scratch_at + j) - m;
        ST_scratch(scratch_at + j, prob(below));
    }
    memoryBarrierBuffer();
    barrier();

    uint kp = (pc.n_heads * D + 7u) & ~7u;
    for (uint i = lane; i < DW; i += LOCAL) {
        precise float lo = 0.0, hi = 0.0, l = 0.0;
        for (uint c = 0u; c < n_keys; c += CHUNK) {
            precise float clo = 0.0, chi = 0.0, cl = 0.0;
            uint c_end = min(c + CHUNK, n_keys);
            uint seam = clamp(prompt_len, c, c_end);
            for (uint j = c; j < seam; j++) {
                float p = LD_scratch(scratch_at + j);
                uint w = LDW_prompt_v(((prompt_row0 + j) * pc.n_kv + kvh) * DW + i);
                cl = cl + p;
                clo = fma(p, vkm_bf16_lo(w), clo);
                chi = fma(p, vkm_bf16_hi(w), chi);
            }
            for (uint j = seam; j < c_end; j++) {
                float p = LD_scratch(scratch_at + j);
                uint w = LDW_own_v(((own_row0 + j - prompt_len) * pc.n_kv + kvh) * DW + i);
                cl = cl + p;
                clo = fma(p, vkm_bf16_lo(w), clo);
                chi = fma(p, vkm_bf16_hi(w), chi);
            }
            l = l + cl;
            lo = lo + clo;
            hi = hi + chi;
        }
        STW_o(vkm_op_word(row, h * DW + i, kp), vkm_bf16_pair(vkm_div(lo, l), vkm_div(hi, l)));
    }
    if (h + 1u == pc.n_heads)
        for (uint k = (h + 1u) * D / 2u + lane; k < kp / 2u; k += LOCAL)
            STW_o(vkm_op_word(row, k, kp), 0u);
}
