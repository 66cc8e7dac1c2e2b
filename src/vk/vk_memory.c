/* Arenas, each one buffer with one allocation, and transfers through a bounded staging buffer. */
#include <stdlib.h>
#include <string.h>

#include "vk/vk_private.h"

static void refresh_budget(vk_dev *vk) {
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 m = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = vk->has_budget ? &budget : NULL};
    vkGetPhysicalDeviceMemoryProperties2(vk->physical, &m);
    uint64_t size = m.memoryProperties.memoryHeaps[vk->arena_heap].size;
    uint64_t limit = vk->has_budget ? budget.heapBudget[vk->arena_heap] : size;
    uint64_t used = vk->has_budget ? budget.heapUsage[vk->arena_heap] : vk->arena_bytes;
    uint64_t left = limit > used ? limit - used : 1;
    /* Its memory is the host's; older lavapipe and SwiftShader report a heap of 2 GiB whatever the
     * machine has, and do not hold to it. */
    if (vk->dev->class == VKM_CLASS_CPU_DRIVER) {
        uint64_t host = vkm_host_memory_free();
        left = host ? host : left;
    }
    vk->dev->budget_bytes = left;
}

/* The first memory type among `allowed` that has `wanted`; ~0 if none. */
static uint32_t memory_type(const vk_dev *vk, uint32_t allowed, VkMemoryPropertyFlags wanted,
                            uint32_t *heap) {
    VkPhysicalDeviceMemoryProperties m;
    vkGetPhysicalDeviceMemoryProperties(vk->physical, &m);
    for (uint32_t i = 0; i < m.memoryTypeCount; i++)
        if ((allowed >> i & 1) && (m.memoryTypes[i].propertyFlags & wanted) == wanted) {
            *heap = m.memoryTypes[i].heapIndex;
            return i;
        }
    return ~0u;
}

/* Memory for a buffer, bound to it. wanted: kinds, tried in order. */
static VkResult back_buffer(vk_dev *vk, VkBuffer buffer, VkMemoryAllocateFlags flags,
                            const VkMemoryPropertyFlags *wanted, uint32_t n_wanted,
                            VkDeviceMemory *memory) {
    VkMemoryRequirements need;
    uint32_t type = ~0u, heap;
    vkGetBufferMemoryRequirements(vk->device, buffer, &need);
    for (uint32_t i = 0; i < n_wanted && type == ~0u; i++)
        type = memory_type(vk, need.memoryTypeBits, wanted[i], &heap);
    if (type == ~0u) return VK_ERROR_FEATURE_NOT_PRESENT;
    VkMemoryAllocateFlagsInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                      .flags = flags};
    VkMemoryAllocateInfo alloc = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
        .pNext = &info,
        .allocationSize = need.size,
        .memoryTypeIndex = type,
    };
    VkResult r = vkAllocateMemory(vk->device, &alloc, NULL, memory);
    return r ? r : vkBindBufferMemory(vk->device, buffer, *memory, 0);
}

static vkm_status make_buffer(vk_dev *vk, uint64_t bytes, int addressed,
                              const VkMemoryPropertyFlags *wanted, uint32_t n_wanted,
                              VkBuffer *buffer, VkDeviceMemory *memory, const char *what,
                              vkm_err *err) {
    VkBufferUsageFlags usage = VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    if (addressed)
        usage |= VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
    VkBufferCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
        .size = bytes,
        .usage = usage,
        .sharingMode = VK_SHARING_MODE_EXCLUSIVE,
    };
    *buffer = VK_NULL_HANDLE;
    *memory = VK_NULL_HANDLE;
    VkResult r = vkCreateBuffer(vk->device, &info, NULL, buffer);
    if (!r)
        r = back_buffer(vk, *buffer, addressed ? VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT : 0, wanted,
                        n_wanted, memory);
    if (!r) return VKM_OK;
    vkDestroyBuffer(vk->device, *buffer, NULL);
    vkFreeMemory(vk->device, *memory, NULL);
    *buffer = VK_NULL_HANDLE;
    *memory = VK_NULL_HANDLE;
    if (r == VK_ERROR_OUT_OF_DEVICE_MEMORY || r == VK_ERROR_OUT_OF_HOST_MEMORY)
        return vkm_fail(err, VKM_FAILED,
                        "vulkan: out of memory on %s: %s of %llu MiB was refused, %llu MiB are in "
                        "use by this run; lower the batch, the lengths or the rank, or close what "
                        "else uses the device",
                        vk->dev->name, what, (unsigned long long)(bytes >> 20),
                        (unsigned long long)(vk->arena_bytes >> 20));
    return vkm_vk_fail(vk, err, r, what);
}

vkm_status vkm_vk_memory_open(vk_dev *vk, vkm_err *err) {
    static const VkMemoryPropertyFlags host[] = {
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT |
            VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    };
    if (make_buffer(vk, VK_STAGING_BYTES, 0, host, VKM_COUNTOF(host), &vk->staging,
                    &vk->staging_memory, "the staging buffer", err))
        return err->status;
    void *map;
    VkResult r = vkMapMemory(vk->device, vk->staging_memory, 0, VK_WHOLE_SIZE, 0, &map);
    if (r) return vkm_vk_fail(vk, err, r, "mapping the staging buffer");
    vk->staging_map = map;
    if (memory_type(vk, ~0u, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, &vk->arena_heap) == ~0u)
        return vkm_vk_fail(vk, err, VK_ERROR_FEATURE_NOT_PRESENT, "choosing device-local memory");
    refresh_budget(vk);
    return VKM_OK;
}

void vkm_vk_memory_close(vk_dev *vk) {
    vkDestroyBuffer(vk->device, vk->staging, NULL);
    vkFreeMemory(vk->device, vk->staging_memory, NULL);
}

static const vk_arena *arena_of(const vk_dev *vk, uint64_t addr, uint64_t bytes) {
    for (uint32_t i = 0; i < vk->n_arenas; i++) {
        const vk_arena *a = &vk->arenas[i];
        if (addr >= a->base && addr - a->base <= a->bytes && bytes <= a->bytes - (addr - a->base))
            return a;
    }
    VKM_BUG_ON(1, "no arena holds %llu bytes at 0x%llx", (unsigned long long)bytes,
               (unsigned long long)addr);
}

vkm_status vkm_vk_alloc(vkm_dev *dev, uint64_t bytes, vkm_arena *out, vkm_err *err) {
    static const VkMemoryPropertyFlags local[] = {VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT};
    vk_dev *vk = vkm_vk_of(dev);
    if (vk->n_arenas == vk->cap_arenas) {
        uint32_t cap = vk->cap_arenas ? 2 * vk->cap_arenas : 16;
        vk_arena *v = realloc(vk->arenas, cap * sizeof *v);
        if (!v) return vkm_fail(err, VKM_FAILED, "out of host memory for %u arenas", cap);
        vk->arenas = v;
        vk->cap_arenas = cap;
    }
    vk_arena a = {.bytes = vkm_round_up(bytes, 4)};
    if (make_buffer(vk, a.bytes, 1, local, 1, &a.buffer, &a.memory, "an arena", err))
        return err->status;
    VkBufferDeviceAddressInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                      .buffer = a.buffer};
    a.base = vkGetBufferDeviceAddress(vk->device, &info);
    vk->arenas[vk->n_arenas++] = a;
    vk->arena_bytes += a.bytes;
    *out = (vkm_arena){.base = a.base, .bytes = a.bytes};
    if (vkm_vk_zero(dev, a.base, a.bytes, err)) {
        vkm_vk_release(dev, out);
        return err->status;
    }
    refresh_budget(vk);
    return VKM_OK;
}

void vkm_vk_release(vkm_dev *dev, vkm_arena *arena) {
    vk_dev *vk = vkm_vk_of(dev);
    for (uint32_t i = 0; i < vk->n_arenas; i++) {
        if (vk->arenas[i].base != arena->base) continue;
        if (!vk->lost) {
            vkDestroyBuffer(vk->device, vk->arenas[i].buffer, NULL);
            vkFreeMemory(vk->device, vk->arenas[i].memory, NULL);
        }
        vk->arena_bytes -= vk->arenas[i].bytes;
        vk->arenas[i] = vk->arenas[--vk->n_arenas];
        if (!vk->lost) refresh_budget(vk);
        return;
    }
}

/* ---- transfers
 * ----------------------------------------------------------------------------------- */

static vkm_status begin(vk_dev *vk, vk_slot **slot, vkm_err *err) {
    if (vkm_vk_slot_take(vk, slot, err)) return err->status;
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VkResult r = vkBeginCommandBuffer((*slot)->cb, &info);
    if (r) return vkm_vk_fail(vk, err, r, "vkBeginCommandBuffer");
    vkm_vk_full_barrier((*slot)->cb);
    return VKM_OK;
}

static vkm_status finish(vk_dev *vk, vk_slot *slot, vkm_err *err) {
    VkMemoryBarrier to_host = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                               .srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT,
                               .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    vkCmdPipelineBarrier(slot->cb, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_PIPELINE_STAGE_HOST_BIT, 0, 1,
                         &to_host, 0, NULL, 0, NULL);
    VkResult r = vkEndCommandBuffer(slot->cb);
    if (r) return vkm_vk_fail(vk, err, r, "vkEndCommandBuffer");
    if (vkm_vk_queue_submit(vk, slot->cb, &slot->value, err)) return err->status;
    if (vkm_vk_slots_drain(vk, err)) return err->status;
    return vkm_vk_check_messages(vk, err);
}

/* One staged copy of at most VK_STAGING_BYTES. */
static vkm_status copy(vk_dev *vk, uint64_t addr, uint64_t bytes, int to_device, vkm_err *err) {
    const vk_arena *a = arena_of(vk, addr, bytes);
    vk_slot *slot;
    if (begin(vk, &slot, err)) return err->status;
    uint64_t at = addr - a->base;
    VkBufferCopy region = {
        .srcOffset = to_device ? 0 : at, .dstOffset = to_device ? at : 0, .size = bytes};
    vkCmdCopyBuffer(slot->cb, to_device ? vk->staging : a->buffer,
                    to_device ? a->buffer : vk->staging, 1, &region);
    return finish(vk, slot, err);
}

vkm_status vkm_vk_write(vkm_dev *dev, uint64_t addr, const void *src, uint64_t bytes,
                        vkm_err *err) {
    vk_dev *vk = vkm_vk_of(dev);
    for (uint64_t done = 0; done < bytes;) {
        uint64_t n = bytes - done < VK_STAGING_BYTES ? bytes - done : VK_STAGING_BYTES;
        memcpy(vk->staging_map, (const char *)src + done, n);
        if (copy(vk, addr + done, n, 1, err)) return vkm_fail_in(err, "writing to the device");
        done += n;
    }
    return VKM_OK;
}

vkm_status vkm_vk_read(vkm_dev *dev, uint64_t addr, void *dst, uint64_t bytes, vkm_err *err) {
    vk_dev *vk = vkm_vk_of(dev);
    for (uint64_t done = 0; done < bytes;) {
        uint64_t n = bytes - done < VK_STAGING_BYTES ? bytes - done : VK_STAGING_BYTES;
        if (copy(vk, addr + done, n, 0, err)) return vkm_fail_in(err, "reading from the device");
        memcpy((char *)dst + done, vk->staging_map, n);
        done += n;
    }
    return VKM_OK;
}

vkm_status vkm_vk_zero(vkm_dev *dev, uint64_t addr, uint64_t bytes, vkm_err *err) {
    static const unsigned char zeros[8];
    vk_dev *vk = vkm_vk_of(dev);
    if (!bytes) return VKM_OK;
    const vk_arena *a = arena_of(vk, addr, bytes);
    /* a fill takes whole words: the ends of a bf16 view may not be */
    uint64_t lo = vkm_round_up(addr - a->base, 4), hi = (addr - a->base + bytes) / 4 * 4;
    if (lo >= hi) return vkm_vk_write(dev, addr, zeros, bytes, err);
    uint64_t head = a->base + lo - addr, tail = addr + bytes - (a->base + hi);
    if (head && vkm_vk_write(dev, addr, zeros, head, err)) return err->status;
    if (tail && vkm_vk_write(dev, addr + bytes - tail, zeros, tail, err)) return err->status;
    vk_slot *slot;
    if (begin(vk, &slot, err)) return err->status;
    vkCmdFillBuffer(slot->cb, a->buffer, lo, hi - lo, 0);
    return finish(vk, slot, err);
}
