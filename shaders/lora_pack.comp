#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_pack.glsl"
#include "lora.glsl"

void main() {
    uint at = vkm_flat_id(), kp = (pc.n_cols + 7u) & ~7u;
    uint row = at / (kp / 2u), w = at % (kp / 2u);
    if (row >= pc.n_experts * vkm_lora_kper(pc.rank) + pc.n_pads) return;
    uvec2 from = vkm_lora_source(row, pc.n_experts, pc.rank);
    float y[2];
    [[unroll]] for (uint i = 0u; i < 2u; i++) {
        uint col = 2u * w + i, x = from.y * pc.n_cols + col;
        y[i] = 0.0;
        if (from.y != 0xffffffffu && col < pc.n_cols) y[i] = from.x == 0u ? LD_p0(x) : LD_p1(x);
    }
    STW_y(vkm_op_word(pc.row0 + row, w, kp), vkm_bf16_pair(y[0], y[1]));
}
