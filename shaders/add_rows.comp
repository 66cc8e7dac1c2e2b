#version 460
#extension GL_GOOGLE_include_directive : require
#include "add_rows.glsl"
#include "guarded.glsl"

void main() {
    uint c = vkm_flat_id();
    if (c >= pc.n_cols) return;
    precise float sum = LD_y(c);
    for (uint r = 0u; r < pc.n_rows; r++)
        sum = addc(sum, LD_x(min(r, pc.n_rows - 1u) * pc.n_cols + c));
    ST_y(c, sum);
}
