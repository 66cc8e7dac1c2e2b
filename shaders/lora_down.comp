#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_down.glsl"
#include "tile.glsl"

/* Words of u and of h at row i, columns j to j + 3 of the product: u, u, A0 x, A0 x of two ranks. */
void store_pairs(uint i, uint j, vec4 y) {
    if (j >= pc.n) return;
    [[unroll]] for (uint l = 0u; l < 4u; l++) y[l] = i < pc.m ? vkm_canon(y[l]) : 0.0;
    precise vec2 h = y.zw + y.xy;
    uint word = vkm_op_word(i, j / 2u, pc.n);
    if (i < (pc.m + 15u) / 16u * 16u) {
        STW_uh(word, vkm_bf16_pair(y.x, y.y));
        STW_uh(word + 16u, vkm_bf16_pair(h.x, h.y));
    }
    if (pc.has_h != 0u && i < pc.m) {
        ST_h((i * pc.n + j) / 2u, h.x);
        ST_h((i * pc.n + j) / 2u + 1u, h.y);
    }
    /* rows of the last panel that no group has */
    if (TILE_HEIGHT < 16u && (gl_WorkGroupID.y + 1u) * TILE_HEIGHT >= pc.m)
        for (uint row = i + TILE_HEIGHT; row < (pc.m + 15u) / 16u * 16u; row += TILE_HEIGHT) {
            STW_uh(vkm_op_word(row, j / 2u, pc.n), 0u);
            STW_uh(vkm_op_word(row, j / 2u + 1u, pc.n), 0u);
        }
}

void main() {
    precise float y[TILE_N];
    VKM_TILE_CLEAR(y)
    vkm_tile_add(vkm_operand(pc.a, pc.m, pc.k, 0u), vkm_operand(pc.b, pc.n, pc.k, 0u), pc.k, y);
    VKM_FOR_FOURS(store_pairs(i, j, VKM_FOUR(y)))
}
