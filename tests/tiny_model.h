/* A model of the preset `tiny` in the test's folder, and policies over it whose adapters are not
 * zero. Include after tmpdir.h. */
#ifndef VKM_TESTS_TINY_MODEL_H
#define VKM_TESTS_TINY_MODEL_H

#include "model/init_model.h"
#include "ops/gauss.h"
#include "rl/policy.h"

/* Group set-up. */
static int make_tiny_model(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    return vkm_init_model(&o, NULL, &err) ? -1 : 0;
}

static vkm_policy *open_tiny_policy(vkm_dev *dev, const vkm_policy_limits *max) {
    vkm_err err = {0};
    vkm_policy *p = NULL;
    if (vkm_policy_new(dev, in_dir("model"), max, NULL, &p, &err)) fail_msg("%s", err.msg);
    uint64_t n = vkm_adapter_size(p->adapter, VKM_STATE_PARAM);
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    vkm_gauss(x, n, 0, 4, VKM_RNG_TEST, 0, 0.05f);
    if (vkm_adapter_write(p->adapter, VKM_STATE_PARAM, x, &err)) fail_msg("%s", err.msg);
    free(x);
    return p;
}

#endif
