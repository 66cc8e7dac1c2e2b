#version 460
#extension GL_GOOGLE_include_directive : require
#include "pack_f32.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint PAIRS = 0; /* 1: two elements lie where one load finds both */

/* Word of elements k and k + 1 of a row; what is outside counts as zero. */
uint row_word(uint row, uint k) {
    uint from = min(row, pc.n_rows - 1u) * pc.ldx, last = pc.n_cols - 1u;
    vec2 x = PAIRS != 0u ? uintBitsToFloat(vkm_words2(pc.x, (from + min(k, last - 1u)) / 2u))
                         : vec2(LD_x(from + min(k, last)), LD_x(from + min(k + 1u, last)));
    uint end = row < pc.n_rows ? pc.n_cols : 0u;
    return (k < end ? vkm_bf16z(x.x) : 0u) | (k + 1u < end ? vkm_bf16z(x.y) << 16 : 0u);
}

/* One invocation packs eight elements of two rows: it reads what lies together and writes pairs. */
void main() {
    uint i = vkm_flat_id(), k8n = (pc.n_cols + 7u) / 8u;
    if (i >= (pc.n_rows + 15u) / 16u * 8u * k8n) return;
    uint k8 = (i >> 3) % k8n, row = (i >> 3) / k8n * 16u + (i & 7u) * 2u;
    uint to = vkm_op_word(row, 4u * k8, 8u * k8n) / 2u;
    [[unroll]] for (uint w = 0u; w < 4u; w++) {
        uint k = 8u * k8 + 2u * w;
        vkm_store2(pc.y, to + 8u * w, uvec2(row_word(row, k), row_word(row + 1u, k)));
    }
}
