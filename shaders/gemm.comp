#version 460
#extension GL_GOOGLE_include_directive : require
#include "gemm.glsl"
#include "tile.glsl"

void main() {
    precise float y[TILE_N];
    VKM_TILE_CLEAR(y)
    uint part = gl_WorkGroupID.z, k = part * pc.k_part;
    vkm_tile_add(vkm_operand(pc.a, pc.m, pc.kpa, k / 2u), vkm_operand(pc.b, pc.n, pc.kpb, k / 2u),
                 min(pc.k - k, pc.k_part), y);
    uvec2 c = vkm_address(pc.c, part * pc.m * pc.ldc);
    VKM_FOR_FOURS(vkm_store_four(c, i, j, pc.n, pc.ldc, VKM_FOUR(y)))
}
