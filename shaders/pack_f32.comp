#version 460
#extension GL_GOOGLE_include_directive : require
#include "pack_f32.glsl"

void main() {
    uint i = vkm_flat_id(), k2n = (pc.n_cols + 7u) / 8u * 4u;
    if (i >= (pc.n_rows + 15u) / 16u * 16u * k2n) return;
    uint k = (i >> 4) % k2n * 2u, row = (i >> 4) / k2n * 16u + (i & 15u);
    uint from = min(row, pc.n_rows - 1u) * pc.ldx, last = pc.n_cols - 1u;
    uint lo = vkm_bf16z(LD_x(from + min(k, last))), hi = vkm_bf16z(LD_x(from + min(k + 1u, last)));
    bool inside = row < pc.n_rows;
    STW_y(i, (inside && k <= last ? lo : 0u) | (inside && k < last ? hi << 16 : 0u));
}
