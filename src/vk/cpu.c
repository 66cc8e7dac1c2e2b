/* The cpu and oracle backends: nodes run as reference twins, one after another, each split
 * statically over the threads. Memory is host memory. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/team.h"
#include "vk/backend.h"

#if defined(__x86_64__)
#include <immintrin.h>
static uint32_t fp_state_get(void) {
    return _mm_getcsr();
}
static void fp_state_set(uint32_t s) {
    _mm_setcsr(s);
}
enum { FLUSH = 0x8040, DEFAULT_STATE = 0x1f80 }; /* FTZ and DAZ; all exceptions masked */
#else
static uint32_t fp_state_get(void) {
    return 0;
}
static void fp_state_set(uint32_t s) {
    (void)s;
}
enum { FLUSH = 0, DEFAULT_STATE = 0 };
#endif

static vkm_status cpu_alloc(vkm_dev *dev, uint64_t bytes, vkm_arena *out, vkm_err *err) {
    size_t size = (size_t)vkm_round_up(bytes, 64);
    void *p = aligned_alloc(64, size);
    if (!p)
        return vkm_fail(err, VKM_FAILED, "out of host memory: %llu MiB asked for",
                        (unsigned long long)(bytes >> 20));
    memset(p, 0, size);
    *out = (vkm_arena){.base = (uint64_t)(uintptr_t)p, .bytes = bytes, .impl = p};
    dev->budget_bytes = vkm_host_memory_free();
    return VKM_OK;
}

static void cpu_release(vkm_dev *dev, vkm_arena *arena) {
    free(arena->impl);
    dev->budget_bytes = vkm_host_memory_free();
}

static vkm_status cpu_write(vkm_dev *dev, uint64_t addr, const void *src, uint64_t bytes,
                            vkm_err *err) {
    (void)dev, (void)err;
    memcpy((void *)(uintptr_t)addr, src, bytes);
    return VKM_OK;
}

static vkm_status cpu_read(vkm_dev *dev, uint64_t addr, void *dst, uint64_t bytes, vkm_err *err) {
    (void)dev, (void)err;
    memcpy(dst, (const void *)(uintptr_t)addr, bytes);
    return VKM_OK;
}

static vkm_status cpu_zero(vkm_dev *dev, uint64_t addr, uint64_t bytes, vkm_err *err) {
    (void)dev, (void)err;
    memset((void *)(uintptr_t)addr, 0, bytes);
    return VKM_OK;
}

typedef struct share {
    vkm_ref_fn fn;
    const void *args;
    uint32_t fp_state;
} share;

static void run_share(void *user, uint32_t i, uint32_t n) {
    const share *s = user;
    uint32_t saved = fp_state_get();
    fp_state_set(s->fp_state);
    s->fn(s->args, (vkm_part){i, n});
    fp_state_set(saved);
}

/* Parts for each thread: more of longer kernels, so that their threads end together. */
static uint32_t parts_each(const vkm_dev *dev, double work) {
    enum { MOST = 8, LEAST_WORK = 1000000 };
    double each = work / LEAST_WORK / dev->threads;
    return each > MOST ? MOST : each < 1 ? 1 : (uint32_t)each;
}

static void run_node(vkm_dev *dev, const vkm_node *node) {
    int oracle = dev->options.backend == VKM_ORACLE;
    share s = {.fn = oracle ? node->kernel->ref64 : node->kernel->ref,
               .args = node->args,
               .fp_state = DEFAULT_STATE | (dev->options.flush_denormals && !oracle ? FLUSH : 0)};
    /* waking the team costs more than a small kernel */
    if (node->how.work < 20000 && !dev->options.thread_all)
        run_share(&s, 0, 1);
    else
        vkm_team_run(dev->impl, parts_each(dev, node->how.work), run_share, &s);
}

static vkm_status cpu_run(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err) {
    (void)err;
    for (uint32_t i = 0; i < nodes->n; i++) {
        const vkm_node *node = &nodes->v[i];
        double start = dev->options.profile ? vkm_now_s() : 0;
        run_node(dev, node);
        if (dev->options.profile)
            vkm_dev_account(dev, node->kernel, vkm_now_s() - start, vkm_node_bytes(node));
    }
    return VKM_OK;
}

static vkm_status cpu_compile(vkm_dev *dev, const vkm_nodes *nodes, void **impl, vkm_err *err) {
    (void)dev, (void)nodes, (void)err;
    *impl = NULL;
    return VKM_OK;
}

static vkm_status cpu_run_compiled(vkm_dev *dev, const vkm_nodes *nodes, void *impl, uint32_t times,
                                   vkm_err *err) {
    (void)impl;
    for (uint32_t i = 0; i < times; i++) {
        vkm_status st = cpu_run(dev, nodes, err);
        if (st) return st;
    }
    return VKM_OK;
}

static void cpu_free_compiled(vkm_dev *dev, void *impl) {
    (void)dev, (void)impl;
}

static void cpu_close(vkm_dev *dev) {
    vkm_team_free(dev->impl);
}

static const vkm_backend cpu_backend = {
    cpu_alloc, cpu_release, cpu_write,        cpu_read,          cpu_zero,
    cpu_run,   cpu_compile, cpu_run_compiled, cpu_free_compiled, cpu_close,
};

vkm_status vkm_cpu_open(vkm_dev *dev, vkm_err *err) {
    dev->backend = &cpu_backend;
    dev->class = VKM_CLASS_CPU_DRIVER;
    dev->max_alloc_bytes = UINT64_MAX;
    dev->budget_bytes = vkm_host_memory_free();
    dev->threads = dev->options.threads > 0 ? dev->options.threads : (int)vkm_cpu_count();
    int oracle = dev->options.backend == VKM_ORACLE;
    snprintf(dev->name, sizeof dev->name, "%s", oracle ? "double oracle" : "cpu reference");
    snprintf(dev->driver, sizeof dev->driver, "%d threads", dev->threads);
    vkm_team *team;
    if (vkm_team_new((uint32_t)dev->threads, &team, err)) return err->status;
    dev->impl = team;
    return VKM_OK;
}
