#version 460
#extension GL_GOOGLE_include_directive : require
#include "lse_block.glsl"
#include "softmath.h"
#include "guarded.glsl"

/* One invocation a (row, block): the sums are sequential. */
void main() {
    uint i = vkm_flat_id();
    uint nb = (pc.n_vocab + 255u) / 256u;
    if (i >= pc.n_rows * nb) return;
    uint j0 = (i % nb) * 256u;
    uint first = (i / nb) * pc.n_vocab + j0;
    uint n = min(pc.n_vocab - j0, 256u);
    float m = LD_logits(first);
    for (uint j = 1u; j < n; j++) {
        float x = LD_logits(first + j);
        m = x > m ? x : m;
    }
    precise float l = 0.0, s = 0.0;
    for (uint j = 0u; j < n; j++) {
        float d = subc(LD_logits(first + j), m);
        float e = vkm_exp(d);
        l = l + e;
        s = s + (e == 0.0 ? 0.0 : mulc(e, d));
    }
    ST_mb(i, m);
    ST_lb(i, l);
    ST_sb(i, s);
}
