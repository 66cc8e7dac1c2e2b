#version 460
#extension GL_GOOGLE_include_directive : require
#include "headnorm_bwd.glsl"
#include "norm.glsl"

void main() {
    uint unit = vkm_unit_id(), lane = vkm_unit_lane(), n_cols = pc.n_heads * pc.head_dim;
    uint row = unit / pc.n_heads, head = unit % pc.n_heads, kp = (n_cols + 7u) / 8u * 8u;
    if (row >= (pc.n_rows + 15u) / 16u * 16u) return;
    uint k2 = head * pc.head_dim / 2u, n2 = pc.head_dim / 2u;
    if (head == pc.n_heads - 1u)
        for (uint pad = n_cols / 2u + lane; pad < kp / 2u; pad += VKM_LANES)
            STW_dx(vkm_op_word(row, pad, kp), 0u);
    if (row >= pc.n_rows) {
        for (uint d2 = lane; d2 < n2; d2 += VKM_LANES) STW_dx(vkm_op_word(row, k2 + d2, kp), 0u);
        return;
    }
    uint from = unit * pc.head_dim;
    VKM_RULE5(sum, d, pc.head_dim,
              vkm_product(vkm_product(LD_gain(d), LD_dy(from + d)), LD_x(from + d)))
    float rstd = LD_rstd(unit), pull = vkm_norm_pull(rstd, sum, pc.head_dim);
    for (uint d2 = lane; d2 < n2; d2 += VKM_LANES) {
        uint d = 2u * d2, i = from + d;
        float lo = vkm_norm_dx(LD_dy(i), LD_x(i), LD_gain(d), rstd, pull);
        float hi = vkm_norm_dx(LD_dy(i + 1u), LD_x(i + 1u), LD_gain(d + 1u), rstd, pull);
        STW_dx(vkm_op_word(row, k2 + d2, kp), vkm_bf16_pair(lo, hi));
    }
}
