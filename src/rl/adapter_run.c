#include "rl/adapter_run.h"

#include <stdlib.h>
#include <string.h>

#include "rl/checkpoint.h"

static vkm_status has_file(const char *folder, const char *name, bool *there, vkm_err *err) {
    char path[VKM_PATH_MAX];
    if (vkm_path_join(path, folder, name, err)) return err->status;
    *there = vkm_file_exists(path);
    return VKM_OK;
}

vkm_status vkm_adapter_run_find(const char *run, const char *checkpoint, vkm_adapter_run *out,
                                vkm_err *err) {
    vkm_config *c = &out->c;
    bool there = false;
    if (!vkm_dir_exists(run))
        return vkm_fail(err, VKM_FAILED, "%s: no such folder; name a run's folder", run);
    vkm_config_default(c);
    if (vkm_config_set(c, "output_dir", run, err) ||
        vkm_config_set(c, "resume_from_checkpoint", checkpoint[0] ? checkpoint : "latest", err) ||
        vkm_ckpt_find(c, out->checkpoint, err) ||
        vkm_ckpt_verify(out->checkpoint, &out->step, c, err) ||
        has_file(out->checkpoint, "adapter.safetensors", &there, err))
        return err->status;
    if (!there && c->sft_train == VKM_sft_train_weights)
        return vkm_fail(err, VKM_USAGE,
                        "%s: this run trained all weights and has no adapter; its model is the "
                        "folder %s/model",
                        run, run);
    return VKM_OK;
}

/* A supervised run's factors lie under their own names. */
static vkm_status read_factors(const vkm_adapter_run *r, const vkm_adapter *a, float *params,
                               uint32_t *step, vkm_err *err) {
    uint32_t n = 2 * a->n_modules;
    vkm_ckpt_array *arrays = vkm_calloc(n, sizeof *arrays, "the adapter", err);
    char(*names)[96] = vkm_calloc(n, sizeof *names, "the adapter", err);
    for (uint32_t i = 0; arrays && names && i < n; i++) {
        uint64_t size = vkm_factor_size(a, i / 2, (int)(i % 2));
        vkm_factor_name(i / 2, (int)(i % 2), names[i]);
        arrays[i] = (vkm_ckpt_array){names[i], VKM_ST_F32, 1, {size}, .data = params};
        params += size;
    }
    const vkm_ckpt_file weights = {"weights", arrays, n};
    if (arrays && names) (void)!vkm_ckpt_load(&r->c, r->checkpoint, NULL, &weights, 1, step, err);
    free(names), free(arrays);
    return err->status;
}

vkm_status vkm_adapter_run_read(const vkm_adapter_run *r, const vkm_adapter *a, float **params,
                                vkm_err *err) {
    uint64_t n = 0;
    uint32_t step;
    bool trained = false;
    for (uint32_t i = 0; i < 2 * a->n_modules; i++) n += vkm_factor_size(a, i / 2, (int)(i % 2));
    *params = vkm_calloc(n, sizeof **params, "the adapter", err);
    if (!*params || has_file(r->checkpoint, "adapter.safetensors", &trained, err)) goto done;
    const vkm_ckpt_array delta = {"delta", VKM_ST_F32, 1, {n}, .data = *params};
    const vkm_ckpt_file adapter = {"adapter", &delta, 1};
    (void)!(trained ? vkm_ckpt_load(&r->c, r->checkpoint, NULL, &adapter, 1, &step, err)
                    : read_factors(r, a, *params, &step, err));
done:
    if (err->status) {
        free(*params);
        *params = NULL;
    }
    return err->status;
}

vkm_status vkm_adapter_run_load(const vkm_adapter_run *r, vkm_adapter *a, vkm_err *err) {
    float *params = NULL;
    if (!vkm_adapter_run_read(r, a, &params, err))
        (void)!vkm_adapter_write(a, VKM_STATE_PARAM, params, err);
    free(params);
    return err->status;
}
