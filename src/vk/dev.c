/* Devices, transfers and the kernel profile, whatever the backend. */
#include "vk/dev.h"

#include <stdlib.h>
#include <string.h>

#include "vk/backend.h"

vkm_status vkm_dev_open(const vkm_dev_options *o, vkm_dev **out, vkm_err *err) {
    if (o->fast && o->backend != VKM_VULKAN)
        return vkm_fail(err, VKM_USAGE,
                        "numerics fast: it needs a Vulkan device with cooperative matrices; the "
                        "cpu backend computes exactly: use numerics exact");
    vkm_dev *dev = vkm_calloc(1, sizeof *dev, "a device", err);
    if (!dev) return err->status;
    dev->options = *o;
    vkm_status st = o->backend == VKM_VULKAN ? vkm_vulkan_open(dev, err) : vkm_cpu_open(dev, err);
    if (st) {
        free(dev);
        return st;
    }
    *out = dev;
    return VKM_OK;
}

void vkm_dev_close(vkm_dev *dev) {
    if (!dev) return;
    dev->backend->close(dev);
    free(dev->probes);
    free(dev->tiles);
    free(dev);
}

vkm_backend_id vkm_dev_backend(const vkm_dev *dev) {
    return dev->options.backend;
}
vkm_dev_class vkm_dev_class_of(const vkm_dev *dev) {
    return dev->class;
}
uint32_t vkm_dev_lane_loads(const vkm_dev *dev) {
    return dev->class == VKM_CLASS_CPU_DRIVER && strstr(dev->driver, "Mesa 22.");
}
uint32_t vkm_dev_spreads(const vkm_dev *dev) {
    return dev->subgroup >= 8;
}
uint32_t vkm_dev_shared_bytes(const vkm_dev *dev) {
    return dev->shared_bytes;
}
vkm_matrix vkm_dev_matrix(const vkm_dev *dev) {
    return dev->matrix;
}
const char *vkm_dev_name(const vkm_dev *dev) {
    return dev->name;
}
const char *vkm_dev_driver(const vkm_dev *dev) {
    return dev->driver;
}
uint64_t vkm_dev_budget(const vkm_dev *dev) {
    return dev->budget_bytes;
}

const char *vkm_dev_probes(const vkm_dev *dev) {
    return dev->probes;
}
const char *vkm_dev_cache_base(const vkm_dev *dev) {
    return dev->cache_base;
}
const void *vkm_dev_tiles(const vkm_dev *dev) {
    return dev->tiles;
}
void vkm_dev_set_tiles(vkm_dev *dev, void *tiles) {
    free(dev->tiles);
    dev->tiles = tiles;
}
void vkm_dev_set_probes(vkm_dev *dev, char *json) {
    free(dev->probes);
    dev->probes = json;
}

uint64_t vkm_host_memory_free(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    unsigned long long kib = 0;
    char line[256];
    if (!f) return 0;
    while (fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
        ;
    (void)fclose(f);
    return (uint64_t)kib << 10;
}

void vkm_dev_account(vkm_dev *dev, const vkm_kernel *k, double seconds, double bytes) {
    uint32_t i = 0;
    while (i < dev->n_times && dev->times[i].kernel != k) i++;
    if (i == dev->n_times) {
        if (i == VKM_COUNTOF(dev->times)) return;
        dev->times[dev->n_times++] = (vkm_kernel_time){.kernel = k};
    }
    dev->times[i].calls++;
    dev->times[i].seconds += seconds;
    dev->times[i].bytes += bytes;
}

void vkm_dev_forget_profile(vkm_dev *dev) {
    dev->n_times = 0;
}

static int slower_first(const void *a, const void *b) {
    double x = ((const vkm_kernel_time *)a)->seconds, y = ((const vkm_kernel_time *)b)->seconds;
    return (x < y) - (x > y);
}

void vkm_dev_print_profile(const vkm_dev *dev, FILE *f) {
    vkm_kernel_time rows[VKM_COUNTOF(dev->times)];
    memcpy(rows, dev->times, sizeof rows);
    qsort(rows, dev->n_times, sizeof rows[0], slower_first);
    double total = 0;
    for (uint32_t i = 0; i < dev->n_times; i++) total += rows[i].seconds;
    fprintf(f, "%-22s %9s %10s %10s %7s %6s\n", "kernel", "calls", "ms", "us/call", "GB/s",
            "share");
    for (uint32_t i = 0; i < dev->n_times; i++)
        fprintf(f, "%-22s %9llu %10.2f %10.2f %7.2f %5.1f%%\n", rows[i].kernel->name,
                (unsigned long long)rows[i].calls, 1e3 * rows[i].seconds,
                1e6 * rows[i].seconds / (double)rows[i].calls,
                1e-9 * rows[i].bytes / rows[i].seconds, 100 * rows[i].seconds / total);
}

static uint64_t host_element(vkm_dtype dtype) {
    return dtype == VKM_BF16 ? 2 : 4;
}

static double bf16_to_double(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return (double)x;
}

static int widened(vkm_tensor t) {
    return t.esz == 8;
}

vkm_status vkm_write(vkm_dev *dev, vkm_tensor t, const void *src, vkm_err *err) {
    if (!widened(t)) return dev->backend->write(dev, t.addr, src, t.n * host_element(t.dtype), err);
    double *d = (double *)(uintptr_t)t.addr;
    for (uint64_t i = 0; i < t.n; i++)
        d[i] = t.dtype == VKM_BF16 ? bf16_to_double(((const uint16_t *)src)[i])
                                   : (double)((const float *)src)[i];
    return VKM_OK;
}

vkm_status vkm_read(vkm_dev *dev, vkm_tensor t, void *dst, vkm_err *err) {
    if (!widened(t)) return dev->backend->read(dev, t.addr, dst, t.n * host_element(t.dtype), err);
    const double *d = (const double *)(uintptr_t)t.addr;
    VKM_BUG_ON(t.dtype == VKM_BF16, "bf16 tensors of the oracle are read with vkm_read_f64");
    for (uint64_t i = 0; i < t.n; i++) ((float *)dst)[i] = (float)d[i];
    return VKM_OK;
}

vkm_status vkm_write_f64(vkm_dev *dev, vkm_tensor t, const double *src, vkm_err *err) {
    VKM_BUG_ON(t.dtype != VKM_F32, "vkm_write_f64 takes f32 tensors");
    if (widened(t)) {
        memcpy((void *)(uintptr_t)t.addr, src, t.n * sizeof *src);
        return VKM_OK;
    }
    float *tmp = vkm_calloc(t.n, sizeof *tmp, "a transfer", err);
    if (!tmp) return err->status;
    for (uint64_t i = 0; i < t.n; i++) tmp[i] = (float)src[i];
    vkm_status st = vkm_write(dev, t, tmp, err);
    free(tmp);
    return st;
}

vkm_status vkm_read_f64(vkm_dev *dev, vkm_tensor t, double *dst, vkm_err *err) {
    VKM_BUG_ON(t.dtype == VKM_U32, "vkm_read_f64 takes float tensors");
    if (widened(t)) {
        memcpy(dst, (const void *)(uintptr_t)t.addr, t.n * sizeof *dst);
        return VKM_OK;
    }
    void *tmp = vkm_calloc(t.n, host_element(t.dtype), "a transfer", err);
    if (!tmp) return err->status;
    vkm_status st = vkm_read(dev, t, tmp, err);
    for (uint64_t i = 0; i < t.n && !st; i++)
        dst[i] =
            t.dtype == VKM_BF16 ? bf16_to_double(((uint16_t *)tmp)[i]) : (double)((float *)tmp)[i];
    free(tmp);
    return st;
}

vkm_status vkm_zero(vkm_dev *dev, vkm_tensor t, vkm_err *err) {
    return dev->backend->zero(dev, t.addr, t.n * t.esz, err);
}
