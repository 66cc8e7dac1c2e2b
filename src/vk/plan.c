/* Memory plans: what is asked for, how it is packed into arenas, and how it is freed. */
#include <stdlib.h>
#include <string.h>

#include "vk/backend.h"

enum { ALIGN = 256, PAD = 4096 }; /* drivers may read one loop step past a tensor */

typedef struct request {
    vkm_tensor *out;
    vkm_dtype dtype;
    uint64_t n, bytes, offset;
    const char *category;
    uint32_t arena;
} request;

struct vkm_plan {
    vkm_dev *dev;
    request *v;
    uint32_t n, cap;
};

struct vkm_mem {
    vkm_dev *dev;
    uint32_t n;
    vkm_arena arenas[];
};

vkm_plan *vkm_plan_new(vkm_dev *dev) {
    vkm_plan *p = calloc(1, sizeof *p);
    VKM_BUG_ON(!p, "no memory for a plan");
    p->dev = dev;
    return p;
}

void vkm_plan_free(vkm_plan *p) {
    if (!p) return;
    free(p->v);
    free(p);
}

static uint32_t element_bytes(const vkm_dev *dev, vkm_dtype dtype) {
    if (dtype != VKM_U32 && dev->options.backend == VKM_ORACLE) return 8;
    return dtype == VKM_BF16 ? 2 : 4;
}

void vkm_plan_add(vkm_plan *p, vkm_tensor *out, vkm_dtype dtype, uint64_t n, const char *category) {
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 64;
        p->v = realloc(p->v, p->cap * sizeof *p->v);
        VKM_BUG_ON(!p->v, "no memory for a plan");
    }
    uint64_t bytes = vkm_round_up((n ? n : 1) * element_bytes(p->dev, dtype), ALIGN);
    p->v[p->n++] =
        (request){.out = out, .dtype = dtype, .n = n, .bytes = bytes, .category = category};
}

uint64_t vkm_plan_bytes(const vkm_plan *p) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < p->n; i++) total += p->v[i].bytes;
    return total;
}

void vkm_plan_print(const vkm_plan *p, FILE *f) {
    fprintf(f, "%-28s %8s %14s\n", "memory plan", "tensors", "MiB");
    for (uint32_t i = 0; i < p->n; i++) {
        uint64_t bytes = 0;
        uint32_t count = 0, first = 0;
        while (strcmp(p->v[first].category, p->v[i].category) != 0) first++;
        if (first != i) continue;
        for (uint32_t j = i; j < p->n; j++)
            if (strcmp(p->v[j].category, p->v[i].category) == 0) bytes += p->v[j].bytes, count++;
        fprintf(f, "%-28s %8u %14.2f\n", p->v[i].category, count, (double)bytes / 1048576);
    }
    fprintf(f, "%-28s %8u %14.2f\n", "total", p->n, (double)vkm_plan_bytes(p) / 1048576);
}

vkm_status vkm_plan_commit(vkm_plan *p, vkm_mem **out, vkm_err *err) {
    vkm_dev *dev = p->dev;
    uint64_t limit = dev->max_alloc_bytes - PAD, total = vkm_plan_bytes(p);
    uint64_t *size = NULL;
    vkm_mem *mem = NULL;
    if (dev->budget_bytes && total > dev->budget_bytes) {
        vkm_fail(err, VKM_FAILED,
                 "memory: the plan needs %llu MiB, %s has %llu MiB free; see --dry-run, then lower "
                 "the batch, the lengths or the rank",
                 (unsigned long long)(total >> 20), dev->name,
                 (unsigned long long)(dev->budget_bytes >> 20));
        goto fail;
    }
    size = vkm_calloc(p->n + 1, sizeof *size, "a memory plan", err);
    if (!size) goto fail;
    uint32_t n_arenas = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        request *r = &p->v[i];
        if (r->bytes > limit) {
            vkm_fail(err, VKM_FAILED, "memory: one tensor of '%s' needs %llu MiB, %s allows %llu",
                     r->category, (unsigned long long)(r->bytes >> 20), dev->name,
                     (unsigned long long)(limit >> 20));
            goto fail;
        }
        uint32_t a = 0;
        while (a < n_arenas && size[a] + r->bytes > limit) a++;
        if (a == n_arenas) n_arenas++;
        r->arena = a;
        r->offset = size[a];
        size[a] += r->bytes;
    }
    mem = vkm_calloc(1, sizeof *mem + n_arenas * sizeof mem->arenas[0], "arenas", err);
    if (!mem) goto fail;
    mem->dev = dev;
    for (; mem->n < n_arenas; mem->n++)
        if (dev->backend->alloc(dev, size[mem->n] + PAD, &mem->arenas[mem->n], err)) goto fail;
    for (uint32_t i = 0; i < p->n; i++) {
        request *r = &p->v[i];
        *r->out = (vkm_tensor){mem->arenas[r->arena].base + r->offset, r->n,
                               element_bytes(dev, r->dtype), r->dtype};
    }
    *out = mem;
    free(size);
    vkm_plan_free(p);
    return VKM_OK;
fail:
    free(size);
    vkm_mem_free(mem);
    vkm_plan_free(p);
    return err->status;
}

void vkm_mem_free(vkm_mem *mem) {
    if (!mem) return;
    while (mem->n) mem->dev->backend->release(mem->dev, &mem->arenas[--mem->n]);
    free(mem);
}
