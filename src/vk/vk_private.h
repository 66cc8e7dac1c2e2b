/* Inside of the Vulkan backend: what its files share. Vulkan types do not leave src/vk/vk_*.
 *   vk_instance.c  loader, instance, validation messages, the list of devices and the choice
 *   vk_device.c    the logical device, its limits, opening and closing
 *   vk_matrix.c    cooperative matrices of the fast tier
 *   vk_memory.c    arenas and transfers
 *   vk_pipeline.c  shader modules, layouts, pipelines and their cache on disk
 *   vk_submit.c    slices of bounded work, submits, waits, learned speeds, the profile
 *   vk_run.c       what a stream calls: run once, or compile and run again */
#ifndef VKM_VK_PRIVATE_H
#define VKM_VK_PRIVATE_H

#include <volk.h>

#include "vk/backend.h"

enum {
    VK_SLOTS = 4,            /* submits in flight */
    VK_SLICES = 4096,        /* dispatches a submit */
    VK_PROFILE_SLICES = 512, /* the same when each is timed */
    VK_MAX_KERNELS = 256,
    VK_STAGING_BYTES = 16 << 20,
    VK_WAIT_S = 60,
    VK_WAIT_SOFTWARE_S = 900, /* where the device is a CPU that others use too */
};

/* A kernel on this device. */
typedef struct vk_kernel {
    const vkm_kernel *kernel;
    vkm_form form; /* that was asked for */
    VkShaderModule module;
    VkPipelineLayout layout; /* shared: one a push-constant size */
    uint32_t push_bytes;
    double rate; /* work a second, learned */
} vk_kernel;

typedef struct vk_pipeline {
    uint32_t kernel; /* index in vk_dev.kernels */
    int split;       /* may be dispatched with a base */
    uint32_t spec[VKM_MAX_SPEC];
    VkPipeline handle; /* VK_NULL_HANDLE: a free place of the table */
} vk_pipeline;

/* A part of one node's grid. */
typedef struct vk_slice {
    uint32_t node, kernel;
    uint32_t base[3], count[3];
    int split; /* not the whole grid */
    int barrier;
    double estimate_s;
} vk_slice;

/* Where slicing stands. */
typedef struct vk_cursor {
    uint32_t node;
    uint64_t unit; /* the next row of the node's grid, see vk_submit.c */
} vk_cursor;

typedef struct vk_slot {
    VkCommandPool pool;
    VkCommandBuffer cb;
    VkQueryPool queries;
    uint64_t value; /* of the timeline when done; 0: free */
    uint32_t n_slices;
    vk_slice *slices;
    const vkm_nodes *nodes;
} vk_slot;

typedef struct vk_arena {
    VkBuffer buffer;
    VkDeviceMemory memory;
    uint64_t base, bytes;
} vk_arena;

typedef struct vk_message_box {
    uint32_t n;
    char first[512];
} vk_message_box;

typedef struct vk_dev {
    vkm_dev *dev;
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    vk_message_box messages;
    VkPhysicalDevice physical;
    VkDevice device;
    VkQueue queue;
    uint32_t family, arena_type, arena_heap;
    int has_budget;
    int wide_loads; /* shaders run in their wide form, where they have one */
    double tick_s;  /* 0: no timestamps */
    uint64_t tick_mask;
    int lost; /* nothing may be waited for or destroyed any more */

    vk_arena *arenas;
    uint32_t n_arenas, cap_arenas;
    uint64_t arena_bytes; /* taken by us, pads included */
    VkBuffer staging;
    VkDeviceMemory staging_memory;
    unsigned char *staging_map;

    VkPipelineCache cache;
    char cache_path[4096]; /* "": none */
    int cache_grew;
    VkPipelineLayout layouts[VKM_MAX_PUSH / 4 + 1];
    vk_kernel kernels[VK_MAX_KERNELS];
    uint32_t n_kernels;
    uint16_t kernel_at[2 * VK_MAX_KERNELS]; /* hash of the pointer to index + 1 */
    vk_pipeline *pipelines;                 /* open addressing */
    uint32_t n_pipelines, cap_pipelines;

    VkSemaphore timeline;
    uint64_t submitted, finished;
    vk_slot slots[VK_SLOTS + 1]; /* by turns; the last is for the first runs of pipelines */
    uint32_t next_slot;
} vk_dev;

static inline vk_dev *vkm_vk_of(vkm_dev *dev) {
    return dev->impl;
}

/* vk_instance.c */
vkm_status vkm_vk_instance_new(int validate, vk_message_box *box, VkInstance *out,
                               VkDebugUtilsMessengerEXT *messenger, vkm_err *err) VKM_MUST_CHECK;
void vkm_vk_instance_free(VkInstance instance, VkDebugUtilsMessengerEXT messenger);
/* Every device, in the loader's order. Free with free(). */
vkm_status vkm_vk_devices(VkInstance instance, VkPhysicalDevice **out, vkm_dev_info **info,
                          uint32_t *n, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_vk_choose(const vkm_dev_info *info, uint32_t n, const char *wanted, uint32_t *out,
                         vkm_err *err) VKM_MUST_CHECK;
int vkm_vk_has_extension(VkPhysicalDevice physical, const char *name);
/* An error from a failed call; lost devices and lack of memory are told apart, and the kernels in
 * flight are named. what: the call, in words. */
vkm_status vkm_vk_fail(vk_dev *vk, vkm_err *err, VkResult r, const char *what);
/* VKM_FAILED when the validation layer has spoken since the last time. */
vkm_status vkm_vk_check_messages(vk_dev *vk, vkm_err *err) VKM_MUST_CHECK;

/* vk_matrix.c */
int vkm_vk_build_has_matrices(void);
/* What the fast tier would use of a device: bf16 before fp16, the largest shape, the smallest
 * subgroup; m 0 if nothing. */
vkm_matrix vkm_vk_find_matrix(VkPhysicalDevice physical);
/* What a device that uses x must be made with; nothing without. Points into itself. */
typedef struct vk_matrix_features {
    void *first; /* of a chain, or NULL */
    const char *names[2];
    uint32_t n_names;
#if defined(VKM_HAVE_HALF) || defined(VKM_HAVE_BF16)
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    VkPhysicalDeviceSubgroupSizeControlFeatures sizes;
#endif
#ifdef VKM_HAVE_BF16
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bf16;
#endif
} vk_matrix_features;
void vkm_vk_matrix_features(vkm_matrix x, vk_matrix_features *out);

/* vk_memory.c */
vkm_status vkm_vk_memory_open(vk_dev *vk, vkm_err *err) VKM_MUST_CHECK;
void vkm_vk_memory_close(vk_dev *vk);
vkm_status vkm_vk_alloc(vkm_dev *dev, uint64_t bytes, vkm_arena *out, vkm_err *err);
void vkm_vk_release(vkm_dev *dev, vkm_arena *arena);
vkm_status vkm_vk_write(vkm_dev *dev, uint64_t addr, const void *src, uint64_t bytes, vkm_err *err);
vkm_status vkm_vk_read(vkm_dev *dev, uint64_t addr, void *dst, uint64_t bytes, vkm_err *err);
vkm_status vkm_vk_zero(vkm_dev *dev, uint64_t addr, uint64_t bytes, vkm_err *err);

/* vk_pipeline.c */
vkm_status vkm_vk_pipelines_open(vk_dev *vk, vkm_err *err) VKM_MUST_CHECK;
void vkm_vk_pipelines_close(vk_dev *vk);
/* Index of a kernel in one of its forms on this device, made if new. */
vkm_status vkm_vk_kernel_get(vk_dev *vk, const vkm_kernel *kernel, vkm_form form, uint32_t *out,
                             vkm_err *err) VKM_MUST_CHECK;
/* Makes the pipelines that slices lack, side by side on all processors. made (n): 1 for the first
 * slice of each. */
vkm_status vkm_vk_pipelines_make(vk_dev *vk, const vkm_nodes *nodes, const vk_slice *slices,
                                 uint32_t n, uint8_t *made, vkm_err *err) VKM_MUST_CHECK;
/* One that has been made. */
VkPipeline vkm_vk_pipeline(const vk_dev *vk, uint32_t kernel, const uint32_t *spec, int split);

/* vk_submit.c */
vkm_status vkm_vk_submit_open(vk_dev *vk, vkm_err *err) VKM_MUST_CHECK;
void vkm_vk_submit_close(vk_dev *vk);
/* The next slices that fit one submit; at most cap, at least one unless all is done. */
vkm_status vkm_vk_slices_next(vk_dev *vk, const vkm_nodes *nodes, vk_cursor *at, vk_slice *out,
                              uint32_t cap, uint32_t *n, vkm_err *err) VKM_MUST_CHECK;
/* Records slices, whose pipelines have been made; queries: timestamps 2 i and 2 i + 1 around slice
 * i (each_slice) or around all. */
void vkm_vk_record(vk_dev *vk, VkCommandBuffer cb, const vkm_nodes *nodes, const vk_slice *slices,
                   uint32_t n, VkQueryPool queries, int each_slice);
void vkm_vk_full_barrier(VkCommandBuffer cb);
vkm_status vkm_vk_queue_submit(vk_dev *vk, VkCommandBuffer cb, uint64_t *value,
                               vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_vk_wait(vk_dev *vk, uint64_t value, vkm_err *err) VKM_MUST_CHECK;
/* A free slot of those by turns, after waiting for and accounting its last submit. */
vkm_status vkm_vk_slot_take(vk_dev *vk, vk_slot **out, vkm_err *err) VKM_MUST_CHECK;
/* The slot apart, which whoever takes it waits for. */
vkm_status vkm_vk_slot_apart(vk_dev *vk, vk_slot **out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_vk_slots_drain(vk_dev *vk, vkm_err *err) VKM_MUST_CHECK;
/* Names of the kernels in flight, newest last. */
void vkm_vk_name_in_flight(const vk_dev *vk, char *out, size_t size);
/* Learns from slices that took this long together. */
void vkm_vk_learn(vk_dev *vk, const vk_slice *slices, uint32_t n, double seconds);

/* vk_run.c */
vkm_status vkm_vk_run(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err);
vkm_status vkm_vk_compile(vkm_dev *dev, const vkm_nodes *nodes, void **impl, vkm_err *err);
vkm_status vkm_vk_run_compiled(vkm_dev *dev, const vkm_nodes *nodes, void *impl, uint32_t times,
                               vkm_err *err);
void vkm_vk_free_compiled(vkm_dev *dev, void *impl);

#endif
