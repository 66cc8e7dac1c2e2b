/* Turns the rows of rl/config.def into options, and options into a config. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static vkm_status keep(void *value, const char *name, const char *text, vkm_err *err) {
    vkm_cli_config *c = value;
    if (c->n == VKM_COUNTOF(c->sets))
        return vkm_fail(err, VKM_USAGE, "--%s: more than %zu settings", name, c->n);
    c->sets[c->n++] = (struct vkm_cli_set){strcmp(name, "set") != 0 ? name : NULL, text};
    return VKM_OK;
}

static const char *default_of(const char *name, char out[1024]) {
    _Static_assert(VKM_VALUE_BYTES <= 1024, "room for a value");
    static vkm_config defaults;
    vkm_config_default(&defaults);
    out[0] = 0;
    for (size_t i = 0; i < vkm_n_keys; i++)
        if (!strcmp(vkm_keys[i].name, name)) vkm_config_value(&defaults, &vkm_keys[i], out);
    return out;
}

size_t vkm_cli_config_opts(vkm_cli_config *c, vkm_opt *out) {
    size_t n = 0;
    out[n++] = (vkm_opt){"CONFIG", VKM_OPT_ARG_MAYBE, &c->path,
                         .help = "a preset (configs/*.json by name) or a JSON file"};
    out[n++] = (vkm_opt){
        "set",        VKM_OPT_EACH,       c,
        .each = keep, .arg = "KEY=VALUE", .help = "one key of the config; or any of these:"};
    for (size_t i = 0; i < vkm_n_keys; i++)
        if (vkm_keys[i].type != VKM_KEY_SECTION)
            out[n++] = (vkm_opt){vkm_keys[i].name,
                                 VKM_OPT_EACH,
                                 c,
                                 .each = keep,
                                 .arg = vkm_keys[i].choices,
                                 .help = vkm_keys[i].meaning,
                                 .shown = default_of};
    return n;
}

vkm_status vkm_cli_config_resolve(const vkm_cli_config *c, vkm_config *out, vkm_err *err) {
    vkm_config_default(out);
    if (c->path && vkm_config_load(out, c->path, err)) return err->status;
    for (size_t i = 0; i < c->n; i++) {
        const struct vkm_cli_set *s = &c->sets[i];
        char key[64];
        const char *eq = s->key ? NULL : strchr(s->text, '=');
        if (!s->key && !eq)
            return vkm_fail(err, VKM_USAGE, "--set: '%s' is not KEY=VALUE", s->text);
        snprintf(key, sizeof key, "%.*s", eq ? (int)(eq - s->text) : 63, eq ? s->text : s->key);
        if (vkm_config_set(out, key, eq ? eq + 1 : s->text, err)) return err->status;
    }
    return VKM_OK;
}
