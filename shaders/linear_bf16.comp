#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear_bf16.glsl"
#include "linear_tile.glsl"

/* n is even. */
void store_words(uint i, uint j, vec4 y) {
    if (i >= pc.m || j >= pc.n) return;
    if (pc.has_rows != 0u) i = LD_rows(VKM_ROW(i));
    uvec2 w = uvec2(vkm_bf16_pair(y.x, y.y), vkm_bf16_pair(y.z, y.w));
    if (TILE_QUADS != 0u) {
        vkm_store2(pc.c, (i * pc.n + j) / 4u, w);
    } else {
        STW_c((i * pc.n + j) / 2u, w.x);
        if (j + 2u < pc.n) STW_c((i * pc.n + j) / 2u + 1u, w.y);
    }
}

void main() {
    precise float y[TILE_N];
    VKM_TILE_CLEAR(y)
    vkm_linear_tile(y);
    VKM_FOR_FOURS(precise vec4 z = VKM_FOUR(y);
                  if (pc.has_bias != 0u) z = vkm_load_four(pc.bias, 0u, j, pc.n, pc.n) + z;
                  store_words(i, j, z))
}
