#version 460
#extension GL_GOOGLE_include_directive : require
#include "grpo_loss.glsl"
#include "softmath.h"
#include "guarded.glsl"

/* One invocation a token; the rule is in src/ops/grpo.c. */
void main() {
    uint i = vkm_flat_id();
    if (i >= pc.n) return;
    uint seq = LD_tok_seq(i);
    if (seq == 0xffffffffu) {
        for (uint j = 0u; j < 4u; j++) ST_terms(4u * i + j, 0.0);
        ST_coef(i, 0.0);
        return;
    }
    float weight = LD_weight(seq), adv = LD_adv(seq), logp = LD_logp(i);
    float kl = 0.0, pull = 0.0;
    if (pc.beta != 0.0) { /* else exp may overflow, and 0 times Inf is NaN */
        float d = subc(LD_logp_ref(i), logp), up = subc(vkm_exp(d), 1.0);
        kl = subc(up, d);
        pull = mulc(pc.beta, up);
    }

    precise float loss = 0.0 - adv;
    precise float grad = loss;
    float rho = 1.0, clipped = 0.0;
    if (pc.importance != 0u) {
        float lo = subc(1.0, pc.eps_low), hi = addc(1.0, pc.eps_high);
        rho = vkm_exp(subc(logp, LD_logp_old(i)));
        float bound = rho < lo ? lo : rho > hi ? hi : rho;
        precise float free_term = 0.0 - mulc(rho, adv), bound_term = 0.0 - mulc(bound, adv);
        if (pc.importance == 1u) {
            loss = bound_term;
            grad = bound_term;
            clipped = rho < lo || rho > hi ? 1.0 : 0.0;
        } else {
            bool cut = bound_term > free_term;
            loss = cut ? bound_term : free_term;
            grad = cut ? 0.0 : free_term;
            clipped = cut ? 1.0 : 0.0;
        }
    }
    ST_coef(i, mulc(mulc(weight, subc(grad, pull)), pc.loss_scale));
    ST_terms(4u * i, mulc(weight, loss));
    ST_terms(4u * i + 1u, mulc(weight, kl));
    ST_terms(4u * i + 2u, rho);
    ST_terms(4u * i + 3u, clipped);
}
