/* libFuzzer target: config.json, and (behind a zero byte) generation_config.json. What is taken is
 * in range, and is the same again when it is saved and loaded. */
#include "base/file.h"
#include "model/hf_config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void put(const char *folder, const char *name, const uint8_t *data, size_t n) {
    char path[VKM_PATH_MAX];
    vkm_err err = {0};
    if (vkm_path_join(path, folder, name, &err)) abort();
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static char folder[64], saved[80];
    vkm_model_config a, b;
    vkm_err err = {0};
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/dev/shm/vkmoe-fuzz-%d", (int)getpid());
        snprintf(saved, sizeof saved, "%s/saved", folder);
        if (vkm_dir_make(saved, &err)) abort();
    }
    const uint8_t *cut = n ? memchr(data, 0, n) : NULL;
    size_t first = cut ? (size_t)(cut - data) : n;
    put(folder, "config.json", data, first);
    put(folder, "generation_config.json", cut ? cut + 1 : (const uint8_t *)"{}",
        cut ? n - first - 1 : 2);
    if (vkm_model_config_load(folder, &a, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    if (!a.C || !a.H || !a.K || a.H % a.K || a.D % 4 || a.n_eos > VKM_EOS_MAX ||
        !(a.rope.theta >= 1))
        abort();
    if (vkm_model_config_n_params(&a) == 0) abort();
    if (vkm_model_config_save(&a, saved, &err) || vkm_model_config_load(saved, &b, &err)) abort();
    if (a.C != b.C || a.D != b.D || a.V != b.V || a.max_pos != b.max_pos || a.arch != b.arch ||
        a.norm_eps != b.norm_eps || memcmp(&a.rope, &b.rope, sizeof a.rope) != 0 ||
        a.tied != b.tied)
        abort();
    return 0;
}
