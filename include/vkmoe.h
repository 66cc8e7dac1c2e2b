/* vkmoe as a library. Link with libvkmoe.a and what CMakeLists.txt lists.
 * A program opens a device, makes a config, and verifies or trains:
 *     vkm_err err = {0};
 *     vkm_dev *dev = NULL;
 *     vkm_config *config = vkm_config_new(&err);
 *     if (!config || vkm_device_open(&(vkm_dev_options){.backend = VKM_VULKAN}, &dev, &err) ||
 *         vkm_config_load(config, "tiny", &err) || vkm_config_set(config, "seed", "1", &err))
 *         fprintf(stderr, "%s\n", err.msg);
 * Every function that can fail returns VKM_OK or the status that err holds, with one line that says
 * what, where and how to mend it. Handles belong to one thread at a time. */
#ifndef VKMOE_H
#define VKMOE_H

#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum vkm_status {
    VKM_OK = 0,
    VKM_FAILED = 1,       /* the work could not be done: exit code 1 */
    VKM_USAGE = 2,        /* the user asked for something impossible: exit code 2 */
    VKM_DEVICE_LOST = 75, /* restart from the checkpoint: exit code 75 */
} vkm_status;

typedef struct vkm_err {
    vkm_status status;
    char msg[1024];
} vkm_err;

#define VKM_MUST_CHECK __attribute__((warn_unused_result))

const char *vkm_version(void); /* "0.1.0" */
const char *vkm_commit(void);  /* "1a2b3c4d5e6f", with "+" if files were changed, or "unknown" */

/* ---- devices --------------------------------------------------------------------------------- */

typedef struct vkm_dev vkm_dev;
typedef enum { VKM_VULKAN, VKM_CPU, VKM_ORACLE } vkm_backend_id;

typedef struct vkm_dev_options {
    vkm_backend_id backend;
    const char *device;  /* vulkan: NULL for the default, an index, part of a name, "lavapipe" */
    int threads;         /* cpu, oracle: 0 for all cores */
    int flush_denormals; /* cpu: set FTZ and DAZ; no bit may change */
    int thread_all;      /* cpu: split even the smallest kernels over the threads */
    int fast;     /* vulkan: the fast tier, which needs cooperative matrices: no longer the same
                     bits everywhere */
    int validate; /* vulkan: validation layers; a message is an error */
    int check_hazards;   /* the stream proves its own barriers before each submit */
    int profile;         /* time every kernel */
    int skip_probes;     /* only for `vkmoe devices`, which reports them itself */
    const char *shaders; /* vulkan: folder whose NAME.spv replace built-in shaders; NULL for none */
} vkm_dev_options;

/* Opens a device and, on Vulkan, runs the probes unless options.skip_probes is set: a device that
 * computes otherwise than the reference is refused. */
vkm_status vkm_device_open(const vkm_dev_options *o, vkm_dev **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_dev_close(vkm_dev *dev);               /* accepts NULL */
const char *vkm_dev_name(const vkm_dev *dev);   /* such as "llvmpipe (LLVM 15.0.6, 256 bits)" */
const char *vkm_dev_driver(const vkm_dev *dev); /* driver name and version */

/* ---- gates ----------------------------------------------------------------------------------- */

typedef struct vkm_verify_options {
    vkm_dev *dev;       /* device under test; the cpu backend compares thread counts and FTZ */
    const char *select; /* gates whose name contains this; NULL for all */
    int list, json;
    uint64_t seed;
} vkm_verify_options;

/* Runs the gates and prints the table; VKM_FAILED if any failed, or none matched. */
vkm_status vkm_verify_run(const vkm_verify_options *o, FILE *table, vkm_err *err) VKM_MUST_CHECK;

/* ---- configs --------------------------------------------------------------------------------- */

typedef struct vkm_config vkm_config; /* `vkmoe config` lists the keys */

vkm_config *vkm_config_new(vkm_err *err); /* all defaults; NULL without memory */
void vkm_config_free(vkm_config *c);      /* accepts NULL */
/* A JSON file (also the config.json of a run folder), or the name of a preset that comes with the
 * program, over what *c holds. */
vkm_status vkm_config_load(vkm_config *c, const char *path_or_preset, vkm_err *err) VKM_MUST_CHECK;
/* One key from text, as --set would take it. Errors: an unknown key (with the nearest), a value of
 * another type, a value out of range. */
vkm_status vkm_config_set(vkm_config *c, const char *key, const char *text,
                          vkm_err *err) VKM_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
