/* Gates of the method: what must hold of the adapter, the router and the policy as a whole, on a
 * tiny random model. Bits are compared as bits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/arms.h"
#include "rl/optimizer.h"
#include "rl/policy.h"
#include "rl/router.h"
#include "verify/fixture.h"
#include "verify/gates.h"

/* Runs the body with a fixture `fx` on the device under test; any error fails the gate. */
#define WITH_FIXTURE(v, fx)                                                                        \
    vkm_fixture *fx = vkm_fixture_new(vkm_v_dev(v), VKM_FIXTURE_MICRO_ROWS);                       \
    for (int once_ = 1; once_; once_ = 0, vkm_fixture_end(v, fx))

static void gate_identity(vkm_verify *v) {
    WITH_FIXTURE(v, fx) {
        float *full = vkm_fixture_logp(fx, vkm_state_full);
        float *base = vkm_fixture_logp(fx, vkm_state_base);
        VKM_EXPECT(v, !memcmp(full, base, fx->n_tokens * sizeof *full),
                   "an adapter at its init changes the policy");
        free(full), free(base);
    }
}

static void gate_states(vkm_verify *v) {
    const vkm_arm *moe = vkm_arm_find("moe", &(vkm_err){0});
    WITH_FIXTURE(v, fx) {
        vkm_fixture_perturb(fx, 1);
        for (int w = 0; w < 2; w++) {
            vkm_arm_in in = {.w = (float)w};
            float f[VKM_MAX_EXPERTS], g[VKM_MAX_EXPERTS];
            moe->weights(&in, f, g);
            float *routed = vkm_fixture_logp(fx, f);
            float *state = vkm_fixture_logp(fx, w ? vkm_state_full : vkm_state_ablated);
            VKM_EXPECT(v, !memcmp(routed, state, fx->n_tokens * sizeof *state),
                       "w = %d is not the %s forward", w, w ? "full" : "ablated");
            free(routed), free(state);
        }
    }
}

/* Sums of |gradient| of the two expert blocks. */
static void block_sums(const vkm_fixture *fx, const float *grad, double out[2]) {
    const vkm_adapter *a = fx->policy->adapter;
    out[0] = out[1] = 0;
    for (uint32_t i = 0; i < a->n_modules; i++)
        for (int f = 0; f < 2; f++)
            for (uint32_t row = 0; row < 2 * a->rank; row++)
                for (uint32_t c = f ? a->modules[i].d_out : a->modules[i].d_in; c > 0; c--)
                    out[row / a->rank] += fabs((double)*grad++);
}

static void gate_zones(vkm_verify *v) {
    static const struct {
        const char *name;
        float w, g[2];
    } zones[] = {{"keep", 0, {1, 0}}, {"rout", 1, {0, 1}}, {"absorb", 0.5f, {1, 1}}};
    const vkm_arm *arm = vkm_arm_find("oracle_zones", &(vkm_err){0});
    WITH_FIXTURE(v, fx) {
        vkm_fixture_perturb(fx, 1);
        for (size_t z = 0; z < VKM_COUNTOF(zones); z++) {
            vkm_arm_in in = {.w = zones[z].w};
            float f[VKM_MAX_EXPERTS], g[VKM_MAX_EXPERTS];
            double sums[2];
            arm->weights(&in, f, g);
            float *grad = vkm_fixture_grad(fx, f, g);
            block_sums(fx, grad, sums);
            for (int e = 0; e < 2; e++)
                VKM_EXPECT(v, (sums[e] > 0) == (zones[z].g[e] > 0),
                           "zone %s: the %s block's gradient sums to %g", zones[z].name,
                           e ? "hack" : "deployed", sums[e]);
            free(grad);
        }
    }
}

static void gate_scaling(vkm_verify *v) {
    const float half[2] = {0.5f, 0.5f}, one[2] = {1, 1};
    WITH_FIXTURE(v, fx) {
        vkm_fixture_perturb(fx, 1);
        fx->parameter_detach = 1;
        float *full = vkm_fixture_grad(fx, one, one);
        float *halved = vkm_fixture_grad(fx, one, half);
        uint64_t n = vkm_adapter_size(fx->policy->adapter, VKM_STATE_GRAD), wrong = 0;
        for (uint64_t i = 0; i < n; i++) wrong += halved[i] != 0.5f * full[i];
        VKM_EXPECT(v, wrong == 0, "g = 1/2 does not halve %llu of %llu gradients exactly",
                   (unsigned long long)wrong, (unsigned long long)n);
        free(full), free(halved);
    }
}

static void gate_micro_batch(vkm_verify *v) {
    const float f[2] = {1, 0.625f}, g[2] = {0.375f, 0.625f};
    enum { TOGETHER, ONE_BY_ONE, BY_GROUP, CUTS };
    static const char *const names[CUTS] = {
        [ONE_BY_ONE] = "one rollout at a time", [BY_GROUP] = "one group at a time"};
    float *grads[CUTS];
    uint64_t n = 0;
    for (int cut = 0; cut < CUTS; cut++) {
        uint32_t rows = cut == ONE_BY_ONE ? 1 : VKM_FIXTURE_MICRO_ROWS;
        vkm_fixture *fx = vkm_fixture_new(vkm_v_dev(v), rows);
        vkm_fixture_perturb(fx, 1);
        fx->by_group = cut == BY_GROUP;
        grads[cut] = vkm_fixture_grad(fx, f, g);
        n = fx->policy ? vkm_adapter_size(fx->policy->adapter, VKM_STATE_GRAD) : 0;
        vkm_fixture_end(v, fx);
    }
    for (int cut = ONE_BY_ONE; cut < CUTS; cut++)
        VKM_EXPECT(v, n && !memcmp(grads[TOGETHER], grads[cut], n * sizeof *grads[0]),
                   "%s and all together give different gradients", names[cut]);
    for (int cut = 0; cut < CUTS; cut++) free(grads[cut]);
}

static void gate_ablation(vkm_verify *v) {
    WITH_FIXTURE(v, fx) {
        vkm_adapter *a = fx->policy->adapter;
        uint64_t n = vkm_adapter_size(a, VKM_STATE_PARAM);
        size_t bytes = fx->n_tokens * sizeof(float);
        float *clean = vkm_fixture_logp(fx, vkm_state_full);
        vkm_fixture_perturb_block(fx, VKM_HACK, 2);
        float *seen = vkm_fixture_logp(fx, vkm_state_full);
        float *off = vkm_fixture_logp(fx, vkm_state_ablated);
        float *saved = vkm_fixture_params(fx);
        VKM_EXPECT(v, memcmp(clean, seen, bytes), "a perturbed hack expert is not visible");
        VKM_EXPECT(v, !memcmp(clean, off, bytes), "ablation leaves traces of the hack expert");
        float *none = calloc(n, sizeof *none);
        vkm_fixture_set_params(fx, none);
        vkm_fixture_set_params(fx, saved);
        float *again = vkm_fixture_logp(fx, vkm_state_full);
        VKM_EXPECT(v, !memcmp(seen, again, bytes),
                   "the hack expert does not come back bit for bit");
        free(clean), free(seen), free(off), free(saved), free(none), free(again);
    }
}

static void gate_sampling(vkm_verify *v) {
    const float *states[] = {vkm_state_full, vkm_state_ablated};
    WITH_FIXTURE(v, fx) {
        vkm_fixture_perturb(fx, 3);
        for (size_t i = 0; i < VKM_COUNTOF(states); i++) {
            uint32_t n = 0;
            uint64_t wrong = vkm_fixture_compare_sampling(fx, states[i], &n);
            VKM_EXPECT(v, n > 0 && wrong == 0,
                       "%llu of %u sampled log-probabilities differ from the training forward's",
                       (unsigned long long)wrong, n);
        }
    }
}

/* Pairs whose hack sides lean along a random direction, and what the router makes of them. */
static void gate_router(vkm_verify *v) {
    enum { PAIRS = 12, MODULES = 5, RANK = 3, P = MODULES * RANK };
    vkm_err err = {0};
    vkm_router *r = NULL;
    vkm_optimizer *opt = NULL;
    vkm_stream *s = NULL;
    float a[2 * PAIRS * P], dir[P], w[2 * PAIRS], u[3 * P + 2 + 2 * PAIRS * P], loss, norm;
    for (int i = 0; i < 2 * PAIRS * P; i++)
        a[i] = (float)((int)vkm_v_random(v, 2001) - 1000) * 1e-3f + (i < PAIRS * P ? 0.3f : -0.3f);
    if (vkm_router_new(vkm_v_dev(v), MODULES, RANK, PAIRS, 4, 0, NULL, &r, &err) ||
        vkm_stream_new(vkm_v_dev(v), &s, &err))
        goto done;
    vkm_direction_from_pairs(a, PAIRS, MODULES, RANK, 0, dir);
    if (vkm_router_calibrate(r, a, dir, 2, &err) || vkm_router_read(r, u, &err) ||
        vkm_router_pair_weights(r, w, &err))
        goto done;
    VKM_EXPECT(v, !memcmp(u, dir, sizeof dir), "the router's u is not the seed direction");
    double gap[2] = {0, 0};
    for (int i = 0; i < PAIRS; i++) gap[0] += (double)(w[i] - w[PAIRS + i]) / PAIRS;
    VKM_EXPECT(v, gap[0] > 0.2, "calibration separates the pairs by only %g", gap[0]);
    vkm_trainable t[2];
    vkm_router_trainables(r, t);
    if (vkm_optimizer_new(vkm_v_dev(v), t, 2, NULL, &opt, &err)) goto done;
    for (uint32_t step = 0; step < 20; step++) {
        vkm_adam_rates rates = {
            .lr = 0.02f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .t = step};
        int finite;
        if (vkm_router_backward(r, NULL, 0, 1, &loss, &err) ||
            vkm_optimizer_norm(opt, s, 1, &norm, &finite, &err))
            goto done;
        vkm_optimizer_step(opt, s, &rates);
        if (vkm_stream_flush(s, &err)) goto done;
    }
    if (vkm_router_pair_weights(r, w, &err)) goto done;
    for (int i = 0; i < PAIRS; i++) gap[1] += (double)(w[i] - w[PAIRS + i]) / PAIRS;
    VKM_EXPECT(v, gap[1] > gap[0], "the pin loss moves the pairs from %g to %g", gap[0], gap[1]);
done:
    if (err.status) vkm_v_fail(v, "%s", err.msg);
    vkm_optimizer_free(opt);
    vkm_stream_free(s);
    vkm_router_free(r);
}

const vkm_gate vkm_method_gates[] = {
    {"identity", "an adapter at its init leaves every log-probability as it was", gate_identity},
    {"states", "w = 0 is the ablated forward, w = 1 the full one", gate_states},
    {"zones", "a block without gradient weight gets a gradient of exactly 0", gate_zones},
    {"scaling", "g scales a block's gradient: exactly half at 1/2", gate_scaling},
    {"micro_batch", "rollouts one by one, by group and together give the same gradients",
     gate_micro_batch},
    {"ablation", "the hack expert is visible, removed without trace, restored", gate_ablation},
    {"sampling", "sampled log-probabilities are the training forward's bits", gate_sampling},
    {"router", "u starts at the pairs' direction; the pin loss parts the pairs", gate_router},
};
const uint32_t vkm_n_method_gates = VKM_COUNTOF(vkm_method_gates);
