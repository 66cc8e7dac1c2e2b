/* Model folders made from nothing: a preset's shapes, Gaussian weights, a small tokenizer of our
 * own or a copied one. transformers reads them, and so does vkm_model_config_load and its
 * neighbours. */
#ifndef VKM_INIT_MODEL_H
#define VKM_INIT_MODEL_H

#include "model/hf_config.h"

typedef struct vkm_model_preset {
    const char *name, *what;
    vkm_model_config config; /* V == 0: as many rows as the tokenizer has ids */
} vkm_model_preset;
extern const vkm_model_preset vkm_model_presets[];
extern const size_t vkm_n_model_presets;
/* An unknown name's error lists the valid ones. */
vkm_status vkm_model_preset_find(const char *name, const vkm_model_preset **out,
                                 vkm_err *err) VKM_MUST_CHECK;

typedef struct vkm_init_options {
    vkm_model_config config; /* token ids, and V if 0, are set from the tokenizer */
    const char *tokenizer; /* folder whose tokenizer files are copied; NULL: our own, 512 tokens */
    const char *output;    /* folder to make */
    uint64_t seed;
    bool force;       /* overwrite a model that is there */
    uint32_t threads; /* 0: one a processor */
} vkm_init_options;

/* Writes config.json, generation_config.json, model.safetensors (BF16: matrices N(0, 0.02^2), gains
 * of norms 1), tokenizer.json and tokenizer_config.json. The bytes depend on the options only: not
 * on the machine or the number of threads. *out, if not NULL, becomes the final config. */
vkm_status vkm_init_model(const vkm_init_options *o, vkm_model_config *out,
                          vkm_err *err) VKM_MUST_CHECK;

/* The small tokenizer's files (tokenizer.json, tokenizer_config.json) in a folder. */
vkm_status vkm_small_tokenizer_save(const char *folder, vkm_err *err) VKM_MUST_CHECK;

#endif
