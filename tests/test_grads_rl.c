/* Derivatives of the loss kernels against central differences, on the double oracle, and the exact
 * tier against the oracle within stated bounds. */
#include <math.h>

#include "bench.h"

#include "ops/grpo.h"
#include "ops/lmhead.h"
#include "ops/router.h"

static const double step = 1e-5, fd_bound = 1e-6;

/* |got - want| relative to the largest |want|: one scale for a whole gradient. */
static void assert_close(const char *what, const double *got, const double *want, uint32_t n,
                         double bound) {
    double worst = 0, size = 0;
    for (uint32_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs(got[i] - want[i]));
        size = fmax(size, fabs(want[i]));
    }
    print_message("%s: error %.1e of %.1e\n", what, worst, size);
    assert_true(size > 0);
    assert_true(worst <= bound * size);
}

typedef double (*objective)(void *ctx);

/* Central differences of f by the n values of x, which ctx's objective reads. */
static void differences(objective f, void *ctx, double *x, uint32_t n, double *out) {
    for (uint32_t i = 0; i < n; i++) {
        double at = x[i], up, down;
        x[i] = at + step;
        up = f(ctx);
        x[i] = at - step;
        down = f(ctx);
        x[i] = at;
        out[i] = (up - down) / (2 * step);
    }
}

/* ---- vocabulary --------------------------------------------------------------------------------
 */
enum { ROWS = 3, VOCAB = 530, LOGITS = ROWS * VOCAB, BLOCKS = 3 };
static const double coef_of[ROWS] = {1.5, -0.25, 2};
static const uint32_t target_of[ROWS] = {0, 300, 529};

typedef struct vocabulary {
    bench b;
    vkm_tensor logits, mb, lb, sb, targets, m, l, logp, entropy;
    double x[LOGITS], out_logp[ROWS], out_entropy[ROWS];
} vocabulary;

static void vocabulary_open(vocabulary *v, vkm_backend_id backend) {
    uint64_t rng = 9;
    v->b = bench_open(backend);
    v->logits = bench_new(&v->b, VKM_F32, LOGITS);
    v->mb = bench_new(&v->b, VKM_F32, ROWS * BLOCKS);
    v->lb = bench_new(&v->b, VKM_F32, ROWS * BLOCKS);
    v->sb = bench_new(&v->b, VKM_F32, ROWS * BLOCKS);
    v->targets = bench_u32(&v->b, ROWS, target_of);
    v->m = bench_new(&v->b, VKM_F32, ROWS);
    v->l = bench_new(&v->b, VKM_F32, ROWS);
    v->logp = bench_new(&v->b, VKM_F32, ROWS);
    v->entropy = bench_new(&v->b, VKM_F32, ROWS);
    for (uint32_t i = 0; i < LOGITS; i++) v->x[i] = (double)(float)(2 * bench_normal(&rng));
}

static double vocabulary_loss(void *ctx) {
    vocabulary *v = ctx;
    bench_write_f64(&v->b, v->logits, v->x);
    VKM_OP(v->b.s, lse_block, .logits = v->logits, .mb = v->mb, .lb = v->lb, .sb = v->sb,
           .n_rows = ROWS, .n_vocab = VOCAB);
    VKM_OP(v->b.s, lse_combine, .logits = v->logits, .mb = v->mb, .lb = v->lb, .sb = v->sb,
           .targets = v->targets, .m = v->m, .l = v->l, .logp = v->logp, .entropy = v->entropy,
           .n_rows = ROWS, .n_vocab = VOCAB);
    bench_run(&v->b);
    bench_read_f64(&v->b, v->logp, v->out_logp);
    bench_read_f64(&v->b, v->entropy, v->out_entropy);
    double loss = 0;
    for (uint32_t i = 0; i < ROWS; i++) loss += coef_of[i] * v->out_logp[i];
    return loss;
}

static void logits_gradient(vocabulary *v, double *out) {
    uint32_t kp = vkm_op_kp(VOCAB);
    uint64_t size = vkm_op_size(ROWS, VOCAB);
    vkm_tensor coef = bench_f64(&v->b, ROWS, coef_of), d = bench_new(&v->b, VKM_BF16, size);
    VKM_OP(v->b.s, logits_bwd, .logits = v->logits, .targets = v->targets, .m = v->m, .l = v->l,
           .coef = coef, .d = d, .n_rows = ROWS, .n_vocab = VOCAB);
    bench_run(&v->b);
    double *all = malloc(sizeof *all * size);
    bench_read_f64(&v->b, d, all);
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t j = 0; j < VOCAB; j++) out[i * VOCAB + j] = all[vkm_op_index(i, j, kp)];
    free(all);
}

static void log_probability(void **state) {
    (void)state;
    static vocabulary v, exact;
    static double got[LOGITS], want[LOGITS], rounded[LOGITS];
    vocabulary_open(&v, VKM_ORACLE);
    differences(vocabulary_loss, &v, v.x, LOGITS, want);
    (void)vocabulary_loss(&v);
    logits_gradient(&v, got);
    assert_close("logits_bwd", got, want, LOGITS, fd_bound);
    for (uint32_t i = 0; i < ROWS; i++) { /* the block formulas against the plain ones */
        const double *x = v.x + i * VOCAB;
        double sum = 0, entropy = 0;
        for (uint32_t j = 0; j < VOCAB; j++) sum += exp(x[j]);
        for (uint32_t j = 0; j < VOCAB; j++) entropy -= exp(x[j]) / sum * (x[j] - log(sum));
        assert_true(fabs(v.out_logp[i] - (x[target_of[i]] - log(sum))) < 1e-12);
        assert_true(fabs(v.out_entropy[i] - entropy) < 1e-12);
    }
    vocabulary_open(&exact, VKM_CPU);
    (void)vocabulary_loss(&exact);
    logits_gradient(&exact, rounded);
    assert_close("logp, exact tier", exact.out_logp, v.out_logp, ROWS, 5e-7);
    assert_close("entropy, exact tier", exact.out_entropy, v.out_entropy, ROWS, 5e-7);
    assert_close("logits_bwd, exact tier (bf16)", rounded, got, LOGITS, 0x1p-8);
    bench_close(&v.b), bench_close(&exact.b);
}

/* ---- policy loss -------------------------------------------------------------------------------
 */
enum { TOKENS = 64, SEQS = 4 };
static const double beta = 0.04, eps_low = 0.2, eps_high = 0.28, loss_scale = 4096;
static const double adv_of[SEQS] = {1.25, -0.75, 0, 2}, weight_of[SEQS] = {0.01, 0.02, 0.03, 0.015};

typedef struct policy {
    bench b;
    vkm_tensor logp, old, base, adv, weight, seq, coef, terms;
    double x[TOKENS], held[TOKENS]; /* held: the factor that `none` and clamped ratios keep */
    uint32_t importance;
} policy;

static void policy_open(policy *p, vkm_backend_id backend, uint32_t importance) {
    double old[TOKENS], base[TOKENS];
    uint32_t seq[TOKENS];
    uint64_t rng = 21;
    *p = (policy){.b = bench_open(backend), .importance = importance};
    for (uint32_t i = 0; i < TOKENS; i++) { /* ratios away from the bounds 0.8 and 1.28 */
        static const double ratios[] = {0.5, 0.75, 0.85, 1, 1.2, 1.35, 2};
        p->x[i] = (double)(float)(-3 * bench_uniform(&rng) - 0.01);
        old[i] = (double)(float)(p->x[i] - log(ratios[i % VKM_COUNTOF(ratios)]));
        base[i] = (double)(float)(p->x[i] + 0.5 * bench_normal(&rng));
        seq[i] = i % 13 == 12 ? VKM_TOKEN_PADDING : i % SEQS;
    }
    p->logp = bench_new(&p->b, VKM_F32, TOKENS);
    p->old = bench_f64(&p->b, TOKENS, old);
    p->base = bench_f64(&p->b, TOKENS, base);
    p->adv = bench_f64(&p->b, SEQS, adv_of);
    p->weight = bench_f64(&p->b, SEQS, weight_of);
    p->seq = bench_u32(&p->b, TOKENS, seq);
    p->coef = bench_new(&p->b, VKM_F32, TOKENS);
    p->terms = bench_new(&p->b, VKM_F32, TOKENS * VKM_TERM_WORDS);
}

static void policy_run(policy *p, double *coef, double *terms) {
    bench_write_f64(&p->b, p->logp, p->x);
    VKM_OP(p->b.s, grpo_loss, .logp = p->logp, .logp_old = p->old, .logp_ref = p->base,
           .adv = p->adv, .weight = p->weight, .tok_seq = p->seq, .coef = p->coef,
           .terms = p->terms, .n = TOKENS, .importance = p->importance, .eps_low = (float)eps_low,
           .eps_high = (float)eps_high, .beta = (float)beta, .loss_scale = (float)loss_scale);
    bench_run(&p->b);
    bench_read_f64(&p->b, p->coef, coef);
    bench_read_f64(&p->b, p->terms, terms);
}

/* The loss whose gradient the kernel gives: the policy terms as they stand, or, where the gradient
 * passes a held ratio, ratio * logp; the KL terms always as they stand. */
static double policy_loss(void *ctx) {
    policy *p = ctx;
    double coef[TOKENS], terms[TOKENS * VKM_TERM_WORDS], loss = 0;
    policy_run(p, coef, terms);
    for (uint32_t i = 0; i < TOKENS; i++) {
        const double *t = terms + (size_t)i * VKM_TERM_WORDS;
        loss += p->held[i] != 0 ? p->held[i] * p->x[i] : t[VKM_TERM_POLICY];
        loss += (double)(float)beta * t[VKM_TERM_KL];
    }
    return loss;
}

static void policy_gradient(void **state) {
    (void)state;
    static const char *names[] = {"grpo_loss, none", "grpo_loss, truncated", "grpo_loss, clip"};
    for (uint32_t importance = 0; importance <= VKM_IMPORTANCE_CLIP; importance++) {
        policy p, exact;
        double coef[TOKENS], terms[TOKENS * VKM_TERM_WORDS], want[TOKENS];
        double rounded[TOKENS], rounded_terms[TOKENS * VKM_TERM_WORDS], clipped = 0;
        policy_open(&p, VKM_ORACLE, importance);
        policy_run(&p, coef, terms);
        for (uint32_t i = 0; i < TOKENS; i++) {
            const double *t = terms + (size_t)i * VKM_TERM_WORDS;
            int held = importance == VKM_IMPORTANCE_NONE ||
                       (importance == VKM_IMPORTANCE_TRUNCATED && t[VKM_TERM_CLIPPED] != 0);
            p.held[i] = held ? t[VKM_TERM_POLICY] : 0;
            clipped += t[VKM_TERM_CLIPPED];
            if (i % 13 == 12) assert_true(coef[i] == 0 && t[VKM_TERM_RATIO] == 0);
        }
        assert_true((clipped > 5) == (importance != VKM_IMPORTANCE_NONE));
        differences(policy_loss, &p, p.x, TOKENS, want);
        for (uint32_t i = 0; i < TOKENS; i++) want[i] *= loss_scale;
        assert_close(names[importance], coef, want, TOKENS, fd_bound);
        policy_open(&exact, VKM_CPU, importance);
        policy_run(&exact, rounded, rounded_terms);
        assert_close("  exact tier", rounded, coef, TOKENS, 1e-6);
        assert_close("  exact tier, terms", rounded_terms, terms, TOKENS * VKM_TERM_WORDS, 1e-6);
        bench_close(&p.b), bench_close(&exact.b);
    }
}

/* The PPO clip on values worked out by hand: rho = 2 and 1/2, bounds 0.8 and 1.28. */
static void clip_by_hand(void **state) {
    (void)state;
    bench b = bench_open(VKM_CPU);
    static const float logp[4] = {-1, -1, -1, -1}, adv[2] = {1, -1}, weight[2] = {1, 1};
    static const uint32_t seq[4] = {0, 0, 1, 1};
    static const float want[4] = {0, -0.5f, 2, 0}; /* dL/dlogp */
    float old[4], coef[4];
    for (int i = 0; i < 4; i++) old[i] = i % 2 ? -1 + logf(2) : -1 - logf(2);
    vkm_tensor lp = bench_f32(&b, 4, logp), t_coef = bench_new(&b, VKM_F32, 4);
    VKM_OP(b.s, grpo_loss, .logp = lp, .logp_old = bench_f32(&b, 4, old), .logp_ref = lp,
           .adv = bench_f32(&b, 2, adv), .weight = bench_f32(&b, 2, weight),
           .tok_seq = bench_u32(&b, 4, seq), .coef = t_coef, .terms = bench_new(&b, VKM_F32, 16),
           .n = 4, .importance = VKM_IMPORTANCE_CLIP, .eps_low = 0.2f, .eps_high = 0.28f,
           .beta = 0.1f, .loss_scale = 1);
    bench_run(&b);
    bench_read(&b, t_coef, coef);
    bench_close(&b);
    for (int i = 0; i < 4; i++) assert_true(fabsf(coef[i] - want[i]) < 1e-6f);
}

/* ---- router ------------------------------------------------------------------------------------
 */
enum { POOLED = 5, COLS = 150 };

typedef struct router {
    bench b;
    vkm_tensor a, mu, u, cal, s, z, w, inv, dw, dz, du, db;
    double x[COLS + 1]; /* u, then b */
    uint32_t linear;
} router;

static const double dw_of[POOLED] = {0.5, -1, 2, 0.25, -0.125}, alpha = 6;

static void router_open(router *r, vkm_backend_id backend) {
    double a[POOLED * COLS], mu[COLS];
    uint64_t rng = 33;
    *r = (router){.b = bench_open(backend)};
    for (uint32_t i = 0; i < POOLED * COLS; i++) a[i] = (double)(float)bench_normal(&rng);
    for (uint32_t i = 0; i < COLS; i++) mu[i] = (double)(float)(0.3 * bench_normal(&rng));
    for (uint32_t i = 0; i < COLS; i++) r->x[i] = (double)(float)bench_normal(&rng);
    r->x[COLS] = 0.125;
    r->a = bench_f64(&r->b, POOLED * COLS, a);
    r->mu = bench_f64(&r->b, COLS, mu);
    r->u = bench_new(&r->b, VKM_F32, COLS);
    r->cal = bench_new(&r->b, VKM_F32, VKM_CAL_WORDS);
    r->s = bench_new(&r->b, VKM_F32, POOLED);
    r->z = bench_new(&r->b, VKM_F32, POOLED);
    r->w = bench_new(&r->b, VKM_F32, POOLED);
    r->inv = bench_new(&r->b, VKM_F32, (uint64_t)2 * POOLED);
    r->dw = bench_f64(&r->b, POOLED, dw_of);
    r->dz = bench_new(&r->b, VKM_F32, POOLED);
    r->du = bench_new(&r->b, VKM_F32, COLS);
    r->db = bench_new(&r->b, VKM_F32, 1);
}

static double router_loss(void *ctx) {
    router *r = ctx;
    double w[POOLED], cal[VKM_CAL_WORDS] = {r->x[COLS], r->linear ? alpha / COLS : alpha}, loss = 0;
    bench_write_f64(&r->b, r->u, r->x);
    bench_write_f64(&r->b, r->cal, cal);
    VKM_OP(r->b.s, router_fwd, .a = r->a, .mu = r->mu, .u = r->u, .cal = r->cal, .s = r->s,
           .z = r->z, .w = r->w, .inv = r->inv, .n_rows = POOLED, .n_cols = COLS,
           .linear = r->linear);
    bench_run(&r->b);
    bench_read_f64(&r->b, r->w, w);
    for (uint32_t i = 0; i < POOLED; i++) loss += dw_of[i] * w[i];
    return loss;
}

/* Backward in two calls, rows 0 and 1, then the rest: gradients add up. */
static void router_gradient(router *r, double *out) {
    (void)router_loss(r);
    VKM_OP(r->b.s, router_dz, .w = r->w, .dw = r->dw, .dz = r->dz, .n = POOLED);
    for (uint32_t part = 0; part < 2; part++) {
        uint32_t first = part ? 2 : 0, n = part ? POOLED - 2 : 2;
        VKM_OP(r->b.s, router_bwd, .a = vkm_view(r->a, first * COLS, n * COLS), .mu = r->mu,
               .u = r->u, .cal = r->cal, .s = vkm_view(r->s, first, n),
               .inv = vkm_view(r->inv, 2 * first, 2 * n), .dz = vkm_view(r->dz, first, n),
               .du = r->du, .db = r->db, .n_rows = n, .n_cols = COLS, .linear = r->linear);
    }
    bench_run(&r->b);
    bench_read_f64(&r->b, r->du, out);
    bench_read_f64(&r->b, r->db, out + COLS);
}

static void check_router(uint32_t linear) {
    router r, exact;
    double got[COLS + 1], want[COLS + 1], rounded[COLS + 1], w[POOLED], rounded_w[POOLED];
    router_open(&r, VKM_ORACLE);
    r.linear = linear;
    differences(router_loss, &r, r.x, COLS + 1, want);
    router_gradient(&r, got);
    assert_close("router_bwd, u", got, want, COLS, fd_bound);
    assert_close("router_bwd, b", got + COLS, want + COLS, 1, fd_bound);
    router_open(&exact, VKM_CPU);
    exact.linear = linear;
    router_gradient(&exact, rounded);
    bench_read_f64(&r.b, r.w, w);
    bench_read_f64(&exact.b, exact.w, rounded_w);
    assert_close("w, exact tier", rounded_w, w, POOLED, 1e-6);
    assert_close("router_bwd, exact tier", rounded, got, COLS + 1, 2e-6);
    bench_close(&r.b), bench_close(&exact.b);
}

static void router_by_difference(void **state) {
    (void)state;
    check_router(0);
    check_router(1);
}

/* beta 0: whatever the base model says, overflow and NaN too, the policy gradient is all there is;
 * beta > 0 pulls toward it, by beta (exp(d) - 1). */
static void without_a_weight_the_base_is_not_read(void **state) {
    (void)state;
    enum { N = 6 };
    static const float base[N] = {0, 88, 1000, 3e38f, INFINITY, NAN}, zeros[N] = {0};
    static const uint32_t tok_seq[N] = {0};
    const float adv = 1.5f, weight = 0.25f;
    for (int pulls = 0; pulls < 2; pulls++) {
        float coef[N], terms[N][VKM_TERM_WORDS];
        bench b = bench_open(VKM_CPU);
        vkm_tensor c = bench_new(&b, VKM_F32, N), t = bench_new(&b, VKM_F32, sizeof terms / 4);
        VKM_OP(b.s, grpo_loss, .logp = bench_f32(&b, N, zeros), .logp_old = bench_f32(&b, N, zeros),
               .logp_ref = bench_f32(&b, N, base), .adv = bench_f32(&b, 1, &adv),
               .weight = bench_f32(&b, 1, &weight), .tok_seq = bench_u32(&b, N, tok_seq), .coef = c,
               .terms = t, .n = N, .importance = VKM_IMPORTANCE_NONE, .eps_low = 0.2f,
               .eps_high = 0.2f, .beta = pulls ? 0.5f : 0, .loss_scale = 1);
        bench_run(&b);
        bench_read(&b, c, coef);
        bench_read(&b, t, terms);
        for (int i = 0; i < N && !pulls; i++) {
            assert_true(coef[i] == -0.375f);
            assert_true(terms[i][VKM_TERM_KL] == 0 && terms[i][VKM_TERM_POLICY] == -0.375f);
        }
        if (pulls) {
            assert_true(coef[0] == -0.375f && coef[1] < -1e37f && isfinite(coef[1]));
            for (int i = 2; i < N; i++) assert_false(isfinite(coef[i])); /* the step is skipped */
        }
        bench_close(&b);
    }
}

/* ---- pin loss ----------------------------------------------------------------------------------
 */
enum { PAIRS = 5 };

typedef struct pin {
    bench b;
    vkm_tensor z, w, loss, dz;
    double x[2 * PAIRS];
} pin;

static double pin_value(void *ctx) {
    pin *p = ctx;
    double w[2 * PAIRS], loss;
    for (uint32_t i = 0; i < 2 * PAIRS; i++) w[i] = 1 / (1 + exp(-p->x[i]));
    bench_write_f64(&p->b, p->z, p->x);
    bench_write_f64(&p->b, p->w, w);
    VKM_OP(p->b.s, pin_loss, .z = p->z, .w = p->w, .loss = p->loss, .dz = p->dz, .n_pairs = PAIRS,
           .coef = 0.5f, .scale = 16);
    bench_run(&p->b);
    bench_read_f64(&p->b, p->loss, &loss);
    return loss;
}

static void pin_by_difference(void **state) {
    (void)state;
    static const double z[2 * PAIRS] = {2, -1, 0.5, 3, -4, -2, 1, -0.5, 0.25, 5};
    pin p[2];
    double got[2][2 * PAIRS], want[2 * PAIRS], loss[2], plain = 0;
    for (int i = 0; i < 2; i++) {
        p[i].b = bench_open(i ? VKM_CPU : VKM_ORACLE);
        p[i].z = bench_new(&p[i].b, VKM_F32, (uint64_t)2 * PAIRS);
        p[i].w = bench_new(&p[i].b, VKM_F32, (uint64_t)2 * PAIRS);
        p[i].loss = bench_new(&p[i].b, VKM_F32, 1);
        p[i].dz = bench_new(&p[i].b, VKM_F32, (uint64_t)2 * PAIRS);
        memcpy(p[i].x, z, sizeof z);
        if (i == 0) differences(pin_value, &p[i], p[i].x, 2 * PAIRS, want);
        loss[i] = pin_value(&p[i]);
        bench_read_f64(&p[i].b, p[i].dz, got[i]);
        bench_close(&p[i].b);
    }
    for (uint32_t i = 0; i < 2 * PAIRS; i++) {
        want[i] *= 16;
        plain -= log(1 / (1 + exp(i < PAIRS ? -z[i] : z[i]))) * 0.5 / 2 / PAIRS;
    }
    assert_true(fabs(loss[0] - plain) < 1e-12);
    assert_close("pin_loss", got[0], want, 2 * PAIRS, fd_bound);
    assert_close("pin_loss, exact tier", got[1], got[0], 2 * PAIRS, 1e-6);
    assert_close("pin_loss, exact tier, value", &loss[1], &loss[0], 1, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_probability),
        cmocka_unit_test(policy_gradient),
        cmocka_unit_test(clip_by_hand),
        cmocka_unit_test(router_by_difference),
        cmocka_unit_test(pin_by_difference),
        cmocka_unit_test(without_a_weight_the_base_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
