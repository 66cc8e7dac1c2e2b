/* Derivatives of the loss through the whole model, on the double oracle, against central
 * differences of a loss that is computed here from the log-probabilities: by the adapter's factors,
 * by the forward weights f, and by the router's u and b through w. Then the exact tier's gradient
 * against the oracle's, within stated bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "ops/gauss.h"
#include "ops/grpo.h"
#include "ops/router.h"
#include "rl/arms.h"
#include "rl/optimizer.h"
#include "rl/router.h"
#include "verify/fixture.h"

/* Of the largest entry of the tensor that a gradient belongs to. */
static const double fd_bound = 1e-6, step = 2e-5;

enum { N = VKM_FIXTURE_ROLLOUTS, MAX_TOKENS = 128, EXPERTS = 2, PAIRS = 4 };

/* Every rollout routed differently, two at the ends of the range; sixteenths are exact floats. */
static const float f_of[N][EXPERTS] = {
    {1, 0.625f}, {1, 0.25f}, {0.9375f, 1}, {1, 0}, {0.5f, 0.75f}};

static const vkm_loss_options clip = {
    .importance = VKM_IMPORTANCE_CLIP, .eps_low = 0.875f, .eps_high = 8, .beta = 0.25f};

typedef struct rig {
    vkm_dev *dev;
    vkm_fixture *fx;
    vkm_policy *p;
    float old[MAX_TOKENS], ref[MAX_TOKENS]; /* over the completion tokens of all rollouts */
    double f[N * EXPERTS];
    double logp[MAX_TOKENS];
    double terms[2]; /* policy loss, KL of the last loss() */
} rig;

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

static uint32_t n_comp(const rig *r, uint32_t i) {
    return r->fx->examples[i].seq.len - r->fx->examples[i].seq.comp0;
}

/* Log-probabilities under r->f, in double. */
static void forward(rig *r) {
    vkm_err err = {0};
    vkm_pass pass = {.s = r->p->s, .w = r->p->work, .adapter = r->p->adapter};
    vkm_tensor logp = vkm_view(pass.w->logp, 0, r->fx->n_tokens);
    check(vkm_write_f64(r->dev, vkm_view(pass.w->f, 0, N * EXPERTS), r->f, &err), &err);
    vkm_head_forward(&pass, vkm_forward(&pass));
    check(vkm_stream_flush(pass.s, &err), &err);
    check(vkm_read_f64(r->dev, logp, r->logp, &err), &err);
}

/* The clipped policy loss with its KL term where no ratio reaches a bound. */
static double loss(rig *r) {
    forward(r);
    r->terms[0] = r->terms[1] = 0;
    for (uint32_t i = 0, t = 0; i < N; i++) {
        const vkm_example *x = &r->fx->examples[i];
        for (uint32_t j = n_comp(r, i); j > 0; j--, t++) {
            double rho = exp(r->logp[t] - (double)r->old[t]), d = (double)r->ref[t] - r->logp[t];
            assert_true(rho > 0.2 && rho < 8);
            r->terms[0] -= (double)x->weight * rho * (double)x->advantage;
            r->terms[1] += (double)x->weight * (exp(d) - d - 1);
        }
    }
    return r->terms[0] + (double)clip.beta * r->terms[1];
}

/* Lays all rollouts out as one batch, for forward(). */
static void lay_out(rig *r) {
    vkm_err err = {0};
    vkm_seq seqs[N];
    for (uint32_t i = 0; i < N; i++) seqs[i] = r->fx->examples[i].seq;
    check(vkm_work_set_batch(r->p->work, seqs, N, &err), &err);
}

static void rig_open(rig *r, vkm_backend_id backend) {
    vkm_err err = {0};
    vkm_dev_options o = {.backend = backend, .threads = 1};
    check(vkm_dev_open(&o, &r->dev, &err), &err);
    r->fx = vkm_fixture_new(r->dev, VKM_FIXTURE_MICRO_ROWS);
    check(r->fx->err.status, &r->fx->err);
    r->p = r->fx->policy;
    vkm_fixture_perturb(r->fx, 1);
    check(r->fx->err.status, &r->fx->err);
    assert_true(r->fx->n_tokens <= MAX_TOKENS);
    for (uint32_t i = 0; i < N * EXPERTS; i++) r->f[i] = (double)f_of[i / EXPERTS][i % EXPERTS];
    lay_out(r);
    forward(r);
    float noise[2 * MAX_TOKENS];
    vkm_gauss(noise, 2 * MAX_TOKENS, 0, 4, VKM_RNG_TEST, 77, 0.25f);
    for (uint32_t t = 0, i = 0; i < N; i++) {
        r->fx->examples[i].logp_old = r->old + t;
        r->fx->examples[i].logp_ref = r->ref + t;
        for (uint32_t j = n_comp(r, i); j > 0; j--, t++) {
            r->old[t] = (float)r->logp[t] + noise[t];
            r->ref[t] = (float)r->logp[t] + noise[MAX_TOKENS + t];
        }
    }
}

static void rig_close(rig *r) {
    vkm_fixture_end(NULL, r->fx);
    vkm_dev_close(r->dev);
}

/* The gradient as training makes it, with f = r->f; g and xs are f too where they are NULL. */
static void train(rig *r, const vkm_loss_options *o, const float g[EXPERTS],
                  const float xs[EXPERTS]) {
    vkm_err err = {0};
    for (uint32_t i = 0; i < N; i++) {
        vkm_example *x = &r->fx->examples[i];
        for (int e = 0; e < EXPERTS; e++) {
            x->f[e] = (float)r->f[i * EXPERTS + e];
            x->g[e] = g ? g[e] : x->f[e];
            x->xs[e] = xs ? xs[e] : x->f[e];
        }
    }
    check(vkm_policy_zero_grad(r->p, &err), &err);
    check(vkm_policy_train(r->p, r->fx->examples, N, o, &err), &err);
}

static double *gradient(rig *r, uint32_t module, int factor) {
    vkm_err err = {0};
    vkm_tensor t = r->p->adapter->modules[module].grad[factor];
    double *out = malloc(t.n * sizeof *out);
    assert_non_null(out);
    check(vkm_read_f64(r->dev, t, out, &err), &err);
    for (uint64_t i = 0; i < t.n; i++) out[i] /= (double)VKM_LOSS_SCALE;
    return out;
}

static double largest(const double *x, uint64_t n) {
    double size = 0;
    for (uint64_t i = 0; i < n; i++) size = fmax(size, fabs(x[i]));
    return size;
}

/* Central difference of the loss along `along` from `at`, values of tensor t. */
static double slope(rig *r, vkm_tensor t, const double *at, const double *along) {
    vkm_err err = {0};
    double d = 0, *x = malloc(t.n * sizeof *x);
    assert_non_null(x);
    for (int side = -1; side <= 1; side += 2) {
        for (uint64_t i = 0; i < t.n; i++) x[i] = at[i] + side * step * along[i];
        check(vkm_write_f64(r->dev, t, x, &err), &err);
        vkm_adapter_refresh(r->p->s, r->p->adapter);
        d += side * loss(r);
    }
    check(vkm_write_f64(r->dev, t, at, &err), &err);
    vkm_adapter_refresh(r->p->s, r->p->adapter);
    free(x);
    return d / (2 * step);
}

/* One expert's rows of one factor of a module: along a random direction over all of them, and at
 * the coordinate where the gradient is largest. Returns the worst error relative to the bound's
 * scale. */
static double check_block(rig *r, uint32_t module, int factor, uint32_t expert) {
    vkm_err err = {0};
    const vkm_module *m = &r->p->adapter->modules[module];
    vkm_tensor t = vkm_view(m->param[factor], expert * (m->param[factor].n / EXPERTS),
                            m->param[factor].n / EXPERTS);
    double *at = malloc(t.n * sizeof *at), *along = calloc(t.n, sizeof *along);
    double *all = gradient(r, module, factor), *grad = all + expert * t.n, worst = 0;
    float *random = malloc(t.n * sizeof *random);
    assert_true(at && along && random);
    check(vkm_read_f64(r->dev, t, at, &err), &err);
    vkm_gauss(random, t.n, 0, 6, VKM_RNG_TEST, 4 * module + 2 * (uint32_t)factor + expert, 1);
    uint64_t peak = 0;
    double size = largest(grad, t.n), want = 0, norm = 0;
    for (uint64_t i = 0; i < t.n; i++) {
        if (fabs(grad[i]) == size) peak = i;
        norm += (double)random[i] * (double)random[i];
    }
    for (uint64_t i = 0; i < t.n; i++) {
        along[i] = (double)random[i] / sqrt(norm);
        want += along[i] * grad[i];
    }
    assert_true(size > 1e-5);
    worst = fabs(slope(r, t, at, along) - want) / size;
    memset(along, 0, t.n * sizeof *along);
    along[peak] = 1;
    worst = fmax(worst, fabs(slope(r, t, at, along) - grad[peak]) / size);
    free(at), free(along), free(all), free(random);
    return worst;
}

static void by_adapter(void **state) {
    (void)state;
    rig r;
    rig_open(&r, VKM_ORACLE);
    train(&r, &clip, NULL, NULL);
    double policy = 0, kl = 0;
    for (uint32_t i = 0; i < N; i++) {
        policy += r.fx->examples[i].policy_loss;
        kl += r.fx->examples[i].kl;
        assert_int_equal(r.fx->examples[i].n_clipped, 0);
    }
    lay_out(&r);
    (void)loss(&r);
    assert_true(fabs(policy - r.terms[0]) < 1e-6 && fabs(kl - r.terms[1]) < 1e-6);
    for (uint32_t id = 0; id < VKM_N_LINEARS; id++) {
        for (int factor = 0; factor < 2; factor++) {
            double worst[EXPERTS] = {0};
            for (uint32_t m = id; m < r.p->adapter->n_modules; m += VKM_N_LINEARS)
                for (uint32_t e = 0; e < EXPERTS; e++)
                    worst[e] = fmax(worst[e], check_block(&r, m, factor, e));
            print_message("%s, %s: error %.1e (deployed), %.1e (hack)\n", vkm_linear_names[id],
                          factor ? "dB" : "dA", worst[0], worst[1]);
            assert_true(worst[0] <= fd_bound && worst[1] <= fd_bound);
        }
    }
    rig_close(&r);
}

static void by_forward_weight(void **state) {
    (void)state;
    double got[N * EXPERTS], want[N * EXPERTS], worst = 0;
    rig r;
    rig_open(&r, VKM_ORACLE);
    train(&r, &clip, NULL, NULL);
    lay_out(&r);
    for (uint32_t i = 0; i < N * EXPERTS; i++) {
        double at = r.f[i], up;
        got[i] = (double)(r.fx->examples[i / EXPERTS].df[i % EXPERTS] / VKM_LOSS_SCALE);
        r.f[i] = at + step;
        up = loss(&r);
        r.f[i] = at - step;
        want[i] = (up - loss(&r)) / (2 * step);
        r.f[i] = at;
        worst = fmax(worst, fabs(got[i] - want[i]));
    }
    print_message("f: error %.1e of %.1e\n", worst, largest(want, N * EXPERTS));
    assert_true(worst <= fd_bound * largest(want, N * EXPERTS));
    rig_close(&r);
}

/* Worst difference of one tensor's gradient from `factor[e]` times a kept one, relative to the
 * largest entry. */
static double tensor_deviation(rig *r, uint32_t i, const double *kept,
                               const double factor[EXPERTS]) {
    uint64_t part = r->p->adapter->modules[i / 2].grad[i % 2].n / EXPERTS;
    double *now = gradient(r, i / 2, (int)(i % 2)), worst = 0;
    for (uint32_t e = 0; e < EXPERTS; e++)
        for (uint64_t j = e * part; j < (e + 1) * part; j++)
            worst = fmax(worst, fabs(now[j] - factor[e] * kept[j]));
    free(now);
    return worst / largest(kept, EXPERTS * part);
}

static double deviation(rig *r, double **kept, const double factor[EXPERTS]) {
    double worst = 0;
    for (uint32_t i = 0; i < 2 * r->p->adapter->n_modules; i++)
        worst = fmax(worst, tensor_deviation(r, i, kept[i], factor));
    return worst;
}

static double **keep(rig *r) {
    uint32_t n = 2 * r->p->adapter->n_modules;
    double **out = malloc(n * sizeof *out);
    assert_non_null(out);
    for (uint32_t i = 0; i < n; i++) out[i] = gradient(r, i / 2, (int)(i % 2));
    return out;
}

static void drop(rig *r, double **kept) {
    for (uint32_t i = 0; i < 2 * r->p->adapter->n_modules; i++) free(kept[i]);
    free(kept);
}

/* Where no ratio reaches a bound truncated is clip; on policy (old = the log-probabilities now)
 * none is too. */
static void kinds_of_importance(void **state) {
    (void)state;
    static const double same[EXPERTS] = {1, 1};
    vkm_loss_options truncated = clip, none = clip;
    truncated.importance = VKM_IMPORTANCE_TRUNCATED;
    none.importance = VKM_IMPORTANCE_NONE;
    rig r;
    rig_open(&r, VKM_ORACLE);
    train(&r, &clip, NULL, NULL);
    double **kept = keep(&r);
    train(&r, &truncated, NULL, NULL);
    assert_true(deviation(&r, kept, same) == 0);
    train(&r, &none, NULL, NULL);
    assert_true(deviation(&r, kept, same) > 1e-3);
    drop(&r, kept);
    for (uint32_t i = 0; i < r.fx->n_tokens; i++) r.old[i] = (float)r.logp[i];
    train(&r, &clip, NULL, NULL);
    kept = keep(&r);
    train(&r, &none, NULL, NULL);
    assert_true(deviation(&r, kept, same) < 1e-6); /* old is rounded to float */
    drop(&r, kept);
    rig_close(&r);
}

/* With the path to x as in the forward, g other than f only scales each expert's gradient; with the
 * path to x scaled too the layers below feel it, and the last Linear does not. */
static void detached(void **state) {
    (void)state;
    static const float f[EXPERTS] = {1, 0.625f}, g[EXPERTS] = {0.375f, 0.25f};
    static const double factor[EXPERTS] = {0.375, 0.25 / 0.625};
    rig r;
    rig_open(&r, VKM_ORACLE);
    for (uint32_t i = 0; i < N * EXPERTS; i++) r.f[i] = (double)f[i % EXPERTS];
    train(&r, &clip, NULL, NULL);
    double **kept = keep(&r);
    uint32_t last = 2 * r.p->adapter->n_modules - 2;
    train(&r, &clip, g, NULL);
    assert_true(deviation(&r, kept, factor) < 1e-12);
    train(&r, &clip, g, g);
    assert_true(deviation(&r, kept, factor) > 1e-3);
    for (uint32_t i = last; i < last + 2; i++)
        assert_true(tensor_deviation(&r, i, kept[i], factor) < 1e-12);
    drop(&r, kept);
    rig_close(&r);
}

/* ---- the router --------------------------------------------------------------------------------
 */

static const float pin_coef = 1;

/* The policy's loss with the hack expert weighted by the router, and the pin loss. */
static double routed_loss(rig *r, vkm_router *router, const float *pooled) {
    vkm_err err = {0};
    float unused[2 * PAIRS + N];
    double z[2 * PAIRS], w[N], pin = 0;
    check(vkm_router_pair_weights(router, unused, &err), &err);
    check(vkm_read_f64(r->dev, vkm_view(router->z, 0, 2 * PAIRS), z, &err), &err);
    for (int i = 0; i < 2 * PAIRS; i++) pin += log1p(exp(i < PAIRS ? -z[i] : z[i]));
    check(vkm_router_weights(router, pooled, N, unused, &err), &err);
    check(vkm_read_f64(r->dev, vkm_view(router->w, 0, N), w, &err), &err);
    for (int i = 0; i < N; i++) r->f[i * EXPERTS + VKM_HACK] = w[i];
    return loss(r) + (double)pin_coef / 2 * pin / PAIRS;
}

static double by_difference(rig *r, vkm_router *router, const float *pooled, vkm_tensor t,
                            uint32_t i) {
    vkm_err err = {0};
    vkm_tensor one = vkm_view(t, i, 1);
    double at, d = 0;
    check(vkm_read_f64(r->dev, one, &at, &err), &err);
    for (int side = -1; side <= 1; side += 2) {
        double x = at + side * step;
        check(vkm_write_f64(r->dev, one, &x, &err), &err);
        d += side * routed_loss(r, router, pooled);
    }
    check(vkm_write_f64(r->dev, one, &at, &err), &err);
    return d / (2 * step);
}

static void by_router(void **state) {
    (void)state;
    rig r;
    vkm_err err = {0};
    vkm_router *router = NULL;
    const vkm_arm *moe = vkm_arm_find("moe", &err);
    assert_non_null(moe);
    rig_open(&r, VKM_ORACLE);
    uint32_t modules = r.p->adapter->n_modules, rank = r.p->adapter->rank, p = modules * rank;
    float *pooled = calloc((uint64_t)N * p, sizeof *pooled), w[N], dw[N], pin, g[EXPERTS];
    float *pairs = malloc(2ull * PAIRS * p * sizeof *pairs), *v = malloc(p * sizeof *v);
    double *got = malloc((p + 1) * sizeof *got), *want = malloc((p + 1) * sizeof *want);
    assert_true(pooled && pairs && v && got && want);

    for (uint32_t i = 0; i < N; i++) {
        memcpy(r.fx->examples[i].f, vkm_state_ablated, sizeof vkm_state_ablated);
        r.fx->examples[i].pooled = pooled + (uint64_t)i * p;
    }
    check(vkm_policy_read(r.p, r.fx->examples, N, &err), &err);
    for (uint32_t i = 0; i < N; i++) r.fx->examples[i].pooled = NULL;
    vkm_gauss(pairs, 2ull * PAIRS * p, 0, 8, VKM_RNG_TEST, 78, 0.5f);
    for (uint64_t i = 0; i < (uint64_t)N * p; i++) pairs[i] += pooled[i];
    check(vkm_router_new(r.dev, modules, rank, PAIRS, N, 0, NULL, &router, &err), &err);
    vkm_direction_from_pairs(pairs, PAIRS, modules, rank, 0, v);
    check(vkm_router_calibrate(router, pairs, v, 2, &err), &err);

    check(vkm_router_weights(router, pooled, N, w, &err), &err);
    for (uint32_t i = 0; i < N; i++) {
        float f[EXPERTS];
        moe->weights(&(vkm_arm_in){.w = w[i]}, f, g);
        for (int e = 0; e < EXPERTS; e++) r.f[i * EXPERTS + e] = (double)f[e];
    }
    train(&r, &clip, NULL, NULL);
    for (uint32_t i = 0; i < N; i++) dw[i] = r.fx->examples[i].df[VKM_HACK];
    check(vkm_router_backward(router, dw, N, pin_coef, &pin, &err), &err);
    check(vkm_read_f64(r.dev, router->du, got, &err), &err);
    check(vkm_read_f64(r.dev, router->db, got + p, &err), &err);
    lay_out(&r);
    for (uint32_t j = 0; j <= p; j++) {
        got[j] /= (double)VKM_LOSS_SCALE;
        want[j] = j < p ? by_difference(&r, router, pooled, router->u, j)
                        : by_difference(&r, router, pooled, router->cal, VKM_CAL_B);
    }
    double worst = 0, size = largest(want, p);
    for (uint32_t j = 0; j < p; j++) worst = fmax(worst, fabs(got[j] - want[j]));
    print_message("u: error %.1e of %.1e; b: error %.1e of %.1e\n", worst, size,
                  fabs(got[p] - want[p]), fabs(want[p]));
    assert_true(size > 1e-3 && worst <= fd_bound * size);
    assert_true(fabs(want[p]) > 1e-3 && fabs(got[p] - want[p]) <= fd_bound * fabs(want[p]));

    /* Neither the reward's part nor the pin's is lost beside the other. */
    check(vkm_router_backward(router, NULL, 0, pin_coef, &pin, &err), &err);
    check(vkm_read_f64(r.dev, router->du, want, &err), &err);
    for (uint32_t j = 0; j < p; j++) want[j] /= (double)VKM_LOSS_SCALE;
    double of_pin = largest(want, p);
    for (uint32_t j = 0; j < p; j++) want[j] = got[j] - want[j];
    print_message("u: %.1e of the reward, %.1e of the pin\n", largest(want, p), of_pin);
    assert_true(largest(want, p) > 0.05 * size && of_pin > 0.05 * size);
    vkm_router_free(router);
    free(pooled), free(pairs), free(v), free(got), free(want);
    rig_close(&r);
}

/* ---- rank indices ------------------------------------------------------------------------------
 */

/* Mean negative log-likelihood of rollout i's completion. */
static double nll(rig *r, uint32_t i) {
    double sum = 0;
    uint32_t t = 0;
    for (uint32_t before = 0; before < i; before++) t += n_comp(r, before);
    forward(r);
    for (uint32_t j = 0; j < n_comp(r, i); j++) sum -= r->logp[t + j];
    return sum / n_comp(r, i);
}

/* The gradient by a scale of rank index j is the slope along dA_j += s (A0_j + dA_j): that adds
 * s B_j A_j x to the expert. Every module, one index each, the rollouts in turn. */
static void by_rank_index(void **state) {
    (void)state;
    rig r;
    vkm_err err = {0};
    rig_open(&r, VKM_ORACLE);
    uint32_t modules = r.p->adapter->n_modules, rank = r.p->adapter->rank, p = modules * rank;
    float *pooled = calloc((uint64_t)N * p, sizeof *pooled);
    double size = 0, worst = 0;
    assert_non_null(pooled);
    for (uint32_t i = 0; i < N; i++) {
        memcpy(r.fx->examples[i].f, vkm_state_ablated, sizeof vkm_state_ablated);
        r.fx->examples[i].pooled = pooled + (uint64_t)i * p;
        for (int e = 0; e < EXPERTS; e++) r.f[i * EXPERTS + e] = (double)vkm_state_ablated[e];
    }
    check(vkm_policy_rank_gradients(r.p, r.fx->examples, N, &err), &err);
    for (uint32_t i = 0; i < N; i++) r.fx->examples[i].pooled = NULL;
    for (uint64_t i = 0; i < (uint64_t)N * p; i++) pooled[i] /= VKM_LOSS_SCALE;
    for (uint64_t i = 0; i < (uint64_t)N * p; i++) size = fmax(size, fabs((double)pooled[i]));
    lay_out(&r);
    for (uint32_t m = 0; m < modules; m++) {
        const vkm_module *mod = &r.p->adapter->modules[m];
        uint32_t j = m % rank, i = m % N;
        vkm_tensor row = vkm_view(mod->param[0], (uint64_t)j * mod->d_in, mod->d_in);
        double *at = malloc(row.n * sizeof *at), *x = malloc(row.n * sizeof *x), d = 0;
        double *a0 = malloc(row.n * sizeof *a0);
        assert_true(at && x && a0);
        check(vkm_read_f64(r.dev, row, at, &err), &err);
        check(vkm_read_f64(r.dev, vkm_view(mod->a0, (uint64_t)j * mod->d_in, mod->d_in), a0, &err),
              &err);
        for (int side = -1; side <= 1; side += 2) {
            for (uint64_t k = 0; k < row.n; k++) x[k] = at[k] + side * step * (a0[k] + at[k]);
            check(vkm_write_f64(r.dev, row, x, &err), &err);
            vkm_adapter_refresh(r.p->s, r.p->adapter);
            d += side * nll(&r, i);
        }
        check(vkm_write_f64(r.dev, row, at, &err), &err);
        vkm_adapter_refresh(r.p->s, r.p->adapter);
        worst = fmax(worst, fabs(d / (2 * step) - (double)pooled[(uint64_t)i * p + m * rank + j]));
        free(at), free(x), free(a0);
    }
    print_message("rank indices: error %.1e of %.1e\n", worst, size);
    assert_true(size > 1e-3 && worst <= fd_bound * size);
    free(pooled);
    rig_close(&r);
}

/* ---- the exact tier ----------------------------------------------------------------------------
 */

/* Operands rounded to bf16 (8 bits) against none. The bounds are about three times what this model
 * and these sequences give: 1 - cosine 1e-4, distance 1.4e-2 of the norm, 3e-3 nats, 0.8% of df. */
static void exact_tier(void **state) {
    (void)state;
    const float g[EXPERTS] = {0.375f, 0.625f};
    double least = 1, furthest = 0, logp = 0, size = 0, df = 0;
    rig r[2];
    for (int i = 0; i < 2; i++) {
        rig_open(&r[i], i ? VKM_CPU : VKM_ORACLE);
        for (uint32_t t = 0; i && t < r[1].fx->n_tokens; t++) { /* the same loss for both */
            r[1].old[t] = r[0].old[t];
            r[1].ref[t] = r[0].ref[t];
        }
        train(&r[i], &clip, g, g);
    }
    for (uint32_t t = 0; t < r[0].fx->n_tokens; t++)
        logp = fmax(logp, fabs(r[1].logp[t] - r[0].logp[t]));
    for (uint32_t i = 0; i < N * EXPERTS; i++) {
        double want = (double)r[0].fx->examples[i / EXPERTS].df[i % EXPERTS];
        size = fmax(size, fabs(want));
        df = fmax(df, fabs((double)r[1].fx->examples[i / EXPERTS].df[i % EXPERTS] - want));
    }
    for (uint32_t m = 0; m < 2 * r[0].p->adapter->n_modules; m++) {
        double *want = gradient(&r[0], m / 2, (int)(m % 2));
        double *got = gradient(&r[1], m / 2, (int)(m % 2)), aa = 0, bb = 0, ab = 0, dd = 0;
        for (uint64_t j = 0; j < r[0].p->adapter->modules[m / 2].grad[m % 2].n; j++) {
            aa += want[j] * want[j], bb += got[j] * got[j], ab += want[j] * got[j];
            dd += (got[j] - want[j]) * (got[j] - want[j]);
        }
        least = fmin(least, ab / sqrt(aa * bb));
        furthest = fmax(furthest, sqrt(dd / aa));
        free(want), free(got);
    }
    print_message("exact tier: 1 - cosine <= %.1e and relative distance <= %.1e over the factors, "
                  "log-probabilities within %.1e, df %.1e of %.1e\n",
                  1 - least, furthest, logp, df / (double)VKM_LOSS_SCALE,
                  size / (double)VKM_LOSS_SCALE);
    assert_true(1 - least <= 3e-4 && furthest <= 3e-2);
    assert_true(logp <= 1e-2 && df <= 2e-2 * size);
    rig_close(&r[0]), rig_close(&r[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_adapter),          cmocka_unit_test(by_forward_weight),
        cmocka_unit_test(kinds_of_importance), cmocka_unit_test(detached),
        cmocka_unit_test(by_router),           cmocka_unit_test(by_rank_index),
        cmocka_unit_test(exact_tier)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
