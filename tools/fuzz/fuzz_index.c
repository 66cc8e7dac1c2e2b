/* libFuzzer target: model.safetensors.index.json beside one shard of two tensors. */
#include "base/file.h"
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static char folder[64], path[128];
    vkm_err err = {0};
    if (!folder[0]) {
        const float x[3] = {1, 2, 3};
        const vkm_st_entry e[] = {{"x", VKM_ST_F32, 1, {2}}, {"y", VKM_ST_F32, 1, {1}}};
        vkm_st_writer w;
        snprintf(folder, sizeof folder, "/dev/shm/vkmoe-fuzz-%d", (int)getpid());
        snprintf(path, sizeof path, "%s/a.safetensors", folder);
        if (vkm_dir_make(folder, &err) || vkm_st_writer_begin(&w, path, e, 2, NULL, 0, &err) ||
            vkm_st_writer_add(&w, x, sizeof x, &err) || vkm_st_writer_commit(&w, &err))
            abort();
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    }
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f)) abort();
    vkm_st *s;
    if (vkm_st_open(folder, &s, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    if (vkm_st_count(s) > 2) abort();
    for (size_t i = 0; i < vkm_st_count(s); i++) {
        const vkm_st_tensor *t = vkm_st_at(s, i);
        float out[2];
        if (vkm_st_find(s, t->name) != t || vkm_st_to_f32(t, 0, t->n_elems, out, &err)) abort();
    }
    vkm_st_close(s);
    return 0;
}
