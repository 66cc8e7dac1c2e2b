#version 460
#extension GL_GOOGLE_include_directive : require
#include "scatter_rows.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n_rows * pc.n_cols) return;
    ST_y(LD_rows(i / pc.n_cols) * pc.n_cols + i % pc.n_cols, LD_x(i));
}
