#version 460
#extension GL_GOOGLE_include_directive : require
#include "f32_to_bf16.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n_words) return;
    STW_y(i, vkm_bf16_pair(LD_x(2u * i), LD_x(2u * i + 1u)));
}
