/* What a stream calls: nodes run once, or compiled to command buffers that are submitted again. */
#include <stdlib.h>

#include "base/log.h"
#include "vk/vk_private.h"

static vkm_status begin(vk_dev *vk, VkCommandBuffer cb, VkCommandBufferUsageFlags usage,
                        vkm_err *err) {
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = usage};
    VkResult r = vkBeginCommandBuffer(cb, &info);
    return r ? vkm_vk_fail(vk, err, r, "vkBeginCommandBuffer") : VKM_OK;
}

static vkm_status end(vk_dev *vk, VkCommandBuffer cb, vkm_err *err) {
    VkResult r = vkEndCommandBuffer(cb);
    return r ? vkm_vk_fail(vk, err, r, "vkEndCommandBuffer") : VKM_OK;
}

/* Runs a pipeline over an empty grid, alone. */
static vkm_status run_empty(vk_dev *vk, const vk_slice *s, VkPipeline pipeline, vkm_err *err) {
    static const unsigned char none[VKM_MAX_PUSH];
    const vk_kernel *k = &vk->kernels[s->kernel];
    vk_slot *slot;
    if (vkm_vk_slot_apart(vk, &slot, err) ||
        begin(vk, slot->cb, VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, err))
        return err->status;
    vkCmdBindPipeline(slot->cb, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    if (k->push_bytes)
        vkCmdPushConstants(slot->cb, k->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, k->push_bytes,
                           none);
    vkCmdDispatch(slot->cb, 0, 0, 0);
    if (end(vk, slot->cb, err) || vkm_vk_queue_submit(vk, slot->cb, &slot->value, err))
        return err->status;
    double start = vkm_now_s();
    if (vkm_vk_wait(vk, slot->value, err)) return err->status;
    vkm_debug("first dispatch of %s: %.0f ms", k->kernel->name, 1e3 * (vkm_now_s() - start));
    return VKM_OK;
}

/* Makes the pipelines of slices before any clock runs. Drivers that run shaders on the CPU compile
 * a pipeline when it is first dispatched, some take a second: one after the other, so that no
 * submit of many new kernels comes near the time-out, and no rate is learned from compiling. */
static vkm_status compile_pipelines(vk_dev *vk, const vkm_nodes *nodes, const vk_slice *slices,
                                    uint32_t n, vkm_err *err) {
    uint8_t made[VK_SLICES];
    VKM_BUG_ON(n > VK_SLICES, "%u slices", n);
    if (vkm_vk_pipelines_make(vk, nodes, slices, n, made, err)) return err->status;
    for (uint32_t i = 0; i < n && vk->dev->class == VKM_CLASS_CPU_DRIVER; i++) {
        const vk_slice *s = &slices[i];
        if (made[i] &&
            run_empty(vk, s, vkm_vk_pipeline(vk, s->kernel, nodes->v[s->node].how.spec, s->split),
                      err))
            return err->status;
    }
    return VKM_OK;
}

vkm_status vkm_vk_run(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err) {
    vk_dev *vk = vkm_vk_of(dev);
    int each = dev->options.profile && vk->tick_s > 0;
    uint32_t cap = each ? VK_PROFILE_SLICES : VK_SLICES;
    vk_cursor at = {0};
    while (at.node < nodes->n) {
        vk_slot *slot;
        uint32_t n;
        if (vkm_vk_slot_take(vk, &slot, err)) goto fail;
        if (vkm_vk_slices_next(vk, nodes, &at, slot->slices, cap, &n, err)) goto fail;
        if (compile_pipelines(vk, nodes, slot->slices, n, err)) goto fail;
        if (begin(vk, slot->cb, VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT, err)) goto fail;
        vkm_vk_record(vk, slot->cb, nodes, slot->slices, n, slot->queries, each);
        if (end(vk, slot->cb, err)) goto fail;
        slot->n_slices = n;
        slot->nodes = nodes;
        if (vkm_vk_queue_submit(vk, slot->cb, &slot->value, err)) goto fail;
        dev->n_dispatches += n;
    }
    if (vkm_vk_slots_drain(vk, err)) goto fail;
    return vkm_vk_check_messages(vk, err);
fail:
    /* the nodes belong to the caller: nothing may look at them later */
    if (!vk->lost) {
        vkm_err second = {0};
        if (vkm_vk_slots_drain(vk, &second)) vkm_debug("%s", second.msg);
    }
    return err->status;
}

/* ---- graphs
 * ------------------------------------------------------------------------------------------ */

/* A graph's command buffers, a submit each. */
typedef struct segment {
    VkCommandBuffer cb;
    uint32_t first_slice, n_slices;
} segment;

typedef struct compiled {
    VkCommandPool pool;
    segment *segments;
    uint32_t n, cap;
    vk_slice *slices;
    uint32_t n_slices, cap_slices;
    int stale; /* its segments turned out too long or needlessly short */
} compiled;

static void forget(vk_dev *vk, compiled *c) {
    if (!vk->lost) vkDestroyCommandPool(vk->device, c->pool, NULL);
    c->pool = VK_NULL_HANDLE;
    c->n = c->n_slices = 0;
    c->stale = 0;
}

void vkm_vk_free_compiled(vkm_dev *dev, void *impl) {
    compiled *c = impl;
    if (!c) return;
    forget(vkm_vk_of(dev), c);
    free(c->segments);
    free(c->slices);
    free(c);
}

static vkm_status add_segment(vk_dev *vk, const vkm_nodes *nodes, compiled *c, vk_cursor *at,
                              vkm_err *err) {
    if (c->n == c->cap) {
        uint32_t cap = c->cap ? 2 * c->cap : 4;
        segment *v = realloc(c->segments, cap * sizeof *v);
        if (!v) return vkm_fail(err, VKM_FAILED, "out of host memory for a graph");
        c->segments = v;
        c->cap = cap;
    }
    if (c->cap_slices - c->n_slices < VK_SLICES) {
        uint32_t cap = c->n_slices + VK_SLICES + c->n_slices / 2;
        vk_slice *v = realloc(c->slices, cap * sizeof *v);
        if (!v) return vkm_fail(err, VKM_FAILED, "out of host memory for a graph");
        c->slices = v;
        c->cap_slices = cap;
    }
    segment s = {.first_slice = c->n_slices};
    vk_slice *slices = c->slices + s.first_slice;
    if (vkm_vk_slices_next(vk, nodes, at, slices, VK_SLICES, &s.n_slices, err) ||
        compile_pipelines(vk, nodes, slices, s.n_slices, err))
        return err->status;
    VkCommandBufferAllocateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
        .commandPool = c->pool,
        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
        .commandBufferCount = 1,
    };
    VkResult r = vkAllocateCommandBuffers(vk->device, &info, &s.cb);
    if (r) return vkm_vk_fail(vk, err, r, "vkAllocateCommandBuffers");
    c->segments[c->n++] = s;
    c->n_slices += s.n_slices;
    if (begin(vk, s.cb, VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT, err)) return err->status;
    vkm_vk_record(vk, s.cb, nodes, slices, s.n_slices, VK_NULL_HANDLE, 0);
    return end(vk, s.cb, err);
}

static vkm_status record_graph(vk_dev *vk, const vkm_nodes *nodes, compiled *c, vkm_err *err) {
    VkCommandPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = vk->family};
    VkResult r = vkCreateCommandPool(vk->device, &info, NULL, &c->pool);
    if (r) return vkm_vk_fail(vk, err, r, "vkCreateCommandPool");
    vk_cursor at = {0};
    while (at.node < nodes->n)
        if (add_segment(vk, nodes, c, &at, err)) return err->status;
    return VKM_OK;
}

vkm_status vkm_vk_compile(vkm_dev *dev, const vkm_nodes *nodes, void **impl, vkm_err *err) {
    vk_dev *vk = vkm_vk_of(dev);
    *impl = NULL;
    if (dev->options.profile) return VKM_OK; /* each run is timed kernel by kernel instead */
    compiled *c = vkm_calloc(1, sizeof *c, "a graph", err);
    if (!c) return err->status;
    if (record_graph(vk, nodes, c, err) || vkm_vk_check_messages(vk, err)) {
        vkm_vk_free_compiled(dev, c);
        return err->status;
    }
    *impl = c;
    return VKM_OK;
}

/* Submits all segments once and waits; the clock corrects the rates segment by segment. */
static vkm_status run_timed(vk_dev *vk, compiled *c, vkm_err *err) {
    double longest = 0, total = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        const segment *s = &c->segments[i];
        uint64_t value;
        double start = vkm_now_s();
        if (vkm_vk_queue_submit(vk, s->cb, &value, err)) return err->status;
        if (vkm_vk_wait(vk, value, err)) return err->status;
        double took = vkm_now_s() - start;
        vkm_vk_learn(vk, c->slices + s->first_slice, s->n_slices, took);
        longest = took > longest ? took : longest;
        total += took;
    }
    c->stale = longest > 0.2 || (c->n > 1 && total / c->n < 0.05);
    return VKM_OK;
}

/* Keeps a few submits in flight: the device goes from one to the next without the host. */
static vkm_status run_again(vk_dev *vk, const compiled *c, uint32_t times, vkm_err *err) {
    for (uint32_t t = 0; t < times; t++)
        for (uint32_t i = 0; i < c->n; i++) {
            uint64_t value;
            if (vkm_vk_queue_submit(vk, c->segments[i].cb, &value, err)) return err->status;
            if (value > VK_SLOTS && vkm_vk_wait(vk, value - VK_SLOTS, err)) return err->status;
        }
    return VKM_OK;
}

vkm_status vkm_vk_run_compiled(vkm_dev *dev, const vkm_nodes *nodes, void *impl, uint32_t times,
                               vkm_err *err) {
    vk_dev *vk = vkm_vk_of(dev);
    compiled *c = impl;
    for (; !c && times > 0; times--)
        if (vkm_vk_run(dev, nodes, err)) return err->status;
    if (!times) return VKM_OK;
    if (c->stale) {
        forget(vk, c);
        if (record_graph(vk, nodes, c, err)) return err->status;
    }
    vkm_err waited = {0};
    if (!run_timed(vk, c, err)) (void)!run_again(vk, c, times - 1, err);
    if (!vk->lost && vkm_vk_wait(vk, vk->submitted, &waited))
        vkm_fail(err, waited.status, "%s", waited.msg);
    if (err->status) return err->status;
    dev->n_dispatches += (uint64_t)times * c->n_slices;
    return vkm_vk_check_messages(vk, err);
}
