#version 460
#extension GL_GOOGLE_include_directive : require
#include "adam_tensor_v.glsl"
#include "softmath.h"
#include "guarded.glsl"

void main() {
    if (vkm_flat_id() != 0u) return;
    precise float a2 = 1.0 - pc.b2;
    float k = mulc(pc.inv_scale, LD_clip(1u));
    float mean = vkm_div(mulc(mulc(LD_sum(0u), k), k), float(int(pc.n)));
    ST_v(0u, addc(mulc(pc.b2, LD_v(0u)), mulc(a2, mean)));
}
