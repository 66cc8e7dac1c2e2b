#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm.glsl"
#include "tile.glsl"

void main() {
    precise float y[TILE_N];
    VKM_TILE_CLEAR(y)
    vkm_tile_add(vkm_operand(pc.a, pc.m, pc.kpa, 0u), vkm_operand(pc.b, pc.n, pc.kpb, 0u), pc.k, y);
    VKM_FOR_FOURS(vkm_store_four(pc.c, i, j, pc.n, pc.ldc, VKM_FOUR(y)))
}
