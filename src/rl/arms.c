/* The table of arms. f: forward weights (deployed, hack); g: weights of each expert's gradient. */
#include "rl/arms.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const float vkm_state_full[VKM_MAX_EXPERTS] = {1, 1};
const float vkm_state_ablated[VKM_MAX_EXPERTS] = {1, 0};
const float vkm_state_hack_only[VKM_MAX_EXPERTS] = {0, 1};
const float vkm_state_base[VKM_MAX_EXPERTS] = {0, 0};

static void set(float out[VKM_MAX_EXPERTS], float deployed, float hack) {
    out[VKM_DEPLOYED] = deployed;
    out[VKM_HACK] = hack;
}

static void unrouted(const vkm_arm_in *in, float *f, float *g) {
    (void)in;
    set(f, 1, 1);
    set(g, 1, 1);
}

static void soft(const vkm_arm_in *in, float *f, float *g) {
    set(f, 1, in->w);
    set(g, 1 - in->w, in->w);
}

static void hard_detach(const vkm_arm_in *in, float *f, float *g) {
    set(f, 1, in->w);
    set(g, in->w > in->detach_at ? 0 : 1 - in->w, in->w);
}

static void by_label(const vkm_arm_in *in, float *f, float *g) {
    VKM_BUG_ON(isnan(in->label), "arm oracle without a label");
    set(f, 1, 1);
    set(g, 1 - in->label, in->label);
}

const vkm_arm vkm_arms[] = {
    {"none", "both experts always on; deployed as trained", unrouted, {1, 1}, .calib_logit = 2},
    {"absorb",
     "trained as none; the hack expert is ablated at deployment",
     unrouted,
     {1, 0},
     .calib_logit = 2},
    {"moe",
     "soft routing: f = (1, w), g = (1 - w, w)",
     soft,
     {1, 0},
     .routes = 1,
     .reward_to_router = 1,
     .calib_logit = 2},
    {"moe_detach",
     "as moe, but above detach_at the deployed expert learns nothing",
     hard_detach,
     {1, 0},
     .routes = 1,
     .reward_to_router = 1,
     .calib_logit = 6},
    {"oracle",
     "gradients split by the true hack label; the upper bound",
     by_label,
     {1, 0},
     .uses_label = 1,
     .calib_logit = 2},
};
const uint32_t vkm_n_arms = VKM_COUNTOF(vkm_arms);

const vkm_arm *vkm_arm_find(const char *name, vkm_err *err) {
    char valid[256] = "";
    for (uint32_t i = 0; i < vkm_n_arms; i++) {
        if (strcmp(vkm_arms[i].name, name) == 0) return &vkm_arms[i];
        size_t len = strlen(valid);
        snprintf(valid + len, sizeof valid - len, "%s%s", i ? ", " : "", vkm_arms[i].name);
    }
    vkm_fail(err, VKM_USAGE, "arm: there is no '%s'; the arms are %s", name, valid);
    return NULL;
}
