#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_pack_t.glsl"
#include "lora.glsl"

float y_at(uint row, uint col) {
    uint half_cols = vkm_half_of(pc.rank), in_expert = col % (2u * half_cols);
    uint j = in_expert % half_cols, i = col / (2u * half_cols) * pc.rank + j;
    if (row >= pc.n_cols || j >= pc.rank) return 0.0;
    return in_expert < half_cols ? LD_p0(i * pc.n_cols + row) : LD_p1(i * pc.n_cols + row);
}

void main() {
    uint at = vkm_flat_id();
    uint kp = pc.n_experts * 2u * vkm_half_of(pc.rank);
    if (at >= vkm_op_words(pc.n_cols, kp)) return;
    uvec2 p = vkm_op_place(at, kp);
    STW_y(at, vkm_bf16_pair(y_at(p.x, p.y), y_at(p.x, p.y + 1u)));
}
