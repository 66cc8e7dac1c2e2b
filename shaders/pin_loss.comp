#version 460
#extension GL_GOOGLE_include_directive : require
#include "pin_loss.glsl"
#include "softmath.h"
#include "guarded.glsl"
#include "reduce.glsl"

/* One workgroup: n hack rows, then n clean rows. */
void main() {
    uint lane = gl_LocalInvocationID.x, n = pc.n_pairs;
    float share = vkm_div(mulc(pc.coef, 0.5), float(int(n)));
    precise float acc = 0.0;
    for (uint i = lane; i < n; i += 64u) {
        precise float away = 0.0 - LD_z(i);
        precise float both = vkm_softplus(away) + vkm_softplus(LD_z(n + i));
        acc = acc + both;
        ST_dz(i, mulc(mulc(share, subc(LD_w(i), 1.0)), pc.scale));
        ST_dz(n + i, mulc(mulc(share, LD_w(n + i)), pc.scale));
    }
    float sum = vkm_rule5_tree(acc);
    if (lane == 0u) ST_loss(0u, mulc(sum, share));
}
