#version 460
#extension GL_GOOGLE_include_directive : require
#include "headnorm_fwd.glsl"
#include "norm.glsl"

void main() {
    uint unit = vkm_group_id(), lane = gl_LocalInvocationID.x, from = unit * pc.head_dim;
    if (unit >= pc.n_rows * pc.n_heads) return;
    precise float acc = 0.0;
    for (uint d = lane; d < pc.head_dim; d += 64u)
        acc = acc + vkm_product(LD_x(from + d), LD_x(from + d));
    precise float rstd = vkm_div(vkm_rule5_tree(acc), float(int(pc.head_dim)));
    rstd = rstd + pc.eps;
    rstd = vkm_rsqrt(rstd);
    if (lane == 0u) ST_rstd(unit, rstd);
    for (uint d = lane; d < pc.head_dim; d += 64u)
        ST_y(from + d, vkm_product(vkm_product(LD_x(from + d), rstd), LD_gain(d)));
}
