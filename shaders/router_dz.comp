#version 460
#extension GL_GOOGLE_include_directive : require
#include "router_dz.glsl"
#include "guarded.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    float w = LD_w(i);
    ST_dz(i, mulc(LD_dw(i), mulc(w, subc(1.0, w))));
}
