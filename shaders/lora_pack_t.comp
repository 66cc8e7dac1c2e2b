#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_pack_t.glsl"
#include "lora.glsl"

float y_at(uint row, uint col) {
    uvec2 from = vkm_lora_source(col, pc.n_experts, pc.rank);
    if (row >= pc.n_cols || from.y == 0xffffffffu) return 0.0;
    uint x = from.y * pc.n_cols + row;
    return from.x == 0u ? LD_p0(x) : LD_p1(x);
}

void main() {
    uint at = vkm_flat_id();
    uint kp = pc.n_experts * vkm_lora_kper(pc.rank);
    if (at >= vkm_op_words(pc.n_cols, kp)) return;
    uvec2 p = vkm_op_place(at, kp);
    STW_y(at, vkm_bf16_pair(y_at(p.x, p.y), y_at(p.x, p.y + 1u)));
}
