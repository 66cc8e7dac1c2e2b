#version 460
#extension GL_GOOGLE_include_directive : require
#include "clip_coef.glsl"
#include "softmath.h"
#include "guarded.glsl"

void main() {
    if (vkm_flat_id() != 0u) return;
    precise float total = 0.0;
    for (uint i = 0u; i < pc.n; i++) total = total + LD_sums(i);
    float norm = mulc(vkm_sqrt(total), pc.inv_scale);
    bool finite = (floatBitsToUint(norm) & 0x7f800000u) != 0x7f800000u;
    float factor = 1.0;
    if (finite && pc.max_norm > 0.0 && norm > pc.max_norm) factor = vkm_div(pc.max_norm, norm);
    ST_clip(0u, norm);
    ST_clip(1u, factor);
    ST_clip(2u, finite ? 1.0 : 0.0);
}
