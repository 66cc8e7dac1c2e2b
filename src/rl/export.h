/* A trained adapter for other software: a PEFT adapter, or a model with it merged. The expert e of
 * a Linear adds B0_e dA_e x + dB_e (A0_e + dA_e) x, which is a LoRA of rank 2R:
 *     lora_A = [dA_e; A0_e + dA_e],  lora_B = [B0_e | dB_e] */
#ifndef VKM_EXPORT_H
#define VKM_EXPORT_H

#include "model/model_files.h"
#include "rl/inference.h"

typedef struct vkm_export_options {
    int fp32; /* else bf16 */
    uint64_t shard_bytes;
} vkm_export_options;

/* Both write into `folder`, which is made; x is open, not loaded; dev plans only. Experts whose
 * weight is 0 are left out, another weight scales lora_B.
 * PEFT: adapter_config.json, adapter_model.safetensors (rank 2R an expert, lora_alpha the same). */
vkm_status vkm_export_adapter(const vkm_inference *x, vkm_dev *dev, const vkm_export_options *o,
                              const char *folder, vkm_err *err) VKM_MUST_CHECK;
/* A model folder: weights with the adapter added in fp32 and then rounded; tokenizer and configs
 * are copied. Without a run the model's own weights, in other shards or another type. */
vkm_status vkm_export_model(const vkm_inference *x, vkm_dev *dev, const vkm_export_options *o,
                            const char *folder, vkm_err *err) VKM_MUST_CHECK;

#endif
