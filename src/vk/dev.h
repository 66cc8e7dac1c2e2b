/* A device and its memory. Three backends stand behind it: `vulkan`, `cpu` (the reference twins,
 * threaded) and `oracle` (the same sources in double precision, for tolerances and finite
 * differences). Everything above ops is the same code for all. */
#ifndef VKM_DEV_H
#define VKM_DEV_H

#include <stdio.h>

#include "vk/kernel.h"

typedef struct vkm_mem vkm_mem;
typedef struct vkm_plan vkm_plan;

/* What tiles suit: a driver that runs shaders on CPU lanes, or a GPU. */
typedef enum { VKM_CLASS_CPU_DRIVER, VKM_CLASS_GPU } vkm_dev_class;

/* The cooperative matrices of the fast tier: (m, k) by (k, n), summed in fp32. */
typedef struct vkm_matrix {
    vkm_form form;    /* half or bf16 */
    uint32_t m, n, k; /* 0: none, the exact tier */
    uint32_t subgroup;
} vkm_matrix;

/* What is known of a Vulkan device without opening it. */
typedef enum {
    VKM_DEV_OTHER,
    VKM_DEV_INTEGRATED,
    VKM_DEV_DISCRETE,
    VKM_DEV_VIRTUAL,
    VKM_DEV_SOFTWARE
} vkm_dev_type;

typedef struct vkm_dev_info {
    uint32_t index; /* what options.device takes */
    char name[256], driver[256], vendor[32];
    uint32_t vendor_id, device_id, api[3]; /* major, minor, patch */
    vkm_dev_type type;
    uint64_t memory_bytes;    /* of the heap that tensors live in */
    uint64_t budget_bytes;    /* of it free for us now; 0 when the driver does not say */
    uint64_t max_alloc_bytes; /* of one arena */
    uint32_t shared_bytes;    /* workgroup memory */
    uint32_t max_invocations; /* of a workgroup */
    uint32_t subgroup_size;
    int timestamps, cooperative_matrix;
    vkm_matrix matrix; /* what the fast tier would use */
    char refused[160]; /* why it cannot be used at all; "" if it can */
} vkm_dev_info;

/* Every Vulkan device of this machine in the loader's order; an error when there is no loader or no
 * driver. *out is freed with free(). */
vkm_status vkm_dev_list(vkm_dev_info **out, uint32_t *n, vkm_err *err) VKM_MUST_CHECK;

vkm_status vkm_dev_open(const vkm_dev_options *o, vkm_dev **out, vkm_err *err) VKM_MUST_CHECK;
vkm_backend_id vkm_dev_backend(const vkm_dev *dev);
vkm_dev_class vkm_dev_class_of(const vkm_dev *dev);
/* 1: its loads go lane by lane, as those of Mesa 22's CPU driver, whatever the addresses. */
uint32_t vkm_dev_lane_loads(const vkm_dev *dev);
/* 1: a subgroup has at least eight invocations, so what eight load can be spread over them. */
uint32_t vkm_dev_spreads(const vkm_dev *dev);
/* Workgroup memory of a group; 0 on the host. */
uint32_t vkm_dev_shared_bytes(const vkm_dev *dev);
/* Of a device in the fast tier. */
vkm_matrix vkm_dev_matrix(const vkm_dev *dev);
uint64_t vkm_dev_budget(const vkm_dev *dev); /* bytes free for us now; 0 if unknown */
/* What the probes of ops/device.c found, JSON text; NULL when none were run (the cpu backend is the
 * reference). The setter takes a malloc'ed text over. */
const char *vkm_dev_probes(const vkm_dev *dev);
void vkm_dev_set_probes(vkm_dev *dev, char *json);
/* Where this device and driver version may keep files, a path without ending; "" for nowhere. */
const char *vkm_dev_cache_base(const vkm_dev *dev);
/* What ops/tiles_tuned.c keeps with a device; the setter takes a malloc'ed thing over. */
const void *vkm_dev_tiles(const vkm_dev *dev);
void vkm_dev_set_tiles(vkm_dev *dev, void *tiles);
/* Calls, seconds and the bytes of the tensors a second, by kernel, worst first; only with
 * options.profile. */
void vkm_dev_print_profile(const vkm_dev *dev, FILE *f);
void vkm_dev_forget_profile(vkm_dev *dev);

/* Memory is planned before it is taken. Each add names a tensor; commit takes the arenas (each
 * within the device's allocation limit), zeroes them and fills every *out; too little memory is an
 * error with the numbers. `out` must stay in place until then. Categories are the rows of
 * vkm_plan_print. A plan is freed by commit or vkm_plan_free. */
vkm_plan *vkm_plan_new(vkm_dev *dev);
void vkm_plan_add(vkm_plan *p, vkm_tensor *out, vkm_dtype dtype, uint64_t n, const char *category);
uint64_t vkm_plan_bytes(const vkm_plan *p);
void vkm_plan_print(const vkm_plan *p, FILE *f);
vkm_status vkm_plan_commit(vkm_plan *p, vkm_mem **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_plan_free(vkm_plan *p);
void vkm_mem_free(vkm_mem *mem); /* accepts NULL */

/* Copies between host and a tensor: n elements from element `first`, as float, uint32_t or bf16
 * bits (uint16_t) by dtype; the oracle converts to and from double. Chunks are bounded; the call
 * returns when the data is there. No stream may be in flight. */
vkm_status vkm_write(vkm_dev *dev, vkm_tensor t, const void *src, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_read(vkm_dev *dev, vkm_tensor t, void *dst, vkm_err *err) VKM_MUST_CHECK;
/* The same as double whatever the backend (float tensors only). */
vkm_status vkm_write_f64(vkm_dev *dev, vkm_tensor t, const double *src,
                         vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_read_f64(vkm_dev *dev, vkm_tensor t, double *dst, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_zero(vkm_dev *dev, vkm_tensor t, vkm_err *err) VKM_MUST_CHECK;

#endif
