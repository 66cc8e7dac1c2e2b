#version 460
#extension GL_GOOGLE_include_directive : require
#include "embed_fwd.glsl"

void main() {
    uint i = vkm_flat_id(), n2 = (pc.n_cols + 1u) / 2u;
    if (i >= pc.n_rows * n2) return;
    uint row = i / n2, k2 = i % n2, at = row * pc.n_cols + 2u * k2;
    uint token = min(LD_tokens(row), pc.n_vocab - 1u);
    uint w = LDW_table(vkm_op_word(token, k2, (pc.n_cols + 7u) / 8u * 8u));
    ST_x(at, vkm_bf16_lo(w));
    if (2u * k2 + 1u < pc.n_cols) ST_x(at + 1u, vkm_bf16_hi(w));
}
