#version 460
#extension GL_GOOGLE_include_directive : require
#include "pack_f32.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint PAIRS = 0; /* 1: two elements lie where one load finds both */

void main() {
    uint i = vkm_flat_id(), k2n = (pc.n_cols + 7u) / 8u * 4u;
    if (i >= (pc.n_rows + 15u) / 16u * 16u * k2n) return;
    uint k = (i >> 4) % k2n * 2u, row = (i >> 4) / k2n * 16u + (i & 15u);
    uint from = min(row, pc.n_rows - 1u) * pc.ldx, last = pc.n_cols - 1u;
    vec2 x = PAIRS != 0u ? uintBitsToFloat(vkm_words2(pc.x, (from + min(k, last - 1u)) / 2u))
                         : vec2(LD_x(from + min(k, last)), LD_x(from + min(k + 1u, last)));
    bool inside = row < pc.n_rows;
    STW_y(i, (inside && k <= last ? vkm_bf16z(x.x) : 0u) |
                 (inside && k < last ? vkm_bf16z(x.y) << 16 : 0u));
}
