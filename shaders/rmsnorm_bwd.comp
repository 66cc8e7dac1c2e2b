#version 460
#extension GL_GOOGLE_include_directive : require
#include "rmsnorm_bwd.glsl"
#include "norm.glsl"

void main() {
    uint row = vkm_unit_id(), lane = vkm_unit_lane(), from = row * pc.n_cols;
    if (row >= pc.n_rows) return;
    VKM_RULE5(sum, c, pc.n_cols,
              vkm_product(vkm_product(LD_gain(c), LD_dy(from + c)), LD_x(from + c)))
    float rstd = LD_rstd(row), pull = vkm_norm_pull(rstd, sum, pc.n_cols);
    for (uint c = lane; c < pc.n_cols; c += VKM_LANES) {
        precise float d = vkm_norm_dx(LD_dy(from + c), LD_x(from + c), LD_gain(c), rstd, pull);
        if (pc.accumulate != 0u) d = LD_dx(from + c) + d;
        ST_dx(from + c, d);
    }
}
