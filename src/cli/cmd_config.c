/* `vkmoe config`: every key, its value and its meaning; every arm. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "rl/arms.h"

static void print_range(const vkm_key *k) {
    if (k->type == VKM_KEY_CHOICE || k->type == VKM_KEY_FLAG)
        printf("  (%s)", k->choices);
    else if (k->type == VKM_KEY_INT)
        printf("  (%.0f to %.0f)", k->min, k->max);
    else if (k->type == VKM_KEY_FLOAT && isnan(k->min))
        printf("  (nan, or 0 to %g)", k->max);
    else if (k->type == VKM_KEY_FLOAT)
        printf("  (%g to %g)", k->min, k->max);
}

static void print_text(const vkm_config *c) {
    char value[VKM_VALUE_BYTES];
    for (size_t i = 0; i < vkm_n_keys; i++) {
        const vkm_key *k = &vkm_keys[i];
        if (k->type == VKM_KEY_SECTION) {
            printf("%s# %s\n", i ? "\n" : "", k->name);
            continue;
        }
        printf("%-24s %-14s %s", k->name, vkm_config_value(c, k, value), k->meaning);
        print_range(k);
        putchar('\n');
    }
    printf("\n# Arms\n");
    for (uint32_t i = 0; i < vkm_n_arms; i++)
        printf("%-24s %s\n", vkm_arms[i].name, vkm_arms[i].doc);
}

static vkm_status print_json(const vkm_config *c, vkm_err *err) {
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 2);
    vkm_jw_obj(&w, NULL);
    vkm_config_write(c, &w);
    vkm_jw_end_obj(&w);
    vkm_status st = vkm_strbuf_check(&text, "the config", err);
    if (!st) puts(vkm_strbuf_str(&text));
    vkm_strbuf_free(&text);
    return st;
}

vkm_status vkm_cmd_config(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config config;
    const char *preset = NULL;
    int json = 0;
    vkm_opt opts[VKM_CLI_MAX_OPTS] = {
        {"preset", VKM_OPT_STRING, &preset, .arg = "NAME", .help = "the same as CONFIG"},
        VKM_CLI_JSON(&json),
    };
    size_t n = 2 + vkm_cli_config_opts(&given, opts + 2);
    if (vkm_cli_parse(opts, n, argc, argv, err)) return err->status;
    if (preset) given.path = preset;
    if (vkm_cli_config_resolve(&given, &config, err)) return err->status;
    if (json) return print_json(&config, err);
    print_text(&config);
    return VKM_OK;
}
