#version 460
#extension GL_GOOGLE_include_directive : require
#include "rmsnorm_fwd.glsl"
#include "norm.glsl"

void main() {
    uint row = vkm_unit_id(), lane = vkm_unit_lane(), kp = (pc.n_cols + 7u) / 8u * 8u;
    if (row >= (pc.n_rows + 15u) / 16u * 16u) return;
    if (row >= pc.n_rows) {
        for (uint k2 = lane; k2 < kp / 2u; k2 += VKM_LANES) STW_y(vkm_op_word(row, k2, kp), 0u);
        return;
    }
    uint from = row * pc.n_cols, last = pc.n_cols - 1u;
    VKM_RULE5(sum, c, pc.n_cols, vkm_square(LD_x(from + c)))
    float rstd = vkm_norm_rstd(sum, pc.n_cols, pc.eps);
    if (lane == 0u) ST_rstd(row, rstd);
    for (uint k2 = lane; k2 < kp / 2u; k2 += VKM_LANES) {
        uint c0 = min(2u * k2, last), c1 = min(2u * k2 + 1u, last);
        precise float lo = LD_x(from + c0) * rstd;
        precise float hi = LD_x(from + c1) * rstd;
        lo = lo * LD_gain(c0);
        hi = hi * LD_gain(c1);
        uint w = (2u * k2 <= last ? vkm_bf16z(lo) : 0u) | (2u * k2 < last ? vkm_bf16z(hi) << 16 : 0u);
        STW_y(vkm_op_word(row, k2, kp), w);
    }
}
