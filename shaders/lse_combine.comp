#version 460
#extension GL_GOOGLE_include_directive : require
#include "lse_combine.glsl"
#include "softmath.h"
#include "guarded.glsl"

layout(constant_id = 1) const uint LANES = 1u; /* of a row: 1, or 64, a workgroup */
shared float largest[LANES];
shared vec2 terms[LANES];

/* What a block adds to l and to the sum of the entropy. */
vec2 terms_of(uint at, float m) {
    float d = subc(LD_mb(at), m);
    float t = vkm_exp(d), lb = LD_lb(at);
    float part = addc(LD_sb(at), mulc(lb, d));
    return t == 0.0 ? vec2(0.0) : vec2(mulc(lb, t), mulc(t, part)); /* d may be -Inf there */
}

/* Blocks add up in ascending order. */
void main() {
    uint i = vkm_flat_id() / LANES, lane = LANES == 1u ? 0u : gl_LocalInvocationID.x;
    if (i >= pc.n_rows) return;
    uint nb = (pc.n_vocab + 255u) / 256u, b0 = i * nb;
    float m = LD_mb(b0);
    for (uint b = lane; b < nb; b += LANES) {
        float x = LD_mb(b0 + b);
        m = x > m ? x : m;
    }
    if (LANES > 1u) {
        largest[lane] = m;
        barrier();
        for (uint b = 0u; b < LANES; b++) m = largest[b] > m ? largest[b] : m;
    }
    precise float l = 0.0, sum = 0.0;
    for (uint b = 0u; b < nb; b += LANES) {
        vec2 mine = terms_of(b0 + min(b + lane, nb - 1u), m);
        if (LANES == 1u) {
            l = l + mine.x;
            sum = sum + mine.y;
        } else {
            terms[lane] = mine;
            barrier();
            for (uint j = 0u; j < min(LANES, nb - b); j++) {
                l = l + terms[j].x;
                sum = sum + terms[j].y;
            }
            barrier();
        }
    }
    if (lane != 0u) return;
    uint target = min(LD_targets(i), pc.n_vocab - 1u);
    float log_l = vkm_log(l);
    ST_m(i, m);
    ST_l(i, l);
    ST_logp(i, subc(subc(LD_logits(i * pc.n_vocab + target), m), log_l));
    ST_entropy(i, subc(log_l, vkm_div(sum, l)));
}
