#version 460
#extension GL_GOOGLE_include_directive : require
#include "rmsnorm_bwd.glsl"
#include "norm.glsl"

void main() {
    uint row = vkm_group_id(), lane = gl_LocalInvocationID.x, from = row * pc.n_cols;
    if (row >= pc.n_rows) return;
    precise float acc = 0.0;
    for (uint c = lane; c < pc.n_cols; c += 64u)
        acc = acc + vkm_product(vkm_product(LD_gain(c), LD_dy(from + c)), LD_x(from + c));
    float rstd = LD_rstd(row), pull = vkm_norm_pull(rstd, vkm_rule5_tree(acc), pc.n_cols);
    for (uint c = lane; c < pc.n_cols; c += 64u) {
        precise float d = vkm_norm_dx(LD_dy(from + c), LD_x(from + c), LD_gain(c), rstd, pull);
        if (pc.accumulate != 0u) d = LD_dx(from + c) + d;
        ST_dx(from + c, d);
    }
}
