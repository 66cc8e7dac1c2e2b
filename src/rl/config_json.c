/* Owns the JSON form of a config, and where shipped files are found. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "rl/config.h"

static vkm_status read_key(vkm_config *c, const vkm_key *k, vkm_jv v, vkm_err *err) {
    void *field = (char *)c + k->offset;
    const char *text;
    bool flag;
    switch (k->type) {
    case VKM_KEY_INT:
        return vkm_json_i64(v, (int64_t)k->min, (int64_t)k->max, field, err);
    case VKM_KEY_FLOAT:
        if (vkm_json_typeof(v) == VKM_JSON_NULL && isnan(k->min)) {
            *(double *)field = NAN;
            return VKM_OK;
        }
        return vkm_json_double(v, isnan(k->min) ? 0 : k->min, k->max, field, err);
    case VKM_KEY_FLAG:
        if (vkm_json_bool(v, &flag, err)) return err->status;
        *(int *)field = flag;
        return VKM_OK;
    case VKM_KEY_CHOICE:
    case VKM_KEY_STRING: {
        vkm_err local = {0};
        if (vkm_json_str(v, &text, err)) return err->status;
        if (vkm_config_set(c, k->name, text, &local)) {
            const char *after_key = local.msg + strlen(k->name) + 2;
            return vkm_json_fail(v, err, "%s", after_key);
        }
        return VKM_OK;
    }
    case VKM_KEY_SECTION:
        break;
    }
    return VKM_OK;
}

vkm_status vkm_config_read(vkm_config *c, vkm_jv object, vkm_err *err) {
    const char *names[512] = {0};
    size_t n = 0;
    VKM_BUG_ON(vkm_n_keys > VKM_COUNTOF(names), "%zu keys", vkm_n_keys);
    for (size_t i = 0; i < vkm_n_keys; i++)
        if (vkm_keys[i].type != VKM_KEY_SECTION) names[n++] = vkm_keys[i].name;
    if (vkm_json_known_keys(object, names, n, err)) return err->status;
    for (size_t i = 0; i < vkm_n_keys; i++) {
        if (vkm_keys[i].type == VKM_KEY_SECTION) continue;
        vkm_jv v = vkm_json_find(object, vkm_keys[i].name);
        if (v.v && read_key(c, &vkm_keys[i], v, err)) return err->status;
    }
    return VKM_OK;
}

void vkm_config_write(const vkm_config *c, vkm_jw *w) {
    char choice[VKM_VALUE_BYTES];
    for (size_t i = 0; i < vkm_n_keys; i++) {
        const vkm_key *k = &vkm_keys[i];
        const void *p = (const char *)c + k->offset;
        switch (k->type) {
        case VKM_KEY_INT:
            vkm_jw_i64(w, k->name, *(const int64_t *)p);
            break;
        case VKM_KEY_FLOAT:
            vkm_jw_double(w, k->name, *(const double *)p);
            break;
        case VKM_KEY_FLAG:
            vkm_jw_bool(w, k->name, *(const int *)p);
            break;
        case VKM_KEY_CHOICE:
            vkm_jw_str(w, k->name, vkm_config_value(c, k, choice));
            break;
        case VKM_KEY_STRING:
            vkm_jw_str(w, k->name, p);
            break;
        case VKM_KEY_SECTION:
            break;
        }
    }
}

static vkm_status no_preset(const char *name, vkm_err *err) {
    char dir[VKM_CONFIG_STRING_BYTES], names[512] = "";
    struct dirent **list = NULL;
    if (vkm_shipped_path("configs", dir, err)) return err->status;
    int n = scandir(dir, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        const char *end = strstr(list[i]->d_name, ".json");
        size_t at = strlen(names);
        if (end)
            snprintf(names + at, sizeof names - at, " %.*s", (int)(end - list[i]->d_name),
                     list[i]->d_name);
        free(list[i]);
    }
    free(list);
    return vkm_fail(err, VKM_USAGE,
                    "no preset '%.100s'; there are:%s; the path of a file ends in .json", name,
                    names);
}

vkm_status vkm_config_load(vkm_config *c, const char *path, vkm_err *err) {
    char found[VKM_CONFIG_STRING_BYTES], preset[VKM_CONFIG_STRING_BYTES];
    size_t n = strlen(path);
    int is_path = strchr(path, '/') || (n > 5 && !strcmp(path + n - 5, ".json"));
    if (!is_path) {
        if ((size_t)snprintf(preset, sizeof preset, "configs/%s.json", path) >= sizeof preset)
            return vkm_fail(err, VKM_USAGE, "the name of the preset is too long");
        vkm_err local = {0};
        if (vkm_shipped_path(preset, found, &local)) return no_preset(path, err);
        path = found;
    }
    vkm_json *doc = NULL;
    if (vkm_json_load(path, NULL, &doc, err)) return err->status;
    vkm_jv root = vkm_json_root(doc), config = root;
    if (vkm_json_typeof(root) == VKM_JSON_OBJECT && vkm_json_find(root, "config").v)
        config = vkm_json_find(root, "config"); /* config.json of a run folder */
    vkm_status st = vkm_config_read(c, config, err);
    vkm_json_free(doc);
    return st;
}

vkm_status vkm_shipped_path(const char *relative, char out[VKM_CONFIG_STRING_BYTES], vkm_err *err) {
    char dir[VKM_PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", dir, sizeof dir - 1);
    if (vkm_file_exists(relative) || vkm_dir_exists(relative)) {
        if ((size_t)snprintf(out, VKM_CONFIG_STRING_BYTES, "%s", relative) <
            VKM_CONFIG_STRING_BYTES)
            return VKM_OK;
    }
    dir[n > 0 ? n : 0] = 0;
    for (char *slash; (slash = strrchr(dir, '/'));) {
        *slash = 0;
        static const char *const below[] = {"", "/share/vkmoe"};
        for (size_t i = 0; i < VKM_COUNTOF(below); i++) {
            int len = snprintf(out, VKM_CONFIG_STRING_BYTES, "%s%s/%s", dir, below[i], relative);
            if (len < VKM_CONFIG_STRING_BYTES && (vkm_file_exists(out) || vkm_dir_exists(out)))
                return VKM_OK;
        }
    }
    return vkm_fail(err, VKM_USAGE,
                    "'%s' is neither in the working folder nor in one above the program", relative);
}
