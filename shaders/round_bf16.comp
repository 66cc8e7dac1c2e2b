#version 460
#extension GL_GOOGLE_include_directive : require
#include "round_bf16.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i < pc.n) ST_y(i, uintBitsToFloat(vkm_bf16z(LD_x(i)) << 16));
}
