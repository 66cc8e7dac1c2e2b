#version 460
#extension GL_GOOGLE_include_directive : require
#include "pool_fwd.glsl"
#include "reduce.glsl"
#include "softmath.h"

/* A unit is a column of a sequence. */
void main() {
    uint unit = vkm_unit_id();
    if (unit >= pc.n_seq * pc.rank) return;
    uint s = unit / pc.rank, j = unit % pc.rank;
    uint row0 = LD_seqs(4u * s) + LD_seqs(4u * s + 2u), n = LD_seqs(4u * s + 3u);
    VKM_RULE5(sum, i, n, LD_h((row0 + i) * pc.ldh + j))
    float mean = n == 0u ? 0.0 : vkm_div(sum, float(int(n)));
    if (vkm_unit_lane() == 0u) ST_pooled((s * pc.n_modules + pc.module) * pc.rank + j, mean);
}
