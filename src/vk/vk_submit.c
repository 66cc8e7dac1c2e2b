/* Slices of bounded work. Drivers of a display kill what runs for seconds, so a submit holds about
 * TARGET_S by estimate, and a dispatch of more than LONGEST_S is cut along its grid. The estimate
 * is work / rate with a rate for each kernel that finished submits correct.
 *
 * Cutting must not change what a shader sees. Under vkCmdDispatchBase gl_WorkGroupID is the place
 * in the whole grid, but gl_NumWorkGroups is the size of the slice. Kernels use only
 * gl_NumWorkGroups.x, as the row length of a flat index (id.y * num.x + id.x). So a grid with rows
 * (y > 1) is cut between rows, which keeps num.x; without rows it may be cut inside x, where id.y =
 * 0. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vk/vk_private.h"

static const double TARGET_S = 0.1, LONGEST_S = 0.25;
static const double DISPATCH_S = 10e-6; /* what an empty one costs */

/* ---- slicing
 * ----------------------------------------------------------------------------------------- */

/* Rows of a grid that a cut may fall between: `inner` of them in each of z planes. */
static uint32_t inner_units(const uint32_t *g) {
    return g[1] > 1 ? g[1] : g[0];
}
static uint64_t all_units(const uint32_t *g) {
    return (uint64_t)g[2] * inner_units(g);
}

/* The largest box of at most `want` units that starts at unit u. */
static uint64_t box_at(const uint32_t *g, uint64_t u, uint64_t want, vk_slice *s) {
    uint32_t inner = inner_units(g), z = (uint32_t)(u / inner), i = (uint32_t)(u % inner);
    uint32_t rows = g[1] > 1 ? 1 : 0; /* which dimension the inner units lie along */
    uint32_t planes = i == 0 ? (uint32_t)(want / inner) : 0, n = inner - i;
    memcpy(s->count, g, sizeof s->count);
    s->base[0] = s->base[1] = 0;
    s->base[2] = z;
    if (planes) {
        s->count[2] = planes;
        return (uint64_t)planes * inner;
    }
    if (want < n) n = (uint32_t)want;
    s->count[2] = 1;
    s->base[rows] = i;
    s->count[rows] = n;
    return n;
}

vkm_status vkm_vk_slices_next(vk_dev *vk, const vkm_nodes *nodes, vk_cursor *at, vk_slice *out,
                              uint32_t cap, uint32_t *n, vkm_err *err) {
    double full_s = 0;
    *n = 0;
    while (at->node < nodes->n && *n < cap) {
        const vkm_node *node = &nodes->v[at->node];
        vk_slice s = {.node = at->node, .barrier = node->barrier && at->unit == 0};
        if (vkm_vk_kernel_get(vk, node->kernel, node->how.form, &s.kernel, err)) return err->status;
        uint64_t total = all_units(node->how.groups), left = total - at->unit, take = left;
        double whole_s = DISPATCH_S + node->how.work / vk->kernels[s.kernel].rate;
        double left_s = whole_s * (double)left / (double)total;
        if (full_s + left_s > TARGET_S) {
            int alone = full_s == 0 && whole_s <= LONGEST_S;
            if (!alone && whole_s <= LONGEST_S) return VKM_OK; /* opens the next submit */
            if (!alone && full_s > TARGET_S / 2) return VKM_OK;
            if (!alone) {
                double share = (TARGET_S - full_s) / whole_s * (double)total;
                take = share < 1 ? 1 : share < (double)left ? (uint64_t)share : left;
            }
        }
        take = box_at(node->how.groups, at->unit, take, &s);
        s.split = take != total;
        s.estimate_s = whole_s * (double)take / (double)total;
        full_s += s.estimate_s;
        at->unit += take;
        if (at->unit == total) {
            at->node++;
            at->unit = 0;
        }
        out[(*n)++] = s;
    }
    return VKM_OK;
}

/* Scales the rates of what ran by the time it took, each by its share of the estimate. What is
 * mostly the cost of dispatching teaches nothing, unless it was long all the same. */
void vkm_vk_learn(vk_dev *vk, const vk_slice *slices, uint32_t n, double seconds) {
    double work_s = 0, idle_s = n * DISPATCH_S, of[VK_MAX_KERNELS] = {0};
    for (uint32_t i = 0; i < n; i++) {
        double s = slices[i].estimate_s - DISPATCH_S;
        if (s <= 0) continue;
        of[slices[i].kernel] += s;
        work_s += s;
    }
    if (seconds < 1e-3 || work_s <= 0 || (work_s < idle_s && seconds < TARGET_S / 2)) return;
    double ratio = (work_s + idle_s) / seconds;
    ratio = ratio > 16 ? 16 : ratio < 1.0 / 16 ? 1.0 / 16 : ratio;
    for (uint32_t k = 0; k < vk->n_kernels; k++)
        vk->kernels[k].rate *= 1 + (ratio - 1) * (of[k] / work_s);
}

/* ---- recording
 * --------------------------------------------------------------------------------------- */

void vkm_vk_full_barrier(VkCommandBuffer cb) {
    VkMemoryBarrier b = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
        .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
        .dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                         VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
    };
    VkPipelineStageFlags both =
        VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    vkCmdPipelineBarrier(cb, both, both, 0, 1, &b, 0, NULL, 0, NULL);
}

/* The push-constant block of a node: an address for each tensor, and the scalars. */
static void push_block(const vkm_node *node, unsigned char *out) {
    uint32_t from = 0, to = 0;
    for (uint32_t i = 0; i < node->kernel->n_params; i++) {
        vkm_param_kind kind = node->kernel->params[i].kind;
        uint32_t a = vkm_param_offset(&from, kind), p = vkm_param_push_offset(&to, kind);
        size_t size = vkm_param_is_pointer(kind) ? sizeof(uint64_t) : sizeof(uint32_t);
        memcpy(out + p, node->args + a, size); /* a tensor starts with its address */
    }
}
_Static_assert(offsetof(vkm_tensor, addr) == 0, "push_block copies the head of a tensor");

void vkm_vk_record(vk_dev *vk, VkCommandBuffer cb, const vkm_nodes *nodes, const vk_slice *slices,
                   uint32_t n, VkQueryPool queries, int each_slice) {
    const VkPipelineStageFlagBits end_stage = VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT;
    if (queries) vkCmdResetQueryPool(cb, queries, 0, each_slice ? 2 * n : 2);
    vkm_vk_full_barrier(cb);
    if (queries && !each_slice) vkCmdWriteTimestamp(cb, end_stage, queries, 0);
    VkPipeline bound = VK_NULL_HANDLE;
    for (uint32_t i = 0; i < n; i++) {
        const vk_slice *s = &slices[i];
        const vkm_node *node = &nodes->v[s->node];
        const vk_kernel *k = &vk->kernels[s->kernel];
        unsigned char block[VKM_MAX_PUSH];
        VkPipeline pipeline = vkm_vk_pipeline(vk, s->kernel, node->how.spec, s->split);
        if (s->barrier || each_slice) vkm_vk_full_barrier(cb); /* timed ones must not overlap */
        if (queries && each_slice) vkCmdWriteTimestamp(cb, end_stage, queries, 2 * i);
        if (pipeline != bound) vkCmdBindPipeline(cb, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
        bound = pipeline;
        push_block(node, block);
        if (k->push_bytes)
            vkCmdPushConstants(cb, k->layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, k->push_bytes, block);
        if (s->split)
            vkCmdDispatchBase(cb, s->base[0], s->base[1], s->base[2], s->count[0], s->count[1],
                              s->count[2]);
        else
            vkCmdDispatch(cb, s->count[0], s->count[1], s->count[2]);
        if (queries && each_slice) vkCmdWriteTimestamp(cb, end_stage, queries, 2 * i + 1);
    }
    if (queries && !each_slice) vkCmdWriteTimestamp(cb, end_stage, queries, 1);
}

/* ---- submits and waits
 * ------------------------------------------------------------------------------- */

vkm_status vkm_vk_queue_submit(vk_dev *vk, VkCommandBuffer cb, uint64_t *value, vkm_err *err) {
    uint64_t next = vk->submitted + 1;
    VkTimelineSemaphoreSubmitInfo timeline = {
        .sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
        .signalSemaphoreValueCount = 1,
        .pSignalSemaphoreValues = &next,
    };
    VkSubmitInfo info = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
        .pNext = &timeline,
        .commandBufferCount = 1,
        .pCommandBuffers = &cb,
        .signalSemaphoreCount = 1,
        .pSignalSemaphores = &vk->timeline,
    };
    VkResult r = vkQueueSubmit(vk->queue, 1, &info, VK_NULL_HANDLE);
    if (r) return vkm_vk_fail(vk, err, r, "vkQueueSubmit");
    vk->submitted = *value = next;
    vk->dev->n_submits++;
    return VKM_OK;
}

vkm_status vkm_vk_wait(vk_dev *vk, uint64_t value, vkm_err *err) {
    if (value <= vk->finished) return VKM_OK;
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &vk->timeline,
                                .pValues = &value};
    uint64_t wait_s = vk->dev->class == VKM_CLASS_CPU_DRIVER ? VK_WAIT_SOFTWARE_S : VK_WAIT_S;
    VkResult r = vkWaitSemaphores(vk->device, &info, wait_s * 1000000000ull);
    if (r) return vkm_vk_fail(vk, err, r, "waiting for a submit");
    vk->finished = value;
    return VKM_OK;
}

static vkm_status account(vk_dev *vk, vk_slot *slot, vkm_err *err) {
    uint64_t t[2 * VK_PROFILE_SLICES];
    int each = vk->dev->options.profile;
    uint32_t n = slot->n_slices;
    slot->n_slices = 0;
    if (!n || vk->tick_s == 0) return VKM_OK;
    VkResult r = vkGetQueryPoolResults(vk->device, slot->queries, 0, each ? 2 * n : 2, sizeof t, t,
                                       sizeof t[0], VK_QUERY_RESULT_64_BIT);
    if (r) return vkm_vk_fail(vk, err, r, "reading timestamps");
    double total = (double)((t[1] - t[0]) & vk->tick_mask) * vk->tick_s;
    for (uint32_t i = 0; i < n && each; i++) {
        const vkm_node *node = &slot->nodes->v[slot->slices[i].node];
        double s = (double)((t[2 * (size_t)i + 1] - t[2 * (size_t)i]) & vk->tick_mask) * vk->tick_s;
        total = i ? total + s : s;
        vkm_dev_account(vk->dev, node->kernel, s, slot->slices[i].split ? 0 : vkm_node_bytes(node));
    }
    vkm_vk_learn(vk, slot->slices, n, total);
    return VKM_OK;
}

static vkm_status settle(vk_dev *vk, vk_slot *slot, vkm_err *err) {
    if (!slot->value) return VKM_OK;
    if (vkm_vk_wait(vk, slot->value, err)) return err->status;
    slot->value = 0;
    return account(vk, slot, err);
}

static vkm_status take(vk_dev *vk, vk_slot *slot, vk_slot **out, vkm_err *err) {
    if (settle(vk, slot, err)) return err->status;
    VkResult r = vkResetCommandPool(vk->device, slot->pool, 0);
    if (r) return vkm_vk_fail(vk, err, r, "vkResetCommandPool");
    *out = slot;
    return VKM_OK;
}

vkm_status vkm_vk_slot_take(vk_dev *vk, vk_slot **out, vkm_err *err) {
    if (take(vk, &vk->slots[vk->next_slot], out, err)) return err->status;
    vk->next_slot = (vk->next_slot + 1) % VK_SLOTS;
    return VKM_OK;
}

vkm_status vkm_vk_slot_apart(vk_dev *vk, vk_slot **out, vkm_err *err) {
    return take(vk, &vk->slots[VK_SLOTS], out, err);
}

vkm_status vkm_vk_slots_drain(vk_dev *vk, vkm_err *err) {
    for (uint32_t i = 0; i < VK_SLOTS; i++) /* oldest first */
        if (settle(vk, &vk->slots[(vk->next_slot + i) % VK_SLOTS], err)) return err->status;
    return VKM_OK;
}

void vkm_vk_name_in_flight(const vk_dev *vk, char *out, size_t size) {
    const char *last = "";
    size_t at = 0;
    snprintf(out, size, "none");
    for (uint32_t i = 0; i < VK_SLOTS; i++) {
        const vk_slot *slot = &vk->slots[(vk->next_slot + i) % VK_SLOTS];
        uint32_t n = slot->value ? slot->n_slices : 0;
        for (uint32_t j = n > 6 ? n - 6 : 0; j < n && at < size; j++) {
            const char *name = vk->kernels[slot->slices[j].kernel].kernel->name;
            if (strcmp(name, last) == 0) continue;
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", name);
            last = name;
        }
    }
}

vkm_status vkm_vk_submit_open(vk_dev *vk, vkm_err *err) {
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo semaphore = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO,
                                       .pNext = &type};
    VkResult r = vkCreateSemaphore(vk->device, &semaphore, NULL, &vk->timeline);
    if (r) return vkm_vk_fail(vk, err, r, "vkCreateSemaphore");
    for (size_t i = 0; i < VKM_COUNTOF(vk->slots); i++) {
        vk_slot *slot = &vk->slots[i];
        VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                        .flags = VK_COMMAND_POOL_CREATE_TRANSIENT_BIT,
                                        .queueFamilyIndex = vk->family};
        r = vkCreateCommandPool(vk->device, &pool, NULL, &slot->pool);
        if (r) return vkm_vk_fail(vk, err, r, "vkCreateCommandPool");
        VkCommandBufferAllocateInfo cb = {
            .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
            .commandPool = slot->pool,
            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
            .commandBufferCount = 1,
        };
        r = vkAllocateCommandBuffers(vk->device, &cb, &slot->cb);
        if (r) return vkm_vk_fail(vk, err, r, "vkAllocateCommandBuffers");
        slot->slices = vkm_calloc(VK_SLICES, sizeof *slot->slices, "slices", err);
        if (!slot->slices) return err->status;
        if (vk->tick_s == 0) continue;
        VkQueryPoolCreateInfo queries = {
            .sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
            .queryType = VK_QUERY_TYPE_TIMESTAMP,
            .queryCount = vk->dev->options.profile ? 2 * VK_PROFILE_SLICES : 2,
        };
        r = vkCreateQueryPool(vk->device, &queries, NULL, &slot->queries);
        if (r) return vkm_vk_fail(vk, err, r, "vkCreateQueryPool");
    }
    if (vk->tick_s == 0 && vk->dev->options.profile)
        vkm_warn("%s has no timestamps: the profile stays empty", vk->dev->name);
    return VKM_OK;
}

void vkm_vk_submit_close(vk_dev *vk) {
    for (size_t i = 0; i < VKM_COUNTOF(vk->slots); i++) {
        vkDestroyQueryPool(vk->device, vk->slots[i].queries, NULL);
        vkDestroyCommandPool(vk->device, vk->slots[i].pool, NULL);
        free(vk->slots[i].slices);
    }
    vkDestroySemaphore(vk->device, vk->timeline, NULL);
}
