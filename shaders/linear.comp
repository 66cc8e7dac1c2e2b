#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "tile.glsl"
#include "linear_tile.glsl"

/* A residual (m, n), or one row for all (n): a bias. Without either `res` may hold one element. */
float plus_residual(uint i, uint j, float y) {
    uint column = min(j, pc.n - 1u);
    float x = LD_res(pc.has_res == 1u ? VKM_AT(i, j) : pc.has_res == 2u ? column : 0u);
    precise float z = x + y;
    return pc.has_res == 0u ? y : z;
}

void main() {
    precise float y[TILE_N];
    vkm_linear_tile(y);
    VKM_FOR_TILE(float z = plus_residual(i, j, y[at]);
                 if (i < pc.m && j < pc.n) ST_c(i * pc.n + j, z))
}
