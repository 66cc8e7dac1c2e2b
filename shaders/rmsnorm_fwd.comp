#version 460
#extension GL_GOOGLE_include_directive : require
#include "rmsnorm_fwd.glsl"
#include "reduce.glsl"
#include "softmath.h"

void main() {
    uint row = vkm_group_id(), lane = gl_LocalInvocationID.x, kp = (pc.n_cols + 7u) / 8u * 8u;
    if (row >= (pc.n_rows + 15u) / 16u * 16u) return;
    if (row >= pc.n_rows) {
        for (uint k2 = lane; k2 < kp / 2u; k2 += 64u) STW_y(vkm_op_word(row, k2, kp), 0u);
        return;
    }
    uint from = row * pc.n_cols, last = pc.n_cols - 1u;
    precise float acc = 0.0;
    for (uint c = lane; c < pc.n_cols; c += 64u) {
        precise float x = LD_x(from + c);
        x = x * x;
        acc = acc + vkm_canon(x);
    }
    precise float rstd = vkm_div(vkm_rule5_tree(acc), float(int(pc.n_cols)));
    rstd = rstd + pc.eps;
    rstd = vkm_rsqrt(rstd);
    if (lane == 0u) ST_rstd(row, rstd);
    for (uint k2 = lane; k2 < kp / 2u; k2 += 64u) {
        uint c0 = min(2u * k2, last), c1 = min(2u * k2 + 1u, last);
        precise float lo = LD_x(from + c0) * rstd;
        precise float hi = LD_x(from + c1) * rstd;
        lo = lo * LD_gain(c0);
        hi = hi * LD_gain(c1);
        uint w = (2u * k2 <= last ? vkm_bf16z(lo) : 0u) | (2u * k2 < last ? vkm_bf16z(hi) << 16 : 0u);
        STW_y(vkm_op_word(row, k2, kp), w);
    }
}
