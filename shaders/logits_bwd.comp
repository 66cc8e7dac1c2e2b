#version 460
#extension GL_GOOGLE_include_directive : require
#include "logits_bwd.glsl"
#include "softmath.h"
#include "guarded.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint FOURS = 0u; /* 1: four columns lie where one load finds them all */

/* Logits j to j + 3 of a row; what is outside repeats the last. */
vec4 logits(uint row, uint j) {
    uint from = row * pc.n_vocab;
    if (FOURS != 0u) return uintBitsToFloat(vkm_words4(pc.logits, (from + min(j, pc.n_vocab - 4u)) / 4u));
    vec4 x;
    [[unroll]] for (uint l = 0u; l < 4u; l++) x[l] = LD_logits(from + min(j + l, pc.n_vocab - 1u));
    return x;
}

float gradient(float x, uint j, uint target, float m, float inv_l, float coef) {
    if (j >= pc.n_vocab) return 0.0;
    float p = mulc(vkm_exp(subc(x, m)), inv_l);
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
    [[unroll]] for (uint k = 0u; k < 2u; k++) {
        uint j = j0 + 4u * k;
        vec4 x = logits(row, j), d;
        [[unroll]] for (uint l = 0u; l < 4u; l++)
            d[l] = gradient(x[l], j + l, target, m, inv_l, coef);
        STW_d(vkm_op_word(row, j / 2u, kp), vkm_bf16_pair(d.x, d.y));
        STW_d(vkm_op_word(row, j / 2u + 1u, kp), vkm_bf16_pair(d.z, d.w));
    }
}
