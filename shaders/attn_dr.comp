#version 460
#extension GL_GOOGLE_include_directive : require
#include "attn_dr.glsl"
#include "rule5_private.glsl"

/* One invocation a row and head. */
void main() {
    uint id = vkm_flat_id();
    if (id >= pc.n_rows * pc.n_heads) return;
    uint row = id % pc.n_rows, h = id / pc.n_rows, words = pc.head_dim / 2u;
    uint kp = (pc.n_heads * pc.head_dim + 7u) & ~7u;
    VKM_RULE5_ZERO(lane);
    for (uint i = 0u; i < words; i++) {
        uint x = LDW_do_((row * pc.n_heads + h) * words + i);
        uint y = LDW_o(vkm_op_word(row, h * words + i, kp));
        VKM_RULE5_ADD(lane, 2u * i, vkm_bf16_lo(x) * vkm_bf16_lo(y));
        VKM_RULE5_ADD(lane, 2u * i + 1u, vkm_bf16_hi(x) * vkm_bf16_hi(y));
    }
    VKM_RULE5_TREE(lane);
    ST_dr(row * pc.n_heads + h, lane[0]);
}
