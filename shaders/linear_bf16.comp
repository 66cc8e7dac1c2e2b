#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear_bf16.glsl"
#include "tile.glsl"
#include "linear_tile.glsl"

/* n is even. */
void store_words(uint i, uint j, uvec2 w) {
    if (i >= pc.m || j >= pc.n) return;
    if (TILE_QUADS != 0u) {
        vkm_store2(pc.c, (i * pc.n + j) / 4u, w);
    } else {
        STW_c((i * pc.n + j) / 2u, w.x);
        if (j + 2u < pc.n) STW_c((i * pc.n + j) / 2u + 1u, w.y);
    }
}

void main() {
    precise float y[TILE_N];
    vkm_linear_tile(y);
    VKM_FOR_FOURS(store_words(i, j, uvec2(vkm_bf16_pair(y[at], y[at + 1u]),
                                          vkm_bf16_pair(y[at + 2u], y[at + 3u]))))
}
