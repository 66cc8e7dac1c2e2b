/* libFuzzer target: the safetensors reader. Every byte of every tensor it offers is read. */
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static int fd = -1;
    static char path[64];
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    if (ftruncate(fd, 0) || pwrite(fd, data, n, 0) != (ssize_t)n) abort();
    vkm_st *s;
    vkm_err err = {0};
    if (vkm_st_open(path, &s, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    uint64_t covered = 0;
    for (size_t i = 0; i < vkm_st_count(s); i++) {
        const vkm_st_tensor *t = vkm_st_at(s, i);
        uint16_t out[64];
        float f[64];
        covered += t->n_bytes;
        for (uint64_t at = 0; at < t->n_elems; at += 64) {
            uint64_t part = t->n_elems - at < 64 ? t->n_elems - at : 64;
            err = (vkm_err){0};
            if (vkm_st_to_bf16(t, at, part, out, &err) || vkm_st_to_f32(t, at, part, f, &err))
                break;
        }
        if (vkm_st_find(s, t->name) != t) abort();
    }
    if (covered > n) abort();
    vkm_st_close(s);
    return 0;
}
