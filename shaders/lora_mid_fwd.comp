#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_mid_fwd.glsl"
#include "lora.glsl"

/* u = dA x and h = A0 x + u of one row; i counts all experts' ranks. */
float u_at(uint row, uint i) {
    return LD_t(row * pc.ldt + i);
}

float h_at(uint row, uint i) {
    uint at = row * pc.ldt + i;
    precise float h = LD_t(at + pc.n_experts * pc.rank) + LD_t(at);
    return h;
}

float uh_at(uint row, uint col) {
    uint half_cols = vkm_half_of(pc.rank), in_expert = col % (2u * half_cols);
    uint j = in_expert % half_cols, i = col / (2u * half_cols) * pc.rank + j;
    if (row >= pc.n_rows || j >= pc.rank) return 0.0;
    return in_expert < half_cols ? u_at(row, i) : h_at(row, i);
}

float ht_at(uint i, uint row) {
    if (i >= pc.n_experts * pc.rank || row >= pc.n_rows) return 0.0;
    return LD_row_seq(row) == 0xffffffffu ? 0.0 : h_at(row, i);
}

void main() {
    uint at = vkm_flat_id();
    uint er = pc.n_experts * pc.rank, kp = pc.n_experts * 2u * vkm_half_of(pc.rank);
    uint tp = (pc.n_rows + 7u) / 8u * 8u, n_uh = vkm_op_words(pc.n_rows, kp);
    if (at < n_uh) {
        uvec2 p = vkm_op_place(at, kp);
        STW_uh(at, vkm_bf16_pair(uh_at(p.x, p.y), uh_at(p.x, p.y + 1u)));
        return;
    }
    at -= n_uh;
    uint n_h = pc.has_h == 0u ? 0u : pc.n_rows * er;
    if (at < n_h) {
        ST_h(at, h_at(at / er, at % er));
        return;
    }
    at -= n_h;
    if (pc.has_ht == 0u || at >= vkm_op_words(er, tp)) return;
    uvec2 p = vkm_op_place(at, tp);
    STW_ht(at, vkm_bf16_pair(ht_at(p.x, p.y), ht_at(p.x, p.y + 1u)));
}
