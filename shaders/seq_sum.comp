#version 460
#extension GL_GOOGLE_include_directive : require
#include "seq_sum.glsl"

/* One invocation holds the 64 lanes of rule 5 for its column, so that neighbours read neighbours. */
void main() {
    uint at = vkm_flat_id();
    if (at >= pc.n_seq * pc.n_cols) return;
    uint s = at / pc.n_cols, row0 = LD_seqs(4u * s), len = LD_seqs(4u * s + 1u);
    precise float lane[64];
    for (uint l = 0u; l < 64u; l++) lane[l] = 0.0;
    for (uint i = 0u; i < len; i++)
        lane[i % 64u] = lane[i % 64u] + LD_x((row0 + i) * pc.n_cols + at % pc.n_cols);
    for (uint w = 32u; w != 0u; w /= 2u)
        for (uint l = 0u; l < w; l++) lane[l] = lane[l] + lane[l + w];
    precise float y = LD_acc(at) + lane[0];
    ST_acc(at, y);
}
