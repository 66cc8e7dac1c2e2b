/* `vkmoe train` and `vkmoe eval`. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "rl/train.h"

/* The memory that a run would take, by category. */
static vkm_status print_plan(const vkm_config *c, vkm_run_purpose purpose, vkm_dev *dev,
                             vkm_err *err) {
    vkm_plan *plan = vkm_plan_new(dev);
    vkm_run *r = NULL;
    if (!vkm_run_open(c, purpose, dev, plan, &r, err)) vkm_plan_print(plan, stdout);
    vkm_run_close(r);
    vkm_plan_free(plan);
    return err->status;
}

vkm_status vkm_cmd_train(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config config;
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    vkm_train_summary summary;
    vkm_dev *dev = NULL;
    int dry_run = 0;
    vkm_opt own[] = {
        {"dry-run", VKM_OPT_FLAG, &dry_run, .help = "print the memory plan and run nothing"},
        VKM_CLI_DEVICE_OPTS(&d),
    };
    vkm_opt opts[VKM_CLI_MAX_OPTS];
    memcpy(opts, own, sizeof own);
    size_t n = VKM_COUNTOF(own) + vkm_cli_config_opts(&given, opts + VKM_COUNTOF(own));
    if (vkm_cli_parse(opts, n, argc, argv, err) || vkm_cli_config_resolve(&given, &config, err) ||
        vkm_config_check(&config, err) || vkm_cli_open_device(&d, &config, &dev, err))
        return err->status;
    if (dry_run)
        (void)!print_plan(&config, VKM_RUN_TRAINS, dev, err);
    else
        (void)!vkm_train(&config, dev, &summary, err);
    vkm_cli_close_device(&d, dev);
    return err->status;
}

vkm_status vkm_cmd_eval(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config config;
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    vkm_dev *dev = NULL;
    const char *run = NULL;
    static char path[VKM_PATH_MAX];
    int dry_run = 0, full = 0;
    vkm_opt own[] = {
        {"dry-run", VKM_OPT_FLAG, &dry_run, .help = "print the memory plan and run nothing"},
        {"full", VKM_OPT_FLAG, &full,
         .help = "all states, KL, training problems too, full_rollouts of a state or more"},
        {"RUN", VKM_OPT_ARG, &run, .help = "a run's folder"},
        VKM_CLI_DEVICE_OPTS(&d),
    };
    vkm_opt opts[VKM_CLI_MAX_OPTS];
    memcpy(opts, own, sizeof own);
    /* the run's own config replaces the positional CONFIG of `train` */
    size_t n = VKM_COUNTOF(own) - 1 + vkm_cli_config_opts(&given, opts + VKM_COUNTOF(own) - 1);
    memcpy(opts + VKM_COUNTOF(own) - 1, own + VKM_COUNTOF(own) - 1, sizeof *own);
    if (vkm_cli_parse(opts, n, argc, argv, err) || vkm_path_join(path, run, "config.json", err))
        return err->status;
    given.path = path;
    if (vkm_cli_config_resolve(&given, &config, err)) return err->status;
    if (full) vkm_eval_in_full(&config);
    snprintf(config.output_dir, sizeof config.output_dir, "%s", run);
    if (!config.resume_from_checkpoint[0])
        snprintf(config.resume_from_checkpoint, sizeof config.resume_from_checkpoint, "latest");
    if (vkm_config_check(&config, err) || vkm_cli_open_device(&d, &config, &dev, err))
        return err->status;
    if (dry_run)
        (void)!print_plan(&config, VKM_RUN_EVALUATES, dev, err);
    else
        (void)!vkm_eval_run(&config, dev, stdout, err);
    vkm_cli_close_device(&d, dev);
    return err->status;
}
