#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm.glsl"
#include "rule4.glsl"

void main() {
    uint at = vkm_flat_id();
    if (at >= pc.m * pc.n) return;
    uint i = at / pc.n, j = at % pc.n;
    float y = vkm_rule4(pc.a, vkm_op_word(i, 0u, pc.kpa), pc.b, vkm_op_word(j, 0u, pc.kpb), pc.k);
    ST_c(i * pc.ldc + j, y);
}
