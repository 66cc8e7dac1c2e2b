#version 460
#extension GL_GOOGLE_include_directive : require
#include "embed_bwd.glsl"
#include "guarded.glsl"

void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n_ids * pc.n_cols) return;
    uint id = 3u * (i / pc.n_cols), c = i % pc.n_cols;
    uint at = min(LD_ids(id), pc.n_vocab - 1u) * pc.n_cols + c;
    uint first = LD_ids(id + 1u), n = LD_ids(id + 2u);
    precise float sum = LD_grad(at);
    for (uint j = 0u; j < n; j++)
        sum = addc(sum, LD_dx(LD_rows(first + min(j, n - 1u)) * pc.n_cols + c));
    ST_grad(at, sum);
}
