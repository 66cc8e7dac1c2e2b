/* A Hugging Face folder's config.json and generation_config.json. Weights: safetensors.h. */
#ifndef VKM_HF_CONFIG_H
#define VKM_HF_CONFIG_H

#include "base/status.h"
#include "ops/rope_table.h"

#include <stdbool.h>

enum { VKM_EOS_MAX = 8 };

/* Architectures: rows of one table of flags (hf_config.c). */
typedef enum {
    VKM_ARCH_QWEN3,
    VKM_ARCH_QWEN2,
    VKM_ARCH_LLAMA,
    VKM_ARCH_MISTRAL,
    VKM_N_ARCHS
} vkm_arch_id;

/* Shapes by the letters of model.h. */
typedef struct vkm_model_config {
    uint32_t C;       /* hidden_size */
    uint32_t L;       /* num_hidden_layers */
    uint32_t H;       /* num_attention_heads */
    uint32_t K;       /* num_key_value_heads; H is a multiple of it */
    uint32_t D;       /* head_dim, a multiple of 4; H D need not be C */
    uint32_t F;       /* intermediate_size */
    uint32_t V;       /* vocab_size: rows of the embedding; may exceed the tokenizer's vocabulary */
    uint32_t max_pos; /* max_position_embeddings */
    double norm_eps;  /* rms_norm_eps */
    vkm_rope rope;    /* rope_theta; rope_scaling */
    bool tied;        /* the output head is the embedding */
    vkm_arch_id arch; /* model_type */
    bool qk_norm;     /* per-head RMSNorm of q and k, as the architecture has it */
    bool qkv_bias;    /* q, k and v have biases, likewise */
    uint32_t n_eos;
    uint32_t eos[VKM_EOS_MAX]; /* generation_config.json's, else config.json's; may be none */
    int64_t bos, pad;          /* -1: none */
    /* generation_config.json's sampling defaults; transformers' own (1, 1, 50) when it has none */
    double temperature, top_p;
    uint32_t top_k; /* 0: all */
} vkm_model_config;

/* Reads and checks folder/config.json, and folder/generation_config.json if it is there. Errors
 * name the key and the mend; an architecture that is not supported lists those that are. */
vkm_status vkm_model_config_load(const char *folder, vkm_model_config *out,
                                 vkm_err *err) VKM_MUST_CHECK;
/* The same checks for a config made otherwise; `name` begins the message. */
vkm_status vkm_model_config_check(const vkm_model_config *c, const char *name,
                                  vkm_err *err) VKM_MUST_CHECK;
/* Writes both files as transformers reads them. */
vkm_status vkm_model_config_save(const vkm_model_config *c, const char *folder,
                                 vkm_err *err) VKM_MUST_CHECK;

/* Parameters of the model (a tied embedding once). */
uint64_t vkm_model_config_n_params(const vkm_model_config *c);

#endif
