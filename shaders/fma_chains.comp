#version 460
#extension GL_GOOGLE_include_directive : require
#include "fma_chains.glsl"

const uint CHAINS = 12u; /* VKM_CHAINS */

/* factor is a power of two: its products are exact, so fma is the same whether fused or not. */
void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    float x = LD_x(i);
    precise float v[CHAINS];
    for (uint c = 0u; c < CHAINS; c++) v[c] = x + float(int(c));
    for (uint t = 0u; t < pc.steps; t++)
        for (uint c = 0u; c < CHAINS; c++) v[c] = fma(v[c], pc.factor, pc.term);
    precise float sum = 0.0;
    for (uint c = 0u; c < CHAINS; c++) sum = sum + v[c];
    ST_y(i, sum);
}
