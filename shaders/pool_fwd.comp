#version 460
#extension GL_GOOGLE_include_directive : require
#include "pool_fwd.glsl"
#include "softmath.h"
#include "rule5_private.glsl"

void main() {
    uint at = vkm_flat_id();
    if (at >= pc.n_seq * pc.rank) return;
    uint s = at / pc.rank, j = at % pc.rank;
    uint row0 = LD_seqs(4u * s) + LD_seqs(4u * s + 2u), n = LD_seqs(4u * s + 3u);
    VKM_RULE5_ZERO(lane);
    for (uint i = 0u; i < n; i++) VKM_RULE5_ADD(lane, i, LD_h((row0 + i) * pc.ldh + j));
    VKM_RULE5_TREE(lane);
    float mean = n == 0u ? 0.0 : vkm_div(lane[0], float(int(n)));
    ST_pooled((s * pc.n_modules + pc.module) * pc.rank + j, mean);
}
