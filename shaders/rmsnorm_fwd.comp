#version 460
#extension GL_GOOGLE_include_directive : require
#include "rmsnorm_fwd.glsl"
#include "norm.glsl"

const uint WORDS = VKM_LANES == 1u ? 1u : 4u; /* of a lane, on their way at once */

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
    for (uint first = lane; first < kp / 2u; first += WORDS * VKM_LANES) {
        vec2 x[WORDS], gain[WORDS];
        [[unroll]] for (uint i = 0u; i < WORDS; i++) {
            uint c = 2u * (first + i * VKM_LANES), c0 = min(c, last), c1 = min(c + 1u, last);
            x[i] = vec2(LD_x(from + c0), LD_x(from + c1));
            gain[i] = vec2(LD_gain(c0), LD_gain(c1));
        }
        [[unroll]] for (uint i = 0u; i < WORDS; i++) {
            uint k2 = first + i * VKM_LANES;
            precise vec2 y = x[i] * rstd;
            y = y * gain[i];
            uint w = (2u * k2 <= last ? vkm_bf16z(y.x) : 0u) | (2u * k2 < last ? vkm_bf16z(y.y) << 16 : 0u);
            if (k2 < kp / 2u) STW_y(vkm_op_word(row, k2, kp), w);
        }
    }
}
