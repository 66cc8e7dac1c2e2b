#version 460
#extension GL_GOOGLE_include_directive : require
#include "router_fwd.glsl"
#include "softmath.h"
#include "guarded.glsl"
#include "reduce.glsl"

/* One workgroup a row. */
void main() {
    uint row = vkm_group_id(), lane = gl_LocalInvocationID.x;
    if (row >= pc.n_rows) return;
    precise float xx = 0.0, uu = 0.0, xu = 0.0;
    for (uint j = lane; j < pc.n_cols; j += 64u) {
        float x = subc(LD_a(row * pc.n_cols + j), LD_mu(j)), u = LD_u(j);
        xx = xx + mulc(x, x);
        uu = uu + mulc(u, u);
        xu = xu + mulc(x, u);
    }
    float x_norm = vkm_sqrt(vkm_rule5_tree(xx)), u_norm = vkm_sqrt(vkm_rule5_tree(uu));
    float dot_xu = vkm_rule5_tree(xu);
    if (lane != 0u) return;
    float inv_x = x_norm == 0.0 ? 0.0 : vkm_div(1.0, x_norm);
    float inv_u = u_norm == 0.0 ? 0.0 : vkm_div(1.0, u_norm);
    if (pc.linear != 0u) inv_x = inv_u = 1.0;
    float s = mulc(mulc(dot_xu, inv_x), inv_u);
    float z = mulc(LD_cal(1u), subc(s, LD_cal(0u)));
    ST_s(row, s);
    ST_z(row, z);
    ST_w(row, vkm_sigmoid(z));
    ST_inv(2u * row, inv_x);
    ST_inv(2u * row + 1u, inv_u);
}
