#include "cli/inference_opts.h"

#include <math.h>

vkm_status vkm_cli_open_inference(const vkm_cli_inference *x, vkm_inference *out, vkm_err *err) {
    static const float states[][VKM_MAX_EXPERTS] = {
        [VKM_CLI_FULL] = {1, 1}, [VKM_CLI_ABLATED] = {1, 0}, [VKM_CLI_BASE] = {0, 0}};
    int has_w = !isnan(x->w);
    *out = (vkm_inference){0};
    if (!x->run[0] && (x->state != VKM_CLI_FULL || has_w || x->checkpoint[0]))
        return vkm_fail(err, VKM_USAGE, "--%s is of a run's adapter; name the run with --run",
                        has_w              ? "w"
                        : x->checkpoint[0] ? "checkpoint"
                                           : "state");
    if (has_w && x->state != VKM_CLI_FULL)
        return vkm_fail(err, VKM_USAGE,
                        "--state and --w both say what the hack expert weighs; "
                        "give one of them");
    return vkm_inference_open(
        &(vkm_inference_options){.model = x->model,
                                 .run = x->run,
                                 .checkpoint = x->checkpoint,
                                 .f = {states[x->state][VKM_DEPLOYED],
                                       has_w ? (float)x->w : states[x->state][VKM_HACK]}},
        out, err);
}
