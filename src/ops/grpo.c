/* The policy loss of GRPO and its derivative by the token log-probabilities. */
#include "ops/twin.h"
#include "ops/grpo.h"
#include "ops/guarded.h"

#ifndef VKM_TWIN64
void vkm_op_grpo_loss(vkm_stream *s, const vkm_args_grpo_loss *a) {
    vkm_args_grpo_loss b = *a;
    VKM_BUG_ON(a->importance > VKM_IMPORTANCE_CLIP, "grpo_loss: importance %u", a->importance);
    b.logp = vkm_need(a->logp, a->n, "grpo_loss", "logp");
    b.logp_old = vkm_need(a->logp_old, a->n, "grpo_loss", "logp_old");
    b.logp_ref = vkm_need(a->logp_ref, a->n, "grpo_loss", "logp_ref");
    b.tok_seq = vkm_need(a->tok_seq, a->n, "grpo_loss", "tok_seq");
    b.coef = vkm_need(a->coef, a->n, "grpo_loss", "coef");
    b.terms = vkm_need(a->terms, (uint64_t)a->n * VKM_TERM_WORDS, "grpo_loss", "terms");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_grpo_loss], &b,
                      vkm_launch_flat(a->n, 64, 200.0 * a->n));
}
#endif

/* k3 estimate of the KL divergence from the base model and its derivative by -logp. It overflows
 * from d = 88.7 on: without a weight (beta 0) it is not computed, since 0 times Inf is NaN. */
typedef struct kl_term {
    real loss, grad;
} kl_term;

static kl_term divergence(real beta, const real *base, real logp) {
    if (beta == 0) return (kl_term){0, 0};
    real d = subc(*base, logp), up = subc(vkm_exp(d), 1);
    return (kl_term){subc(up, d), mulc(beta, up)};
}

/* The policy term of a token and its derivative by logp. */
typedef struct policy_term {
    real loss, grad, rho;
    int clipped;
} policy_term;

static real clamp(real x, real lo, real hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

static policy_term policy(uint32_t importance, real log_ratio, real adv, real lo, real hi) {
    if (importance == VKM_IMPORTANCE_NONE) return (policy_term){0 - adv, 0 - adv, 1, 0};
    real rho = vkm_exp(log_ratio), bound = clamp(rho, lo, hi);
    real free_term = 0 - mulc(rho, adv), bound_term = 0 - mulc(bound, adv);
    if (importance == VKM_IMPORTANCE_TRUNCATED)
        return (policy_term){bound_term, bound_term, rho, rho < lo || rho > hi};
    int clipped = bound_term > free_term;
    return (policy_term){clipped ? bound_term : free_term, clipped ? 0 : free_term, rho, clipped};
}

VKM_REF(grpo_loss) {
    const real *logp = ref_f32(a->logp), *old = ref_f32(a->logp_old), *base = ref_f32(a->logp_ref);
    real lo = subc(1, a->eps_low), hi = addc(1, a->eps_high), beta = a->beta;
    FOR_PART(i, a->n) {
        real *terms = ref_f32(a->terms) + i * VKM_TERM_WORDS;
        uint32_t seq = ref_u32(a->tok_seq)[i];
        if (seq == VKM_TOKEN_PADDING) {
            for (uint32_t j = 0; j < VKM_TERM_WORDS; j++) terms[j] = 0;
            ref_f32(a->coef)[i] = 0;
            continue;
        }
        real weight = ref_f32(a->weight)[seq];
        kl_term kl = divergence(beta, base + i, logp[i]);
        policy_term t = policy(a->importance, subc(logp[i], old[i]), ref_f32(a->adv)[seq], lo, hi);
        real grad = subc(t.grad, kl.grad);
        ref_f32(a->coef)[i] = mulc(mulc(weight, grad), a->loss_scale);
        terms[VKM_TERM_POLICY] = mulc(weight, t.loss);
        terms[VKM_TERM_KL] = mulc(weight, kl.loss);
        terms[VKM_TERM_RATIO] = canon(t.rho);
        terms[VKM_TERM_CLIPPED] = t.clipped;
    }
}
