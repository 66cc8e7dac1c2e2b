#version 460
#extension GL_GOOGLE_include_directive : require
#include "gather_rows.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n_rows * pc.n_cols) return;
    ST_y(i, LD_x(LD_rows(i / pc.n_cols) * pc.n_cols + i % pc.n_cols));
}
