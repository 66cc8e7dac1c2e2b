#version 460
#extension GL_GOOGLE_include_directive : require
#include "pack_f32.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint QUADS = 0; /* 1: four elements lie where one load finds them all */

/* Words of elements k to k + 3 of a row; what is outside counts as zero. */
uvec2 row_words(uint row, uint k) {
    uint from = min(row, pc.n_rows - 1u) * pc.ldx, last = pc.n_cols - 1u;
    vec4 x;
    if (QUADS != 0u) {
        x = uintBitsToFloat(vkm_words4(pc.x, (from + min(k, last - 3u)) / 4u));
    } else {
        [[unroll]] for (uint e = 0u; e < 4u; e++) x[e] = LD_x(from + min(k + e, last));
    }
    x = vkm_first_of(x, row < pc.n_rows && k < pc.n_cols ? pc.n_cols - k : 0u);
    return uvec2(vkm_bf16_pair(x.x, x.y), vkm_bf16_pair(x.z, x.w));
}

/* One invocation packs four elements of four rows: it reads and writes what lies together. */
void main() {
    uint i = vkm_flat_id(), k4n = (pc.n_cols + 7u) / 8u * 2u;
    if (i >= (pc.n_rows + 15u) / 16u * 4u * k4n) return;
    uint k4 = (i >> 2) % k4n, row = (i >> 2) / k4n * 16u + (i & 3u) * 4u;
    uint to = vkm_op_word(row, 2u * k4, 4u * k4n) / 4u;
    uvec2 w[4];
    [[unroll]] for (uint r = 0u; r < 4u; r++) w[r] = row_words(row + r, 4u * k4);
    vkm_store4(pc.y, to, uvec4(w[0].x, w[1].x, w[2].x, w[3].x));
    vkm_store4(pc.y, to + 4u, uvec4(w[0].y, w[1].y, w[2].y, w[3].y));
}
