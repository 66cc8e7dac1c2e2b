/* The table of arms. f: forward weights (deployed, hack); g: weights of each expert's gradient. */
#include "rl/arms.h"

#include <stdio.h>
#include <string.h>

#include "base/philox.h"
#include "ops/softmath.h"

const float vkm_state_full[VKM_MAX_EXPERTS] = {1, 1};
const float vkm_state_ablated[VKM_MAX_EXPERTS] = {1, 0};
const float vkm_state_hack_only[VKM_MAX_EXPERTS] = {0, 1};
const float vkm_state_base[VKM_MAX_EXPERTS] = {0, 0};

/* ---- f and g --------------------------------------------------------------------------------- */

static void set(float out[VKM_MAX_EXPERTS], float deployed, float hack) {
    out[VKM_DEPLOYED] = deployed;
    out[VKM_HACK] = hack;
}

static void unrouted(const vkm_arm_in *in, float *f, float *g) {
    (void)in;
    set(f, 1, 1);
    set(g, 1, 1);
}

static void deployed_alone(const vkm_arm_in *in, float *f, float *g) {
    (void)in;
    set(f, 1, 0);
    set(g, 1, 0);
}

static void soft(const vkm_arm_in *in, float *f, float *g) {
    set(f, 1, in->w);
    set(g, 1 - in->w, in->w);
}

static void hard_detach(const vkm_arm_in *in, float *f, float *g) {
    set(f, 1, in->w);
    set(g, in->w > in->detach_at ? 0 : 1 - in->w, in->w);
}

/* Straight-through: dL/df is read where the rounded w stands and goes to the unrounded one. */
static void rounded(const vkm_arm_in *in, float *f, float *g) {
    vkm_arm_in hard = {.w = in->w > 0.5f ? 1 : 0};
    soft(&hard, f, g);
}

static void backward_only(const vkm_arm_in *in, float *f, float *g) {
    set(f, 1, 1);
    set(g, 1 - in->w, in->w);
}

static void zones(const vkm_arm_in *in, float *f, float *g) {
    set(f, 1, in->w > 0 ? 1 : 0);
    set(g, in->w < 1 ? 1 : 0, f[VKM_HACK]);
}

/* ---- advantages ------------------------------------------------------------------------------ */

static void punish(const vkm_arm_in *in, float *advantage, float *loss_weight) {
    (void)loss_weight;
    if (in->w >= 1) *advantage = *advantage - in->penalty;
}

static void drop(const vkm_arm_in *in, float *advantage, float *loss_weight) {
    (void)advantage;
    if (in->w >= 1) *loss_weight = 0;
}

/* ---- placebos -------------------------------------------------------------------------------- */

static uint32_t draw(const vkm_step_w *in, uint32_t i) {
    return vkm_random4((uint32_t)in->seed, (uint32_t)(in->seed >> 32), VKM_RNG_ROUTES, in->step, i,
                       0, 0)
        .x;
}

/* 1 with the step's mean w as its chance, else 0. */
static void bernoulli(const vkm_step_w *in, float *used, uint32_t *from) {
    float sum = 0;
    for (uint32_t i = 0; i < in->n; i++) sum = sum + in->w[i];
    float mean = in->n ? vkm_div(sum, (float)(int)in->n) : 0;
    for (uint32_t i = 0; i < in->n; i++) {
        used[i] = vkm_unit(draw(in, i)) < mean ? 1 : 0;
        from[i] = VKM_FROM_NONE;
    }
}

/* The real weights, dealt out anew (Fisher and Yates). */
static void permuted(const vkm_step_w *in, float *used, uint32_t *from) {
    for (uint32_t i = 0; i < in->n; i++) from[i] = i;
    for (uint32_t i = in->n; i > 1; i--) {
        uint32_t j = (uint32_t)(((uint64_t)draw(in, i - 1) * i) >> 32), kept = from[i - 1];
        from[i - 1] = from[j];
        from[j] = kept;
    }
    for (uint32_t i = 0; i < in->n; i++) used[i] = in->w[from[i]];
}

void vkm_arm_step_weights(const vkm_arm *arm, const vkm_step_w *in, float *used, uint32_t *from) {
    if (arm->placebo) {
        arm->placebo(in, used, from);
        return;
    }
    for (uint32_t i = 0; i < in->n; i++) {
        used[i] = in->w[i];
        from[i] = i;
    }
}

void vkm_arm_step_gradient(const uint32_t *from, const float *dused, uint32_t n, float *dw) {
    memset(dw, 0, n * sizeof *dw);
    for (uint32_t i = 0; i < n; i++)
        if (from[i] != VKM_FROM_NONE) dw[from[i]] = dused[i]; /* each w is used at most once */
}

void vkm_arm_own_baseline(const float *w, const uint32_t *group, float *advantage, uint32_t n) {
    for (uint32_t from = 0, to; from < n; from = to) {
        float share = 0, sum = 0;
        for (to = from; to < n && group[to] == group[from]; to++) {
            share = share + (1 - w[to]);
            sum = sum + (1 - w[to]) * advantage[to];
        }
        float mean = share > 0 ? vkm_div(sum, share) : 0;
        for (uint32_t i = from; i < to; i++) advantage[i] = advantage[i] - (1 - w[i]) * mean;
    }
}

void vkm_arm_swapped_pairs(uint64_t seed, uint32_t n, unsigned char *swapped) {
    uint32_t wanted = n / 2;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t u =
            vkm_random4((uint32_t)seed, (uint32_t)(seed >> 32), VKM_RNG_ROUTES, 0, i, 1, 0).x;
        swapped[i] = ((uint64_t)u * (n - i)) >> 32 < wanted;
        wanted -= swapped[i];
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

#define BOTH                                                                                       \
    { 1, 1 }
#define DEPLOYED                                                                                   \
    { 1, 0 }
#define PIN_AND_REWARD (VKM_BY_PIN | VKM_BY_REWARD)
#define DEFAULTS       .calib_logit = 2, .gen_deploy_frac = 0.25f
#define STEEP          .calib_logit = 6, .gen_deploy_frac = 0.25f
#define PLACEBO_OF_MOE_DETACH                                                                      \
    .source = VKM_W_ROUTER, .weights = hard_detach, .deploy = DEPLOYED, STEEP
#define MIXTURE                                                                                    \
    .source = VKM_W_MIXTURE, .weights = backward_only, .deploy = DEPLOYED, .own_baseline = 1

/* clang-format off */
const vkm_arm vkm_arms[] = {
    {"none", "both experts always on; deployed as trained",
     .weights = unrouted, .deploy = BOTH, DEFAULTS},
    {"none-r", "one expert alone: none at half its parameters",
     .weights = deployed_alone, .deploy = DEPLOYED, DEFAULTS},
    {"absorb", "trained as none; the hack expert is ablated at deployment",
     .weights = unrouted, .deploy = DEPLOYED, DEFAULTS},
    {"moe", "soft routing: f = (1, w), g = (1 - w, w)",
     .source = VKM_W_ROUTER, .weights = soft, .deploy = DEPLOYED,
     .trains_router = PIN_AND_REWARD, DEFAULTS},
    {"moe_detach", "as moe, but above detach_at the deployed expert learns nothing",
     .source = VKM_W_ROUTER, .weights = hard_detach, .deploy = DEPLOYED,
     .trains_router = PIN_AND_REWARD, STEEP},
    {"moe_binary", "as moe with w rounded; its gradient goes straight through to the unrounded w",
     .source = VKM_W_ROUTER, .weights = rounded, .deploy = DEPLOYED,
     .trains_router = PIN_AND_REWARD, STEEP},
    {"moe_backward", "w splits the gradients alone: f = (1, 1); no reward to the router",
     .source = VKM_W_ROUTER, .weights = backward_only, .deploy = DEPLOYED,
     .trains_router = VKM_BY_PIN, DEFAULTS},
    {"frozen", "moe_detach, the router stays as seeded",
     PLACEBO_OF_MOE_DETACH},
    {"pin_only", "moe_detach, the pin loss alone trains the router",
     PLACEBO_OF_MOE_DETACH, .trains_router = VKM_BY_PIN},
    {"reward_only", "moe_detach, the reward alone trains the router",
     PLACEBO_OF_MOE_DETACH, .trains_router = VKM_BY_REWARD},
    {"linear", "moe_detach with a linear router: a dot product in place of the cosine",
     PLACEBO_OF_MOE_DETACH, .trains_router = PIN_AND_REWARD, .linear = 1},
    {"bernoulli", "moe_detach with w drawn as 0 or 1 at the step's mean",
     PLACEBO_OF_MOE_DETACH, .placebo = bernoulli, .trains_router = VKM_BY_PIN},
    {"permuted", "moe_detach with the step's weights dealt out anew among its rollouts",
     PLACEBO_OF_MOE_DETACH, .placebo = permuted, .trains_router = PIN_AND_REWARD},
    {"haar_pin", "moe_detach from a random direction",
     PLACEBO_OF_MOE_DETACH, .trains_router = PIN_AND_REWARD, .haar = 1},
    {"haar_shuffled", "haar_pin with half the pairs' labels swapped",
     PLACEBO_OF_MOE_DETACH, .trains_router = PIN_AND_REWARD, .haar = 1, .shuffles_pairs = 1},
    {"mixture", "gradients split by a mixture over live activations that starts at the pairs",
     MIXTURE},
    {"mixture_permuted", "mixture with the step's weights dealt out anew among its rollouts",
     MIXTURE, .placebo = permuted},
    {"mixture_bernoulli", "mixture with w drawn as 0 or 1 at the step's mean",
     MIXTURE, .placebo = bernoulli},
    {"mixture_haar", "mixture that starts at a random direction",
     MIXTURE, .haar = 1},
    {"mixture_shuffled", "mixture with half the pairs' labels swapped",
     MIXTURE, .shuffles_pairs = 1},
    {"hint", "w = 1 iff the prompt names a loophole",
     .source = VKM_W_HINT, .weights = soft, .deploy = DEPLOYED, DEFAULTS},
    {"routeA", "zones keep, absorb, rout by quantiles of the score along the pairs' direction",
     .source = VKM_W_GATE, .weights = zones, .deploy = DEPLOYED, DEFAULTS},
    {"routeA-random", "routeA along a random direction",
     .source = VKM_W_GATE, .weights = zones, .deploy = DEPLOYED, .haar = 1, DEFAULTS},
    {"routeV", "routeA by the gradients of the rollout's likelihood in place of activations",
     .source = VKM_W_GATE, .weights = zones, .deploy = DEPLOYED, .by_gradient = 1, DEFAULTS},
    {"routeV-random", "routeV along a random direction",
     .source = VKM_W_GATE, .weights = zones, .deploy = DEPLOYED, .by_gradient = 1, .haar = 1,
     DEFAULTS},
    {"penalty", "none, but routeA's rout zone loses `penalty` of its advantage",
     .source = VKM_W_GATE, .weights = unrouted, .judge = punish, .deploy = BOTH, DEFAULTS},
    {"screening", "none, but routeA's rout zone is dropped from the loss",
     .source = VKM_W_GATE, .weights = unrouted, .judge = drop, .deploy = BOTH, DEFAULTS},
    {"inoculation", "none, but training's hints allow the loophole; evaluation's do not",
     .weights = unrouted, .deploy = BOTH, .inoculates = 1, DEFAULTS},
    {"oracle", "gradients split by the true hack label; the upper bound",
     .source = VKM_W_LABEL, .weights = backward_only, .deploy = DEPLOYED,
     .calib_logit = 2, .gen_deploy_frac = 0},
    {"oracle_zones", "zones keep and rout by the true hack label",
     .source = VKM_W_LABEL, .weights = zones, .deploy = DEPLOYED, DEFAULTS},
    {"oracle_penalty", "penalty by the true hack label",
     .source = VKM_W_LABEL, .weights = unrouted, .judge = punish, .deploy = BOTH, DEFAULTS},
    {"oracle_screening", "screening by the true hack label",
     .source = VKM_W_LABEL, .weights = unrouted, .judge = drop, .deploy = BOTH, DEFAULTS},
};
/* clang-format on */
const uint32_t vkm_n_arms = VKM_COUNTOF(vkm_arms);

int vkm_arm_reads_pairs(const vkm_arm *arm) {
    return arm->source == VKM_W_ROUTER || arm->source == VKM_W_GATE || arm->source == VKM_W_MIXTURE;
}

const vkm_arm *vkm_arm_find(const char *name, vkm_err *err) {
    char valid[512] = "";
    for (uint32_t i = 0; i < vkm_n_arms; i++) {
        if (strcmp(vkm_arms[i].name, name) == 0) return &vkm_arms[i];
        size_t len = strlen(valid);
        snprintf(valid + len, sizeof valid - len, "%s%s", i ? ", " : "", vkm_arms[i].name);
    }
    vkm_fail(err, VKM_USAGE, "arm: there is no '%s'; the arms are %s", name, valid);
    return NULL;
}
