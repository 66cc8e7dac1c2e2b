/* libFuzzer target: problems, JSON lines with asserts. */
#include "env/problems.h"

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
    vkm_problems *p;
    vkm_err err = {0};
    if (vkm_problems_load(path, &p, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    if (!p->n && !p->n_refused) abort();
    for (size_t i = 0; i < p->n; i++)
        if (!p->items[i].system || !p->items[i].canonical_solution) abort();
    vkm_problems_free(p);
    return 0;
}
