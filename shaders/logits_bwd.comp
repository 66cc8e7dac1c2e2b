#version 460
#extension GL_GOOGLE_include_directive : require
#include "logits_bwd.glsl"
#include "softmath.h"
#include "guarded.glsl"

float gradient(uint row, uint j, uint target, float m, float inv_l, float coef) {
    if (j >= pc.n_vocab) return 0.0;
    float p = mulc(vkm_exp(subc(LD_logits(row * pc.n_vocab + j), m)), inv_l);
    precise float d = (j == target ? 1.0 : 0.0) - p;
    d = coef * d;
    return d;
}

/* One invocation 8 columns of a row, neighbours along the rows of a panel. */
void main() {
    uint i = vkm_flat_id();
    uint units = (pc.n_vocab + 7u) / 8u, kp = units * 8u;
    uint row = (i / 16u / units) * 16u + i % 16u;
    uint j0 = ((i / 16u) % units) * 8u;
    if (row >= ((pc.n_rows + 15u) & ~15u)) return;
    if (row >= pc.n_rows) {
        for (uint k = 0u; k < 4u; k++) STW_d(vkm_op_word(row, j0 / 2u + k, kp), 0u);
        return;
    }
    uint target = min(LD_targets(row), pc.n_vocab - 1u);
    float m = LD_m(row), inv_l = vkm_div(1.0, LD_l(row)), coef = LD_coef(row);
    for (uint k = 0u; k < 4u; k++) {
        uint j = j0 + 2u * k;
        float d0 = gradient(row, j, target, m, inv_l, coef);
        float d1 = gradient(row, j + 1u, target, m, inv_l, coef);
        STW_d(vkm_op_word(row, j0 / 2u + k, kp), vkm_bf16_pair(d0, d1));
    }
}
