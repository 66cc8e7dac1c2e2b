#version 460
#extension GL_GOOGLE_include_directive : require
#include "lse_combine.glsl"
#include "softmath.h"
#include "guarded.glsl"

/* One invocation a row: blocks add up in ascending order. */
void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n_rows) return;
    uint nb = (pc.n_vocab + 255u) / 256u;
    uint b0 = i * nb;
    float m = LD_mb(b0);
    for (uint b = 1u; b < nb; b++) {
        float x = LD_mb(b0 + b);
        m = x > m ? x : m;
    }
    precise float l = 0.0, sum = 0.0;
    for (uint b = 0u; b < nb; b++) {
        float d = subc(LD_mb(b0 + b), m);
        float t = vkm_exp(d);
        if (t == 0.0) continue;
        float lb = LD_lb(b0 + b);
        float part = addc(LD_sb(b0 + b), mulc(lb, d));
        l = l + mulc(lb, t);
        sum = sum + mulc(t, part);
    }
    uint target = min(LD_targets(i), pc.n_vocab - 1u);
    float log_l = vkm_log(l);
    ST_m(i, m);
    ST_l(i, l);
    ST_logp(i, subc(subc(LD_logits(i * pc.n_vocab + target), m), log_l));
    ST_entropy(i, subc(log_l, vkm_div(sum, l)));
}
