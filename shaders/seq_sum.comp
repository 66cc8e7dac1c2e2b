#version 460
#extension GL_GOOGLE_include_directive : require
#include "seq_sum.glsl"
#include "rule5_private.glsl"

void main() {
    uint at = vkm_flat_id();
    if (at >= pc.n_seq * pc.n_cols) return;
    uint s = at / pc.n_cols, j = at % pc.n_cols;
    uint row0 = LD_seqs(4u * s), len = LD_seqs(4u * s + 1u);
    VKM_RULE5_ZERO(lane);
    for (uint i = 0u; i < len; i++) VKM_RULE5_ADD(lane, i, LD_x((row0 + i) * pc.n_cols + j));
    VKM_RULE5_TREE(lane);
    precise float y = LD_acc(at) + lane[0];
    ST_acc(at, y);
}
