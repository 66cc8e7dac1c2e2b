/* `vkmoe smoke`: the gates, then a whole run on a tiny random model, on real graded problems. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "model/init_model.h"
#include "rl/train.h"
#include "verify/verify.h"

/* A tiny random model inside the run's parent folder, unless the user named one. */
static vkm_status make_model(vkm_config *c, const char *base, vkm_err *err) {
    const vkm_model_preset *tiny;
    char folder[VKM_PATH_MAX];
    if (vkm_model_preset_find("tiny", &tiny, err) || vkm_path_join(folder, base, "model", err))
        return err->status;
    vkm_init_options o = {
        .config = tiny->config, .output = folder, .seed = (uint64_t)c->seed, .force = true};
    if (vkm_init_model(&o, NULL, err)) return err->status;
    return vkm_config_set(c, "model", folder, err);
}

/* The folder of everything that the smoke makes. */
static vkm_status base_folder(const char *wanted, char out[VKM_PATH_MAX], vkm_err *err) {
    const char *tmp = getenv("TMPDIR");
    if (wanted[0])
        return vkm_dir_make(wanted, err) ? err->status
                                         : (snprintf(out, VKM_PATH_MAX, "%s", wanted), VKM_OK);
    snprintf(out, VKM_PATH_MAX, "%s/vkmoe-smoke-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
    if (!mkdtemp(out)) return vkm_fail(err, VKM_FAILED, "%s: the folder cannot be made", out);
    return VKM_OK;
}

static vkm_status judge(const vkm_train_summary *s, uint32_t steps, vkm_err *err) {
    if (s->with_teachers == 0)
        return vkm_fail(err, VKM_FAILED,
                        "no step had a teacher's rollout: the pool has no rows for these problems "
                        "(--teacher_pool canonical takes their own solutions)");
    if (s->learnt < s->with_teachers || s->updated < s->with_teachers)
        return vkm_fail(err, VKM_FAILED,
                        "%u steps had teachers, %u of them an advantage, %u changed the weights",
                        s->with_teachers, s->learnt, s->updated);
    printf("It trains: %u of %u steps had non-zero advantages and changed the weights.\n",
           s->updated, steps);
    if (s->on.hacked == 0)
        printf("A random model does not hack, so its rates are 0 -> 0: this shows that the machine "
               "works. For a result, train a model that can solve these problems.\n");
    return VKM_OK;
}

/* Problems of the user's own: their canonical solutions teach, and there is room for long ones. */
static vkm_status adapt_to_data(vkm_config *c, const vkm_config *preset, vkm_err *err) {
    static const char *const room[][2] = {{"teacher_pool", "canonical"},
                                          {"max_prompt_length", "1536"},
                                          {"max_completion_length", "384"}};
    if (!strcmp(c->data, preset->data)) return VKM_OK;
    const int given[] = {strcmp(c->teacher_pool, preset->teacher_pool) != 0,
                         c->max_prompt_length != preset->max_prompt_length,
                         c->max_completion_length != preset->max_completion_length};
    for (size_t i = 0; i < VKM_COUNTOF(room); i++)
        if (!given[i] && vkm_config_set(c, room[i][0], room[i][1], err)) return err->status;
    return VKM_OK;
}

vkm_status vkm_cmd_smoke(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config config, preset;
    vkm_cli_device d = {.backend = VKM_CLI_VULKAN};
    vkm_train_summary summary;
    char base[VKM_PATH_MAX], run[VKM_PATH_MAX];
    int skip_gates = 0;
    vkm_dev *dev = NULL;
    vkm_opt own[] = {
        {"skip-gates", VKM_OPT_FLAG, &skip_gates, .help = "run no gates: only the training run"},
        VKM_CLI_DEVICE_OPTS(&d),
    };
    vkm_opt opts[VKM_CLI_MAX_OPTS];
    memcpy(opts, own, sizeof own);
    size_t n = VKM_COUNTOF(own) + vkm_cli_config_opts(&given, opts + VKM_COUNTOF(own));
    if (vkm_cli_parse(opts, n, argc, argv, err)) return err->status;
    if (!given.path) given.path = "smoke";
    vkm_config_default(&preset);
    if (vkm_config_load(&preset, given.path, err) || vkm_cli_config_resolve(&given, &config, err) ||
        adapt_to_data(&config, &preset, err) || base_folder(config.output_dir, base, err) ||
        vkm_path_join(run, base, "run", err) || vkm_config_set(&config, "output_dir", run, err) ||
        (!config.model[0] && make_model(&config, base, err)) || vkm_config_check(&config, err) ||
        vkm_cli_open_device(&d, &config, &dev, err))
        return err->status;
    vkm_verify_options gates = {.dev = dev, .seed = (uint64_t)config.seed};
    if (!skip_gates && vkm_verify_run(&gates, stdout, err)) goto done;
    if (vkm_train(&config, dev, &summary, err)) goto done;
    if (judge(&summary, (uint32_t)config.max_steps, err)) goto done;
    vkm_info("the run is in %s", run);
done:
    vkm_cli_close_device(&d, dev);
    return err->status;
}
