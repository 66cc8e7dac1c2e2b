/* `vkmoe verify`: every kernel against its twin, and what the method must hold, on one device. */
#include "cli/cli.h"
#include "verify/verify.h"

vkm_status vkm_cmd_verify(int argc, char **argv, vkm_err *err) {
    vkm_cli_device d = {.backend = VKM_CLI_VULKAN};
    vkm_verify_options o = {0};
    int64_t seed = 41;
    vkm_opt opts[] = {
        {"GATE", VKM_OPT_ARG_MAYBE, &o.select, .help = "only gates whose name contains this"},
        {"list", VKM_OPT_FLAG, &o.list, .help = "list the gates and run none"},
        {"seed", VKM_OPT_INT, &seed, .min = 0, .max = INT32_MAX, .help = "of the random inputs"},
        VKM_CLI_JSON(&o.json),
        VKM_CLI_NUMERICS(&d),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    o.seed = (uint64_t)seed;
    if (!o.list && vkm_cli_open_device(&d, NULL, &o.dev, err)) return err->status;
    vkm_status st = vkm_verify_run(&o, stdout, err);
    vkm_cli_close_device(&d, o.dev);
    return st;
}
