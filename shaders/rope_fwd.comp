#version 460
#extension GL_GOOGLE_include_directive : require
#include "rope_fwd.glsl"

/* One invocation turns elements d, d + 1 of the first half with their partners. */
void main() {
    uint i = vkm_flat_id(), half_d = pc.head_dim / 2u, quarter = half_d / 2u;
    if (i >= pc.n_rows * pc.n_heads * quarter) return;
    uint d = i % quarter * 2u, unit = i / quarter, row = unit / pc.n_heads;
    uint at = unit * pc.head_dim + d, t = LD_pos(row) * half_d + d;
    float lo[2], hi[2];
    for (uint j = 0u; j < 2u; j++) {
        float a = LD_x(at + j), b = LD_x(at + half_d + j), c = LD_cos(t + j), s = LD_sin(t + j);
        precise float ac = a * c, bs = b * s, bc = b * c, as = a * s;
        precise float u = ac - bs, v = bc + as;
        lo[j] = u;
        hi[j] = v;
    }
    STW_y(at / 2u, vkm_bf16_pair(lo[0], lo[1]));
    STW_y((at + half_d) / 2u, vkm_bf16_pair(hi[0], hi[1]));
}
