#version 460
#extension GL_GOOGLE_include_directive : require
#include "adamw.glsl"
#include "softmath.h"
#include "guarded.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    precise float a1 = 1.0 - pc.b1, a2 = 1.0 - pc.b2;
    float g = mulc(mulc(LD_g(i), pc.inv_scale), LD_clip(1u));
    float m = addc(mulc(pc.b1, LD_m(i)), mulc(a1, g));
    float v = LD_v(i * pc.v_stride);
    if (pc.v_stride != 0u) {
        v = addc(mulc(pc.b2, v), mulc(a2, mulc(g, g)));
        ST_v(i, v);
    }
    ST_m(i, m);
    float step = addc(vkm_sqrt(mulc(v, pc.bias2)), pc.eps);
    step = vkm_div(mulc(m, pc.bias1), step);
    float p = LD_p(i);
    ST_p(i, subc(subc(p, mulc(mulc(pc.lr, pc.wd), p)), mulc(pc.lr, step)));
}
