#version 460
#extension GL_GOOGLE_include_directive : require
#include "rope_bwd.glsl"

void main() {
    uint i = vkm_flat_id(), half_d = pc.head_dim / 2u;
    if (i >= pc.n_rows * pc.n_heads * half_d) return;
    uint d = i % half_d, unit = i / half_d, row = unit / pc.n_heads;
    uint at = unit * pc.head_dim + d, t = LD_pos(row) * half_d + d;
    float a = LD_dy(at), b = LD_dy(at + half_d), c = LD_cos(t), s = LD_sin(t);
    precise float ac = a * c, bs = b * s, bc = b * c, as = a * s;
    precise float u = vkm_canon(ac) + vkm_canon(bs), v = vkm_canon(bc) - vkm_canon(as);
    ST_dx(at, u);
    ST_dx(at + half_d, v);
}
