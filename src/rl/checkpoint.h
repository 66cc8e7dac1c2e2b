/* Checkpoints: RUN/checkpoints/step-NNNNNN/ holds one safetensors file a subject (adapter, router,
 * optimizer, state) and manifest.json with the step, the config, and the size and XXH3 checksum of
 * every file. A checkpoint is written under a temporary name, manifest last, everything fsynced,
 * and renamed: whatever is interrupted, a folder of that name is whole. A step that is saved again
 * is away for the moment between two renames; vkm_ckpt_recover brings it back. */
#ifndef VKM_CHECKPOINT_H
#define VKM_CHECKPOINT_H

#include "model/safetensors.h"
#include "rl/config.h"
#include "vk/dev.h"

/* Read by save, filled by load: host memory, or (data is NULL) fp32 tensors of the device, one
 * after another, which go through a piece of host memory whatever their size. */
typedef struct vkm_ckpt_array {
    const char *name;
    vkm_st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[3];
    void *data;
    const vkm_tensor *const *parts;
    size_t n_parts;
} vkm_ckpt_array;

typedef struct vkm_ckpt_file {
    const char *name; /* "adapter" is adapter.safetensors */
    const vkm_ckpt_array *arrays;
    size_t n;
} vkm_ckpt_file;

/* Saves step `step` of the run folder c->output_dir, then prunes to c->save_total_limit. On failure
 * (a full disk) nothing is left of it and the older checkpoints are untouched. dev (here and in
 * vkm_ckpt_load): the device of the arrays' parts; NULL where there are none. */
vkm_status vkm_ckpt_save(const vkm_config *c, uint32_t step, vkm_dev *dev,
                         const vkm_ckpt_file *files, size_t n, vkm_err *err) VKM_MUST_CHECK;

/* Sizes and checksums of every file, and the manifest's step and config (either may be NULL). */
vkm_status vkm_ckpt_verify(const char *path, uint32_t *step, vkm_config *saved,
                           vkm_err *err) VKM_MUST_CHECK;

/* Before a run goes on: undoes what a kill left in the middle of a save. A step that was being
 * replaced and has no folder gets its old one back; other temporary folders are removed. Only for
 * the process that trains the run: another's save may be under way. */
vkm_status vkm_ckpt_recover(const char *run, vkm_err *err) VKM_MUST_CHECK;

/* What c->resume_from_checkpoint names: a checkpoint folder, or with "latest" the newest one of
 * c->output_dir that verifies (damaged ones are passed over with a warning). None: an error. */
vkm_status vkm_ckpt_find(const vkm_config *c, char path[VKM_PATH_MAX], vkm_err *err) VKM_MUST_CHECK;

/* Verifies, refuses a checkpoint of another config, and fills the arrays: the file must hold
 * exactly these names, shapes and dtypes. */
vkm_status vkm_ckpt_load(const vkm_config *c, const char *path, vkm_dev *dev,
                         const vkm_ckpt_file *files, size_t n, uint32_t *step,
                         vkm_err *err) VKM_MUST_CHECK;

/* Steps that have a checkpoint folder in the run folder, ascending; *steps is freed by the caller.
 */
vkm_status vkm_ckpt_list(const char *run, uint32_t **steps, size_t *n, vkm_err *err) VKM_MUST_CHECK;

#endif
