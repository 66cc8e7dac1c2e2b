#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "rule4.glsl"
#include "linear_row.glsl"

void main() {
    uint at = vkm_flat_id();
    if (at >= pc.m * pc.n) return;
    precise float y = vkm_linear_at(at / pc.n, at % pc.n);
    if (pc.has_res != 0u) y = LD_res(at) + y;
    ST_c(at, y);
}
