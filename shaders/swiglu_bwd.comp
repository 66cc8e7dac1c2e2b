#version 460
#extension GL_GOOGLE_include_directive : require
#include "swiglu_bwd.glsl"
#include "softmath.h"

/* bf16 halves: d gate, d up */
uvec2 value(uint i) {
    float g = LD_gate(i), u = LD_up(i), dy = LD_dy(i);
    precise float s = vkm_sigmoid(g);
    precise float up = dy * vkm_silu_of(g, s);
    precise float t = 1.0 - s;
    t = t * g;
    t = t + 1.0;
    t = t * s; /* silu'(g) */
    precise float gate = dy * u;
    gate = gate * t;
    return uvec2(vkm_bf16z(gate), vkm_bf16z(up));
}

void main() {
    uint i = vkm_flat_id(), k2n = (pc.n_cols + 7u) / 8u * 4u;
    if (i >= (pc.n_rows + 15u) / 16u * 16u * k2n) return;
    uint k = (i >> 4) % k2n * 2u, row = (i >> 4) / k2n * 16u + (i & 15u);
    uint from = min(row, pc.n_rows - 1u) * pc.n_cols, last = pc.n_cols - 1u;
    uvec2 lo = value(from + min(k, last)), hi = value(from + min(k + 1u, last));
    lo = row < pc.n_rows && k <= last ? lo : uvec2(0u);
    hi = row < pc.n_rows && k < last ? hi : uvec2(0u);
    STW_dgate(i, lo.x | (hi.x << 16));
    STW_dup(i, lo.y | (hi.y << 16));
}
