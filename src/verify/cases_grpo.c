#include <math.h>

#include "ops/grpo.h"
#include "verify/verify.h"

/* Differences to the base model at which exp overflows, vanishes, or is no number; beta 0 must not
 * look at them. */
static void far_from_base(vkm_verify *v, float beta) {
    static const float d[] = {0,   -0.0f, 88,   88.72283f, 88.72284f, 89,        200, 1e30f,
                              -88, -104,  -200, -1e30f,    INFINITY,  -INFINITY, NAN, 3e38f};
    enum { N = VKM_COUNTOF(d) };
    float logp[N], adv = 1.5f, weight = 0.25f;
    uint32_t tok_seq[N] = {0};
    for (uint32_t i = 0; i < N; i++) logp[i] = i % 3 ? 0.0f : -0.5f;
    for (uint32_t importance = 0; importance <= VKM_IMPORTANCE_CLIP; importance++) {
        vkm_args_grpo_loss a = {.n = N,
                                .importance = importance,
                                .eps_low = 0.2f,
                                .eps_high = 0.28f,
                                .beta = beta,
                                .loss_scale = 0x1p24f};
        a.logp = vkm_v_f32_data(v, logp, N);
        a.logp_old = vkm_v_f32_data(v, logp, N);
        a.logp_ref = vkm_v_f32_data(v, d, N);
        a.adv = vkm_v_f32_data(v, &adv, 1);
        a.weight = vkm_v_f32_data(v, &weight, 1);
        a.tok_seq = vkm_v_u32_data(v, tok_seq, N);
        a.coef = vkm_v_f32_out(v, N);
        a.terms = vkm_v_f32_out(v, (uint64_t)N * VKM_TERM_WORDS);
        VKM_V_RUN(v, grpo_loss, &a);
    }
}

VKM_CASES(grpo_loss) {
    enum { SEQS = 5 };
    far_from_base(v, 0);
    far_from_base(v, 1e-3f);
    for (uint32_t importance = 0; importance <= VKM_IMPORTANCE_CLIP; importance++)
        FOR_SIZES(n, 1, 63, 64, 65, 127) {
            vkm_args_grpo_loss a = {.n = n,
                                    .importance = importance,
                                    .eps_low = 0.2f,
                                    .eps_high = 0.28f,
                                    .beta = 1e-3f,
                                    .loss_scale = 0x1p24f};
            vkm_fill fill = n == 65 ? VKM_FILL_WIDE : VKM_FILL_NORMAL;
            a.logp = vkm_v_f32(v, n, fill);
            a.logp_old = vkm_v_f32(v, n, fill);
            a.logp_ref = vkm_v_f32(v, n, fill);
            a.adv = vkm_v_f32(v, SEQS, VKM_FILL_NORMAL);
            a.weight = vkm_v_f32(v, SEQS, VKM_FILL_POSITIVE);
            uint32_t tok_seq[127];
            for (uint32_t i = 0; i < n; i++)
                tok_seq[i] = i % 11 == 10 ? VKM_TOKEN_PADDING : vkm_v_random(v, SEQS);
            a.tok_seq = vkm_v_u32_data(v, tok_seq, n);
            a.coef = vkm_v_f32_out(v, n);
            a.terms = vkm_v_f32_out(v, (uint64_t)n * VKM_TERM_WORDS);
            VKM_V_RUN(v, grpo_loss, &a);
        }
}
