/* Opening and closing a Vulkan device. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vk/vk_private.h"

/* A queue that only computes leaves the desktop responsive; any other will do. */
static uint32_t choose_family(VkPhysicalDevice p, uint32_t *timestamp_bits) {
    VkQueueFamilyProperties v[32];
    uint32_t n = VKM_COUNTOF(v), best = 0;
    vkGetPhysicalDeviceQueueFamilyProperties(p, &n, v);
    for (uint32_t i = n; i-- > 0;)
        if (v[i].queueFlags & VK_QUEUE_COMPUTE_BIT) best = i;
    for (uint32_t i = n; i-- > 0;)
        if ((v[i].queueFlags & (VK_QUEUE_COMPUTE_BIT | VK_QUEUE_GRAPHICS_BIT)) ==
            VK_QUEUE_COMPUTE_BIT)
            best = i;
    *timestamp_bits = v[best].timestampValidBits;
    return best;
}

static vkm_status make_device(vk_dev *vk, vkm_err *err) {
    uint32_t bits;
    vk->family = choose_family(vk->physical, &bits);
    vk->has_budget = vkm_vk_has_extension(vk->physical, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    float priority = 1;
    VkDeviceQueueCreateInfo queue = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
        .queueFamilyIndex = vk->family,
        .queueCount = 1,
        .pQueuePriorities = &priority,
    };
    vk_matrix_features matrix;
    vkm_vk_matrix_features(vk->dev->matrix, &matrix);
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .pNext = matrix.first,
        .bufferDeviceAddress = VK_TRUE,
        .timelineSemaphore = VK_TRUE,
        .vulkanMemoryModel = matrix.first ? VK_TRUE : VK_FALSE,
        .vulkanMemoryModelDeviceScope = matrix.first ? VK_TRUE : VK_FALSE,
        .shaderFloat16 = vk->dev->matrix.form == VKM_FORM_half ? VK_TRUE : VK_FALSE,
    };
    /* lavapipe loads component by component, 22.3 lane by lane, 26 by gathers: half as many
     * components take half the time. */
    VkPhysicalDeviceFeatures have;
    vkGetPhysicalDeviceFeatures(vk->physical, &have);
    /* not of 16 lanes (LP_NATIVE_VECTOR_WIDTH=512): 64-bit loads overrun lavapipe's stack there */
    vk->wide_loads =
        have.shaderInt64 && vk->dev->class == VKM_CLASS_CPU_DRIVER && vk->dev->subgroup <= 8;
    VkPhysicalDeviceFeatures want = {.shaderInt64 = vk->wide_loads ? VK_TRUE : VK_FALSE};
    const char *extensions[1 + VKM_COUNTOF(matrix.names)];
    uint32_t n_extensions = 0;
    if (vk->has_budget) extensions[n_extensions++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    for (uint32_t i = 0; i < matrix.n_names; i++) extensions[n_extensions++] = matrix.names[i];
    VkDeviceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
        .pNext = &f12,
        .queueCreateInfoCount = 1,
        .pQueueCreateInfos = &queue,
        .enabledExtensionCount = n_extensions,
        .ppEnabledExtensionNames = extensions,
        .pEnabledFeatures = &want,
    };
    VkResult r = vkCreateDevice(vk->physical, &info, NULL, &vk->device);
    if (r) return vkm_vk_fail(vk, err, r, "vkCreateDevice");
    vkGetDeviceQueue(vk->device, vk->family, 0, &vk->queue);
    VkPhysicalDeviceProperties p;
    vkGetPhysicalDeviceProperties(vk->physical, &p);
    vk->tick_s = bits ? 1e-9 * (double)p.limits.timestampPeriod : 0;
    vk->tick_mask = bits >= 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    return VKM_OK;
}

static vkm_status choose_matrix(vkm_dev *dev, const vkm_dev_info *info, vkm_err *err) {
    dev->matrix = info->matrix;
    if (dev->matrix.m) return VKM_OK;
    const char *why =
        !vkm_vk_build_has_matrices()
            ? "this build has no fast tier, because its Vulkan headers or its glslang "
              "do not know cooperative matrices (Debian 13 has them)"
        : !info->cooperative_matrix
            ? "the device offers no cooperative matrices"
            : "the device offers cooperative matrices, but none of fp16 or bf16 with "
              "sums in fp32 that fits";
    return vkm_fail(err, VKM_USAGE, "numerics fast: %s; %s, %s: use numerics exact", why, dev->name,
                    dev->driver);
}

static void vulkan_close(vkm_dev *dev) {
    vk_dev *vk = vkm_vk_of(dev);
    /* What a lost device still holds cannot be waited for; the process is about to end. */
    if (!vk->lost) {
        if (vk->device) {
            (void)vkDeviceWaitIdle(vk->device);
            vkm_vk_submit_close(vk);
            vkm_vk_pipelines_close(vk);
            vkm_vk_memory_close(vk);
            vkDestroyDevice(vk->device, NULL);
        }
        vkm_vk_instance_free(vk->instance, vk->messenger);
    }
    free(vk->arenas);
    free(vk->pipelines);
    free(vk);
    dev->impl = NULL;
}

static const vkm_backend vulkan_backend = {
    vkm_vk_alloc, vkm_vk_release, vkm_vk_write,        vkm_vk_read,          vkm_vk_zero,
    vkm_vk_run,   vkm_vk_compile, vkm_vk_run_compiled, vkm_vk_free_compiled, vulkan_close,
};

/* VKMOE_CLASS has the last word: what is chosen for a GPU can so be proved without one. */
static vkm_dev_class class_of(const vkm_dev_info *info) {
    const char *text = getenv("VKMOE_CLASS");
    if (text && !strcmp(text, "gpu")) return VKM_CLASS_GPU;
    if (text && !strcmp(text, "cpu")) return VKM_CLASS_CPU_DRIVER;
    if (text) vkm_warn("VKMOE_CLASS=%s is ignored: it takes gpu or cpu", text);
    return info->type == VKM_DEV_SOFTWARE || strstr(info->name, "llvmpipe") ||
                   strstr(info->name, "SwiftShader")
               ? VKM_CLASS_CPU_DRIVER
               : VKM_CLASS_GPU;
}

vkm_status vkm_vulkan_open(vkm_dev *dev, vkm_err *err) {
    VkPhysicalDevice *physical = NULL;
    vkm_dev_info *info = NULL;
    uint32_t n, chosen;
    vk_dev *vk = vkm_calloc(1, sizeof *vk, "a device", err);
    if (!vk) return err->status;
    vk->dev = dev;
    dev->impl = vk;
    dev->backend = &vulkan_backend;
    if (vkm_vk_instance_new(dev->options.validate, &vk->messages, &vk->instance, &vk->messenger,
                            err))
        goto fail;
    if (vkm_vk_devices(vk->instance, &physical, &info, &n, err)) goto fail;
    if (vkm_vk_choose(info, n, dev->options.device, &chosen, err)) goto fail;
    const vkm_dev_info *me = &info[chosen];
    vk->physical = physical[chosen];
    memcpy(dev->name, me->name, sizeof dev->name);
    memcpy(dev->driver, me->driver, sizeof dev->driver);
    dev->max_alloc_bytes = me->max_alloc_bytes;
    dev->subgroup = me->subgroup_size;
    dev->shared_bytes = me->shared_bytes;
    dev->class = class_of(me);
    if (dev->options.fast && choose_matrix(dev, me, err)) goto fail;
    if (make_device(vk, err) || vkm_vk_submit_open(vk, err) || vkm_vk_memory_open(vk, err) ||
        vkm_vk_pipelines_open(vk, err) || vkm_vk_check_messages(vk, err))
        goto fail;
    vkm_debug("vulkan: %s, %s", dev->name, dev->driver);
    free(physical);
    free(info);
    return VKM_OK;
fail:
    free(physical);
    free(info);
    vulkan_close(dev);
    return err->status;
}
