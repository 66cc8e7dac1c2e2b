#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_ballot : require
#include "linear.glsl"
#include "rule4_tile.glsl"
#include "linear_tile.glsl"

/* Without a residual `res` may hold a single element. */
float plus_residual(uint i, uint j, float y) {
    float x = LD_res(pc.has_res == 0u ? 0u : VKM_AT(i, j));
    precise float z = x + y;
    return pc.has_res == 0u ? y : z;
}

void main() {
    precise float y[TILE_N];
    vkm_linear_tile(y);
    VKM_FOR_TILE(float z = plus_residual(i, j, y[at]);
                 if (i < pc.m && j < pc.n) ST_c(i * pc.n + j, z))
}
