#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear_bf16.glsl"
#include "tile.glsl"
#include "linear_tile.glsl"

void main() {
    precise float y[TILE_N];
    vkm_linear_tile(y);
    VKM_FOR_TILE(if (at % 2u == 0u && i < pc.m && j < pc.n)
                     STW_c((i * pc.n + j) / 2u, vkm_bf16_pair(y[at], y[at + 1u])))
}
