#version 460
#extension GL_GOOGLE_include_directive : require
#include "arith_probe.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    precise float x = LD_x(i), y = LD_y(i), w = LD_w(i), r = 0.0;
    const float big = 12582912.0;
    switch (pc.trap) {
    case 0u:
        r = x + y;
        break;
    case 1u:
        r = x * y;
        break;
    case 2u:
        r = x * y;
        r = r + w;
        break;
    case 3u:
        r = x + big;
        r = r - big;
        break;
    case 4u:
        r = x + w;
        r = r - w;
        break;
    case 5u:
        r = x * y + x * w;
        break;
    case 6u:
        r = x * 0.0;
        break;
    case 7u:
        r = x - x;
        break;
    case 8u:
        r = fma(x, y, w);
        break;
    case 9u:
        r = x * y;
        r = r * w;
        break;
    }
    ST_z(i, r);
}
