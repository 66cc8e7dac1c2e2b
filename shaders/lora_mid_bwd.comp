#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_mid_bwd.glsl"
#include "lora.glsl"

/* v = B0^T dy and z = dB^T dy of one row; i counts all experts' ranks. */
float v_at(uint row, uint i) {
    return LD_t(row * 2u * pc.n_experts * pc.rank + i);
}

float z_at(uint row, uint i) {
    return LD_t((row * 2u + 1u) * pc.n_experts * pc.rank + i);
}

float p_at(uint row, uint i) {
    precise float p = v_at(row, i) + z_at(row, i);
    return p;
}

float pz_at(uint row, uint col) {
    uint half_cols = vkm_half_of(pc.rank), in_expert = col % (2u * half_cols);
    uint j = in_expert % half_cols, i = col / (2u * half_cols) * pc.rank + j;
    if (row >= pc.n_rows || j >= pc.rank) return 0.0;
    return in_expert < half_cols ? p_at(row, i) : z_at(row, i);
}

float pt_at(uint i, uint row) {
    if (i >= pc.n_experts * pc.rank || row >= pc.n_rows) return 0.0;
    return LD_row_seq(row) == 0xffffffffu ? 0.0 : p_at(row, i);
}

/* Column k of uh at a row. */
float uh_at(uint row, uint k, uint kp) {
    uint w = LDW_uh(vkm_op_word(row, k / 2u, kp));
    return k % 2u == 0u ? vkm_bf16_lo(w) : vkm_bf16_hi(w);
}

float plus_product(float acc, float x, float y) {
    precise float p = x * y;
    p = vkm_canon(p);
    precise float s = acc + p;
    return vkm_canon(s);
}

void main() {
    uint at = vkm_flat_id();
    uint er = pc.n_experts * pc.rank, half_cols = vkm_half_of(pc.rank);
    uint kp = pc.n_experts * 2u * half_cols;
    uint tp = (pc.n_rows + 7u) / 8u * 8u, n_pz = vkm_op_words(pc.n_rows, kp);
    if (at < n_pz) {
        uvec2 p = vkm_op_place(at, kp);
        STW_pz(at, vkm_bf16_pair(pz_at(p.x, p.y), pz_at(p.x, p.y + 1u)));
        return;
    }
    at -= n_pz;
    if (at < vkm_op_words(er, tp)) {
        uvec2 p = vkm_op_place(at, tp);
        STW_pt(at, vkm_bf16_pair(pt_at(p.x, p.y), pt_at(p.x, p.y + 1u)));
        return;
    }
    at -= vkm_op_words(er, tp);
    if (at >= pc.n_rows * pc.n_experts) return;
    uint row = at / pc.n_experts, e = at % pc.n_experts;
    uint n = LD_row_seq(row) == 0xffffffffu ? 0u : pc.rank;
    float acc = 0.0;
    for (uint j = 0u; j < n; j++) {
        uint k = e * 2u * half_cols + j;
        acc = plus_product(acc, v_at(row, e * pc.rank + j), uh_at(row, k, kp));
        acc = plus_product(acc, z_at(row, e * pc.rank + j), uh_at(row, k + half_cols, kp));
    }
    ST_df(at, acc);
}
