#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_pack.glsl"

float y_at(uint i, uint col) {
    if (i >= 2u * pc.n_rows || col >= pc.n_cols) return 0.0;
    return i < pc.n_rows ? LD_p0(i * pc.n_cols + col) : LD_p1((i - pc.n_rows) * pc.n_cols + col);
}

void main() {
    uint at = vkm_flat_id(), kp = (pc.n_cols + 7u) & ~7u;
    uint i = at / (kp / 2u), w = at % (kp / 2u);
    if (i >= 2u * pc.n_rows + pc.n_pads) return;
    STW_y(vkm_op_word(pc.row0 + i, w, kp), vkm_bf16_pair(y_at(i, 2u * w), y_at(i, 2u * w + 1u)));
}
