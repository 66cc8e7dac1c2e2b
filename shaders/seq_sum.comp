#version 460
#extension GL_GOOGLE_include_directive : require
#include "seq_sum.glsl"
#include "reduce.glsl"

/* A unit is a column of a sequence. */
void main() {
    uint unit = vkm_unit_id();
    if (unit >= pc.n_seq * pc.n_cols) return;
    uint s = unit / pc.n_cols, j = unit % pc.n_cols;
    uint row0 = LD_seqs(4u * s), n = LD_seqs(4u * s + 1u);
    VKM_RULE5(sum, i, n, LD_x((row0 + i) * pc.n_cols + j))
    precise float y = LD_acc(unit) + sum;
    if (vkm_unit_lane() == 0u) ST_acc(unit, y);
}
