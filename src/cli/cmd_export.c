/* `vkmoe export`: a run's adapter for PEFT, or merged into a model folder. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/inference_opts.h"
#include "rl/export.h"

enum { TO_ADAPTER, TO_MODEL };

/* Merged weights would be read while they are replaced. */
static vkm_status check_output(const char *output, vkm_err *err) {
    char path[VKM_PATH_MAX];
    if (!output[0]) return vkm_fail(err, VKM_USAGE, "--output is missing: the folder to write");
    if (vkm_path_join(path, output, "config.json", err)) return err->status;
    if (vkm_file_exists(path))
        return vkm_fail(err, VKM_USAGE,
                        "%s is there already: '%s' holds a model; choose another folder", path,
                        output);
    return VKM_OK;
}

vkm_status vkm_cmd_export(int argc, char **argv, vkm_err *err) {
    vkm_cli_inference given = VKM_CLI_INFERENCE_DEFAULTS;
    vkm_inference x = {0};
    vkm_dev *dev = NULL;
    const char *output = "";
    int to = TO_ADAPTER, dtype = 0;
    double shard_mb = 5000;
    vkm_opt opts[] = {
        {"run", VKM_OPT_STRING, &given.run, .arg = "DIR", .help = "a run's folder"},
        {"checkpoint", VKM_OPT_STRING, &given.checkpoint, .arg = "DIR",
         .help = "RUN/checkpoints/step-NNNNNN; else the newest"},
        {"model", VKM_OPT_STRING, &given.model, .arg = "DIR",
         .help = "the model's folder; else where the run found it"},
        {"state", VKM_OPT_CHOICE, &given.state, .choices = "full|ablated|base",
         .help = "both experts, without the hack expert (for deployment), neither"},
        {"w", VKM_OPT_FLOAT, &given.w, .min = NAN, .max = 4,
         .help = "weight of the hack expert, in place of --state"},
        {"to", VKM_OPT_CHOICE, &to, .choices = "adapter|model",
         .help = "a PEFT adapter, or a model folder with it merged"},
        {"output", VKM_OPT_STRING, &output, .arg = "DIR", .help = "the folder to write"},
        {"dtype", VKM_OPT_CHOICE, &dtype, .choices = "auto|bf16|fp32",
         .help = "of what is written; auto: fp32 for an adapter, bf16 for a model"},
        {"max_shard_mb", VKM_OPT_FLOAT, &shard_mb, .min = 0, .max = 1e9,
         .help = "a model's files are of at most so many MB; 0: one file"},
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err) ||
        vkm_cli_open_inference(&given, &x, err) || check_output(output, err) ||
        vkm_device_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 1}, &dev, err))
        goto done;
    const vkm_export_options o = {.fp32 = dtype ? dtype == 2 : to == TO_ADAPTER,
                                  .shard_bytes = (uint64_t)(shard_mb * 1e6)};
    if (!(to == TO_ADAPTER ? vkm_export_adapter(&x, dev, &o, output, err)
                           : vkm_export_model(&x, dev, &o, output, err)))
        printf("%s %s\n", to == TO_ADAPTER ? "adapter" : "model", output);
done:
    vkm_inference_close(&x);
    vkm_dev_close(dev);
    return err->status;
}
