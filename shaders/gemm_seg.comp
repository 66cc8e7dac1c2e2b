#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm_seg.glsl"
#include "rule4.glsl"

void main() {
    uint at = vkm_flat_id();
    if (at >= pc.m * pc.n) return;
    uint i = at / pc.n, j = at % pc.n;
    float y = LD_c(at);
    for (uint s = 0u; s < pc.n_seq; s++) {
        uint row0 = LD_seqs(4u * s), len = LD_seqs(4u * s + 1u);
        float d = vkm_rule4(pc.a, vkm_op_word(i, row0 / 2u, pc.kpa), pc.b,
                            vkm_op_word(j, row0 / 2u, pc.kpb), (len + 7u) / 8u * 8u);
        float g = 1.0;
        if (pc.scale_stride != 0u) g = LD_scale(s * pc.scale_stride + i / pc.rows_per_scale);
        y = vkm_add_scaled(y, g, d);
    }
    ST_c(at, y);
}
