/* y = x W^T + the experts' scaled terms for one tile; for the push constants of linear, included before
 * tile.glsl. The base product and the experts' run through one loop, so that the tile's code stands
 * once; an expert's sums are scaled chunk by chunk, so that no third set of them is held. */
uint expert_sums; /* whose sums are taken: 0 the base product's, 1 + e an expert's */
#define VKM_TAKE_SUMS(y, sum)                                                                      \
    if (expert_sums == 0u) {                                                                       \
        [[unroll]] for (uint n = 0u; n < TILE_N; n++) y[n] = y[n] + sum[n];                        \
    } else {                                                                                       \
        VKM_ADD_SCALED(y, expert_factor(i), sum)                                                   \
    }
float expert_factor(uint i);

#include "tile.glsl"

float expert_factor(uint i) {
    uint seq = LD_row_seq(VKM_ROW(i));
    bool none = seq == 0xffffffffu;
    float f = LD_scale(none ? 0u : seq * pc.n_experts + expert_sums - 1u);
    return none ? 0.0 : f;
}

void vkm_linear_tile(inout precise float y[TILE_N]) {
    for (uint part = 0u; TILE_PARTS != 0u && part < pc.n_parts; part++) {
        uvec2 from = vkm_address(pc.parts, part * pc.m * pc.n);
        VKM_FOR_FOURS(precise vec4 z = VKM_FOUR(y);
                      z = z + vkm_load_four(from, VKM_ROW(i), j, pc.n, pc.n);
                      [[unroll]] for (uint l = 0u; l < 4u; l++) y[at + l] = z[l])
    }
    uint k2 = pc.n_experts * pc.kper;
    for (uint part = 0u; part <= pc.n_experts; part++) {
        bool base = part == 0u;
        /* drivers run ahead of the loop's end: no part is past the last expert */
        expert_sums = min(part, max(pc.n_experts, 1u));
        uint skip = base ? 0u : (expert_sums - 1u) * pc.kper / 2u;
        vkm_tile_add(vkm_operand(base ? pc.a : pc.a2, pc.m, base ? pc.k : pc.kpa2, skip),
                     vkm_operand(base ? pc.b : pc.b2, pc.n, base ? pc.k : k2, skip),
                     base ? pc.k : pc.kper, y);
    }
}
