#version 460
#extension GL_GOOGLE_include_directive : require
#include "sum5.glsl"
#include "reduce.glsl"

void main() {
    precise float acc = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < pc.n; i += 64u) acc = acc + LD_x(i);
    float sum = vkm_rule5_tree(acc);
    if (gl_LocalInvocationID.x == 0u) ST_y(0u, sum);
}
