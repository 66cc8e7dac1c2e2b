#version 460
#extension GL_GOOGLE_include_directive : require
#include "zero.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i < pc.n) ST_y(i, 0.0);
}
