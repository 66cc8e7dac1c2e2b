/* The options of commands that read from a model or sample with it. */
#ifndef VKM_INFERENCE_OPTS_H
#define VKM_INFERENCE_OPTS_H

#include "cli/cli.h"
#include "rl/inference.h"

enum { VKM_CLI_FULL, VKM_CLI_ABLATED, VKM_CLI_BASE };
typedef struct vkm_cli_inference {
    const char *model, *run, *checkpoint;
    int state; /* VKM_CLI_FULL and so on */
    double w;
} vkm_cli_inference;
#define VKM_CLI_INFERENCE_DEFAULTS                                                                 \
    { "", "", "", VKM_CLI_FULL, NAN }
#define VKM_CLI_INFERENCE_OPTS(x)                                                                  \
    {"model", VKM_OPT_STRING, &(x)->model, .arg = "DIR",                                           \
     .help = "model folder: config.json, tokenizer.json, *.safetensors; else the run's"},          \
        {"run", VKM_OPT_STRING, &(x)->run, .arg = "DIR",                                           \
         .help = "a run's folder, whose adapter is put on the model"},                             \
        {"checkpoint", VKM_OPT_STRING, &(x)->checkpoint, .arg = "DIR",                             \
         .help = "RUN/checkpoints/step-NNNNNN; else the newest"},                                  \
        {"state", VKM_OPT_CHOICE, &(x)->state, .choices = "full|ablated|base",                     \
         .help = "of the run's adapter: both experts, without the hack expert, neither"},          \
    {                                                                                              \
        "w", VKM_OPT_FLOAT, &(x)->w, .min = NAN, .max = 4,                                         \
                                     .help = "weight of the hack expert, in place of --state"      \
    }

/* A state or a weight without a run is a usage error. */
vkm_status vkm_cli_open_inference(const vkm_cli_inference *x, vkm_inference *out,
                                  vkm_err *err) VKM_MUST_CHECK;

#endif
