#version 460
#extension GL_GOOGLE_include_directive : require
#include "linear.glsl"
#include "linear_tile.glsl"

void main() {
    precise float y[TILE_N];
    VKM_TILE_CLEAR(y)
    vkm_linear_tile(y);
    /* a residual (m, n), or one row for all (n): a bias */
    VKM_FOR_FOURS(precise vec4 z = VKM_FOUR(y);
                  if (pc.has_res != 0u) z = vkm_load_four(pc.res, pc.has_res == 1u ? VKM_ROW(i) : 0u,
                                                          j, pc.n, pc.n) + z;
                  vkm_store_four(pc.c, i, j, pc.n, pc.n, z))
}
