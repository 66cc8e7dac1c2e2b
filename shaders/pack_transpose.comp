#version 460
#extension GL_GOOGLE_include_directive : require
#include "pack_transpose.glsl"

/* One invocation transposes a block of 2 by 2: two words of x, of rows r and r + 1, become two words
 * of y, of columns c and c + 1. */
uint row_words(uint r, uint c) {
    uint safe = min(r, pc.n_rows - 1u), kp = (pc.n_cols + 7u) / 8u * 8u;
    uint w = LDW_x(vkm_op_word(safe, min(c, pc.n_cols - 1u) >> 1, kp));
    bool padding = pc.has_seq != 0u && LD_row_seq(pc.has_seq != 0u ? safe : 0u) == 0xffffffffu;
    w = c + 1u < pc.n_cols ? w : w & 0xffffu;
    return r < pc.n_rows && c < pc.n_cols && !padding ? w : 0u;
}

void main() {
    uint i = vkm_flat_id(), k2n = (pc.n_rows + 7u) / 8u * 4u;
    if (i >= (pc.n_cols + 15u) / 16u * 8u * k2n) return;
    uint r = (i >> 3) % k2n * 2u, c = (i >> 3) / k2n * 16u + (i & 7u) * 2u;
    uint w0 = row_words(r, c), w1 = row_words(r + 1u, c);
    STW_y(2u * i, (w0 & 0xffffu) | (w1 << 16));
    STW_y(2u * i + 1u, (w0 >> 16) | (w1 & 0xffff0000u));
}
