#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm_seg.glsl"
#include "tile.glsl"

/* With scale_stride 0 `scale` may hold a single element. */
float factor(uint s, uint i) {
    bool one = pc.scale_stride == 0u;
    float g = LD_scale(one ? 0u : s * pc.scale_stride + VKM_ROW(i) / pc.rows_per_scale);
    return one ? 1.0 : g;
}

void main() {
    precise float y[TILE_N];
    VKM_FOR_FOURS(vec4 x = vkm_load_four(pc.c, VKM_ROW(i), j, pc.n, pc.n);
                  [[unroll]] for (uint l = 0u; l < 4u; l++) y[at + l] = x[l])
    for (uint s = 0u; s < pc.n_seq; s++) {
        uint at_seq = 4u * min(s, pc.n_seq - 1u); /* drivers run ahead of the loop's end */
        uint row0 = LD_seqs(at_seq), len = LD_seqs(at_seq + 1u);
        precise float d[TILE_N];
        VKM_TILE_CLEAR(d)
        vkm_tile_add(vkm_operand(pc.a, pc.m, pc.kpa, row0 / 2u),
                     vkm_operand(pc.b, pc.n, pc.kpb, row0 / 2u), (len + 7u) / 8u * 8u, d);
        VKM_ADD_SCALED(y, factor(s, i), d)
    }
    VKM_FOR_FOURS(vkm_store_four(pc.c, i, j, pc.n, pc.n, VKM_FOUR(y)))
}
