#version 460
#extension GL_GOOGLE_include_directive : require
#include "accumulate.glsl"
#include "guarded.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    ST_total(i, addc(LD_total(i), LD_group(i)));
    ST_group(i, 0.0);
}
