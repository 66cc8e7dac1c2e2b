#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear_bf16.glsl"
#include "rule4.glsl"
#include "linear_row.glsl"

void main() {
    uint at = vkm_flat_id();
    uint words = pc.n / 2u;
    if (at >= pc.m * words) return;
    uint i = at / words, j = at % words * 2u;
    float lo = vkm_linear_at(i, j), hi = vkm_linear_at(i, j + 1u);
    STW_c(at, vkm_bf16_pair(lo, hi));
}
