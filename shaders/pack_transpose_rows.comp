#version 460
#extension GL_GOOGLE_include_directive : require
#include "pack_transpose_rows.glsl"

/* One invocation makes a block of 2 by 2, as in pack_transpose.comp. */
uint row_words(uint j, uint c) {
    uint r = LD_map(min(j, pc.n_out - 1u)), kp = (pc.n_cols + 7u) / 8u * 8u;
    uint w = LDW_x(vkm_op_word(min(r, pc.n_rows - 1u), min(c, pc.n_cols - 1u) >> 1, kp));
    w = c + 1u < pc.n_cols ? w : w & 0xffffu;
    return j < pc.n_out && r < pc.n_rows && c < pc.n_cols ? w : 0u;
}

void main() {
    uint i = vkm_flat_id(), k2n = (pc.n_out + 7u) / 8u * 4u;
    if (i >= (pc.n_cols + 15u) / 16u * 8u * k2n) return;
    uint j = (i >> 3) % k2n * 2u, c = (i >> 3) / k2n * 16u + (i & 7u) * 2u;
    uint w0 = row_words(j, c), w1 = row_words(j + 1u, c);
    STW_y(2u * i, (w0 & 0xffffu) | (w1 << 16));
    STW_y(2u * i + 1u, (w0 >> 16) | (w1 & 0xffff0000u));
}
