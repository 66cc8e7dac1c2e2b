#version 460
#extension GL_GOOGLE_include_directive : require
#include "headnorm_fwd.glsl"
#include "norm.glsl"

void main() {
    uint unit = vkm_unit_id(), lane = vkm_unit_lane(), from = unit * pc.head_dim;
    if (unit >= pc.n_rows * pc.n_heads) return;
    VKM_RULE5(sum, d, pc.head_dim, vkm_square(LD_x(from + d)))
    float rstd = vkm_norm_rstd(sum, pc.head_dim, pc.eps);
    if (lane == 0u) ST_rstd(unit, rstd);
    for (uint d = lane; d < pc.head_dim; d += VKM_LANES)
        ST_y(from + d, vkm_product(vkm_product(LD_x(from + d), rstd), LD_gain(d)));
}
