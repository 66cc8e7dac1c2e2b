#version 460
#extension GL_GOOGLE_include_directive : require
#include "decode_begin.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n_rows) return;
    ST_tokens(i, LD_state(8u * i + 4u));
    ST_pos(i, LD_state(8u * i + 1u) + LD_state(8u * i + 3u) - 1u);
    ST_rows(i, LD_state(8u * i + 2u) + LD_state(8u * i + 3u) - 1u);
}
