#version 460
#extension GL_GOOGLE_include_directive : require
#include "qk_fwd.glsl"
#include "norm.glsl"

/* Element `at` + d of x, normed. */
float normed(uint at, uint d, float rstd) {
    float x = LD_x(at + d);
    return pc.has_norm == 0u ? x : vkm_product(vkm_product(x, rstd), LD_gain(d));
}

/* A unit is a head of a row; its elements d, d + 1 of the first half turn with their partners. */
void main() {
    uint unit = vkm_unit_id(), lane = vkm_unit_lane(), from = unit * pc.head_dim;
    if (unit >= pc.n_rows * pc.n_heads) return;
    float rstd = 1.0;
    if (pc.has_norm != 0u) {
        VKM_RULE5(sum, d, pc.head_dim, vkm_square(LD_x(from + d)))
        rstd = vkm_norm_rstd(sum, pc.head_dim, pc.eps);
        if (lane == 0u) ST_rstd(unit, rstd);
    }
    uint row = unit / pc.n_heads, half_d = pc.head_dim / 2u, t = LD_pos(row) * half_d;
    uint to = pc.has_rows == 0u ? from : (LD_rows(row) * pc.n_heads + unit % pc.n_heads) * pc.head_dim;
    for (uint d = 2u * lane; d < half_d; d += 2u * VKM_LANES) {
        float lo[2], hi[2];
        [[unroll]] for (uint j = 0u; j < 2u; j++) {
            float a = normed(from, d + j, rstd), b = normed(from, half_d + d + j, rstd);
            float c = LD_cos(t + d + j), s = LD_sin(t + d + j);
            precise float ac = a * c, bs = b * s, bc = b * c, as = a * s;
            precise float u = ac - bs, v = bc + as;
            lo[j] = u;
            hi[j] = v;
        }
        STW_y((to + d) / 2u, vkm_bf16_pair(lo[0], lo[1]));
        STW_y((to + half_d + d) / 2u, vkm_bf16_pair(hi[0], hi[1]));
    }
}
