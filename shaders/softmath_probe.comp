#version 460
#extension GL_GOOGLE_include_directive : require
#include "softmath_probe.glsl"
#include "softmath.h"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    float x = LD_x(i), y = LD_y(i), r = 0.0;
    switch (pc.function) {
    case 0u: r = vkm_exp(x); break;
    case 1u: r = vkm_log(x); break;
    case 2u: r = vkm_div(x, y); break;
    case 3u: r = vkm_sqrt(x); break;
    case 4u: r = vkm_rsqrt(x); break;
    case 5u: r = vkm_sin(x); break;
    case 6u: r = vkm_cos(x); break;
    case 7u: r = vkm_sigmoid(x); break;
    case 8u: r = vkm_silu(x); break;
    case 9u: r = vkm_softplus(x); break;
    case 10u:
        r = vkm_unit(vkm_random4(vkm_bits(x), vkm_bits(y), VKM_RNG_TEST, 1u, 2u, i, 3u).x);
        break;
    }
    ST_z(i, r);
}
