#version 460
#extension GL_GOOGLE_include_directive : require
#include "norm_dgain.glsl"
#include "guarded.glsl"

void main() {
    uint i = vkm_flat_id(), width = pc.n_heads * pc.head_dim;
    if (i >= pc.n_blocks * width) return;
    uint block = i / width, col = i % width, head = col / pc.head_dim;
    uint row0 = LD_blocks(2u * block), n = LD_blocks(2u * block + 1u);
    precise float sum = 0.0;
    for (uint j = 0u; j < n; j++) {
        uint row = row0 + min(j, n - 1u); /* drivers run ahead of the loop's end */
        float normed = mulc(LD_x(row * width + col), LD_rstd(row * pc.n_heads + head));
        sum = addc(sum, mulc(LD_dy(row * width + col), normed));
    }
    ST_part(i, sum);
}
