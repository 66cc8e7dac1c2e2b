#version 460
#extension GL_GOOGLE_include_directive : require
#include "sumsq.glsl"
#include "guarded.glsl"
#include "reduce.glsl"

/* One workgroup a block. */
void main() {
    uint block = vkm_group_id();
    if (block >= (pc.n + 65535u) / 65536u) return;
    uint first = block * 65536u, n = min(pc.n - first, 65536u);
    precise float acc = 0.0;
    for (uint i = gl_LocalInvocationID.x; i < n; i += 64u) {
        float x = LD_x(first + i);
        acc = acc + mulc(x, x);
    }
    float sum = vkm_rule5_tree(acc);
    if (gl_LocalInvocationID.x == 0u) ST_y(block, sum);
}
