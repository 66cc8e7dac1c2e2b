/* `vkmoe sft`. */
#include <string.h>

#include "cli/cli.h"
#include "rl/sft.h"

/* The keys of rl/config.def that supervised fine-tuning reads. */
static const char *const keys[] = {
    "model",
    "data",
    "output_dir",
    "sft_train",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "max_steps",
    "num_train_epochs",
    "learning_rate",
    "warmup_steps",
    "lr_scheduler",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "adam_v",
    "max_grad_norm",
    "lora_rank",
    "seed",
    "resume_from_checkpoint",
    "stop_at_step",
    "save_steps",
    "save_total_limit",
    "micro_batch_tokens",
};

/* Keeps CONFIG, --set and the options of those keys. */
static size_t keep_keys(vkm_opt *opts, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        int use = opts[i].type == VKM_OPT_ARG_MAYBE || !strcmp(opts[i].name, "set");
        for (size_t k = 0; k < VKM_COUNTOF(keys) && !use; k++) use = !strcmp(opts[i].name, keys[k]);
        if (use) opts[kept++] = opts[i];
    }
    return kept;
}

static vkm_status print_plan(const vkm_config *c, vkm_dev *dev, vkm_err *err) {
    vkm_plan *plan = vkm_plan_new(dev);
    vkm_sft *r = NULL;
    if (!vkm_sft_open(c, dev, plan, &r, err)) vkm_plan_print(plan, stdout);
    vkm_sft_close(r);
    vkm_plan_free(plan);
    return err->status;
}

vkm_status vkm_cmd_sft(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config config;
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    vkm_dev *dev = NULL;
    int dry_run = 0;
    vkm_opt own[] = {
        {"dry-run", VKM_OPT_FLAG, &dry_run, .help = "print the memory plan and run nothing"},
        VKM_CLI_DEVICE_OPTS(&d),
    };
    vkm_opt opts[VKM_CLI_MAX_OPTS];
    memcpy(opts, own, sizeof own);
    size_t n = vkm_cli_config_opts(&given, opts + VKM_COUNTOF(own));
    n = VKM_COUNTOF(own) + keep_keys(opts + VKM_COUNTOF(own), n);
    if (vkm_cli_parse(opts, n, argc, argv, err) || vkm_cli_config_resolve(&given, &config, err) ||
        vkm_sft_check(&config, err) || vkm_cli_open_device(&d, &config, &dev, err))
        return err->status;
    if (dry_run)
        (void)!print_plan(&config, dev, err);
    else
        (void)!vkm_sft_run(&config, dev, err);
    vkm_cli_close_device(&d, dev);
    return err->status;
}
