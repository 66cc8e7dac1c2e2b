/* The command line: a table of commands (commands.def), option tables, the device they open.
 *
 * A command is one line of commands.def and one file src/cli/cmd_<name>.c:
 *     vkm_status vkm_cmd_bench(int argc, char **argv, vkm_err *err) {
 *         vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
 *         int json = 0;
 *         int64_t repeat = 5;
 *         vkm_opt opts[] = {
 *             VKM_CLI_DEVICE_OPTS(&d),
 *             VKM_CLI_JSON(&json),
 *             {"repeat", VKM_OPT_INT, &repeat, .min = 1, .max = 1000, .help = "runs of each row"},
 *         };
 *         if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
 *         ...
 *     }
 * What `value` points to before the parse is the default that --help shows. Results go to stdout,
 * the log to stderr; the status becomes the exit code and err one line `vkmoe COMMAND: message`. */
#ifndef VKM_CLI_H
#define VKM_CLI_H

#include "rl/config.h"
#include "vk/dev.h"

typedef enum vkm_opt_type {
    VKM_OPT_ARG,       /* const char **: a positional argument; its name in capitals */
    VKM_OPT_ARG_MAYBE, /* the same, may be left out (stays as it was) */
    VKM_OPT_ARGS,      /* the rest of them: each(value, name, text, err) one by one, maybe never */
    VKM_OPT_FLAG,      /* int *: set to 1 */
    VKM_OPT_INT,       /* int64_t *: from min to max */
    VKM_OPT_FLOAT,     /* double *: from min to max */
    VKM_OPT_STRING,    /* const char ** */
    VKM_OPT_CHOICE,    /* int *: index into choices "a|b|c" */
    VKM_OPT_EACH,      /* each(value, name, text, err) every time the option is given */
} vkm_opt_type;

typedef struct vkm_opt {
    const char *name; /* '-' and '_' are the same when matched */
    vkm_opt_type type;
    void *value;
    double min, max;
    const char *choices;
    vkm_status (*each)(void *value, const char *name, const char *text, vkm_err *err);
    const char *arg;                                        /* what --help calls the value */
    const char *(*shown)(const char *name, char out[1024]); /* the default of a VKM_OPT_EACH */
    const char *help; /* what it means, with the unit; the default is added */
} vkm_opt;

/* Every command also takes --help, --quiet and --verbose. argv[0] is the command's name. Errors are
 * VKM_USAGE; --help prints and ends the program with 0. Strings point into argv. */
vkm_status vkm_cli_parse(const vkm_opt *opts, size_t n_opts, int argc, char **argv,
                         vkm_err *err) VKM_MUST_CHECK;

/* What every command that computes takes. */
enum { VKM_CLI_AUTO, VKM_CLI_VULKAN, VKM_CLI_CPU };
typedef struct vkm_cli_device {
    const char *device;
    int backend; /* VKM_CLI_AUTO and so on */
    int64_t threads;
    int flush_denormals, validate, check_hazards, profile;
    int fast; /* VKM_CLI_NUMERICS, or the config's numerics */
    const char *shaders;
} vkm_cli_device;
#define VKM_CLI_DEVICE_DEFAULTS                                                                    \
    { 0 }
/* Of commands without a config, which has the same key. */
#define VKM_CLI_NUMERICS(d)                                                                        \
    {                                                                                              \
        "numerics", VKM_OPT_CHOICE, &(d)->fast,                                                    \
            .choices = "exact|fast",                                                               \
            .help = "exact: the same bits everywhere; fast: cooperative matrices of the GPU"       \
    }
#define VKM_CLI_DEVICE_OPTS(d)                                                                     \
    {"device", VKM_OPT_STRING, &(d)->device, .arg = "NAME",                                        \
     .help = "index, part of a name, or 'lavapipe'; `vkmoe devices` lists them"},                  \
        {"backend", VKM_OPT_CHOICE, &(d)->backend, .choices = "auto|vulkan|cpu",                   \
         .help = "cpu: the reference kernels (the same bits); auto: vulkan if there is a GPU"},    \
        {"threads", VKM_OPT_INT, &(d)->threads,                                                    \
         .min = 0,  .max = 1024, .help = "threads of the cpu backend, 0 for all cores"},           \
        {"flush-denormals", VKM_OPT_FLAG, &(d)->flush_denormals,                                   \
         .help = "cpu backend: set FTZ and DAZ; no bit may change"},                               \
        {"validate", VKM_OPT_FLAG, &(d)->validate,                                                 \
         .help = "Vulkan validation layers; any message is an error"},                             \
        {"check-hazards", VKM_OPT_FLAG, &(d)->check_hazards,                                       \
         .help = "prove the barriers of every submit"},                                            \
        {"shaders", VKM_OPT_STRING, &(d)->shaders, .arg = "DIR",                                   \
         .help = "development: a folder whose NAME.spv replace built-in shaders"},                 \
    {                                                                                              \
        "profile", VKM_OPT_FLAG, &(d)->profile,                                                    \
            .help = "print the time of every kernel at the end"                                    \
    }
#define VKM_CLI_JSON(p)                                                                            \
    { "json", VKM_OPT_FLAG, (p), .help = "print JSON instead of a table" }

/* Makes a choice of `auto`: vulkan for a named --device or where there is a GPU, else cpu. */
vkm_status vkm_cli_choose_backend(vkm_cli_device *d, vkm_err *err) VKM_MUST_CHECK;
/* Opens what the options name and logs its name and driver. */
vkm_status vkm_cli_open_device(vkm_cli_device *d, const vkm_config *c, vkm_dev **out,
                               vkm_err *err) VKM_MUST_CHECK;
/* Prints the profile on stderr if it was asked for, and closes. Accepts NULL. */
void vkm_cli_close_device(const vkm_cli_device *d, vkm_dev *dev);

/* Config of a command: positional CONFIG (a preset or a JSON file), --set key=value, and every key
 * of rl/config.def as a long option. Put the rows of vkm_cli_config_opts behind the command's own;
 * the file is read and the options applied over it by vkm_cli_config_resolve, after the parse. */
typedef struct vkm_cli_config {
    const char *path; /* NULL: defaults */
    size_t n;
    struct vkm_cli_set {
        const char *key, *text; /* key NULL: text is key=value */
    } sets[256];
} vkm_cli_config;
#define VKM_CLI_MAX_OPTS 256
size_t vkm_cli_config_opts(vkm_cli_config *c, vkm_opt *out);
vkm_status vkm_cli_config_resolve(const vkm_cli_config *c, vkm_config *out,
                                  vkm_err *err) VKM_MUST_CHECK;

#define COMMAND(name, fn, summary) vkm_status fn(int argc, char **argv, vkm_err *err);
#include "cli/commands.def"
#undef COMMAND

/* The whole program; returns its exit code. */
int vkm_cli_main(int argc, char **argv);

#endif
