#version 460
#extension GL_GOOGLE_include_directive : require
#include "headnorm_bwd.glsl"
#include "norm.glsl"

void main() {
    uint unit = vkm_group_id(), lane = gl_LocalInvocationID.x, n_cols = pc.n_heads * pc.head_dim;
    uint row = unit / pc.n_heads, head = unit % pc.n_heads, kp = (n_cols + 7u) / 8u * 8u;
    if (row >= (pc.n_rows + 15u) / 16u * 16u) return;
    uint k2 = head * pc.head_dim / 2u, n2 = pc.head_dim / 2u;
    if (head == pc.n_heads - 1u && lane < (kp - n_cols) / 2u)
        STW_dx(vkm_op_word(row, n_cols / 2u + lane, kp), 0u);
    if (row >= pc.n_rows) {
        for (uint d2 = lane; d2 < n2; d2 += 64u) STW_dx(vkm_op_word(row, k2 + d2, kp), 0u);
        return;
    }
    uint from = unit * pc.head_dim;
    precise float acc = 0.0;
    for (uint d = lane; d < pc.head_dim; d += 64u)
        acc = acc + vkm_product(vkm_product(LD_gain(d), LD_dy(from + d)), LD_x(from + d));
    float rstd = LD_rstd(unit), pull = vkm_norm_pull(rstd, vkm_rule5_tree(acc), pc.head_dim);
    for (uint d2 = lane; d2 < n2; d2 += 64u) {
        uint d = 2u * d2, i = from + d;
        float lo = vkm_norm_dx(LD_dy(i), LD_x(i), LD_gain(d), rstd, pull);
        float hi = vkm_norm_dx(LD_dy(i + 1u), LD_x(i + 1u), LD_gain(d + 1u), rstd, pull);
        STW_dx(vkm_op_word(row, k2 + d2, kp), vkm_bf16_pair(lo, hi));
    }
}
