/* Opening a device and finding out whether it keeps the numerics contract. Everything above ops
 * opens devices here and not with vkm_dev_open. */
#ifndef VKM_DEVICE_H
#define VKM_DEVICE_H

#include "base/json.h"
#include "vk/dev.h"

typedef struct vkm_probe_row {
    const char *name, *what; /* what is asked, in words */
    int required;            /* the exact tier needs it; otherwise it only informs */
    int passed;              /* the same bits as the CPU reference */
    uint32_t n, n_bad;       /* results compared, and those that differ */
    char detail[160];        /* the first difference, or what an informing probe found */
} vkm_probe_row;

enum { VKM_MAX_PROBES = 32 };

typedef struct vkm_probe_report {
    vkm_probe_row rows[VKM_MAX_PROBES];
    uint32_t n;
    uint32_t n_failed; /* required ones: any, and the exact tier refuses the device */
    double seconds;
} vkm_probe_report;

/* Runs every probe on the device and on the CPU reference and compares bits (a NaN equals a NaN).
 * An error is one of running; differences are in the report. No stream may be in flight. */
vkm_status vkm_probe_run(vkm_dev *dev, vkm_probe_report *out, vkm_err *err) VKM_MUST_CHECK;

/* VKM_OK if the exact tier may use the device; else an error that names the op and the driver. */
vkm_status vkm_probe_verdict(const vkm_dev *dev, const vkm_probe_report *report,
                             vkm_err *err) VKM_MUST_CHECK;

/* The report as JSON: an array with an object for each row. */
void vkm_probe_write(const vkm_probe_report *report, vkm_jw *w, const char *key);

#endif
