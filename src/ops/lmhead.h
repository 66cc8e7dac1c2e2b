/* Shared by the output kernels: vocabulary blocks, the state of a decoding row, and the parameters
 * of sampling. */
#ifndef VKM_LMHEAD_H
#define VKM_LMHEAD_H

#include "vk/tensor.h"

enum { VKM_VOCAB_BLOCK = 256 };
static inline uint32_t vkm_n_blocks(uint32_t n_vocab) {
    return (n_vocab + VKM_VOCAB_BLOCK - 1) / VKM_VOCAB_BLOCK;
}

/* Columns of `state`, u32 (n_rows, 8). A row decodes one rollout: its keys are the prompt's rows
 * prompt_row0 .. + prompt_len, then its own own_row0 .. + n_own. */
enum {
    VKM_ROW_PROMPT0,
    VKM_ROW_PROMPT_LEN,
    VKM_ROW_OWN0,
    VKM_ROW_N_OWN, /* tokens generated so far; the last of them is VKM_ROW_TOKEN */
    VKM_ROW_TOKEN,
    VKM_ROW_FINISHED,
    VKM_ROW_ROLLOUT, /* row of the outputs, and the rollout of the random counter */
    VKM_ROW_SPARE,
    VKM_ROW_WORDS
};

/* The distribution that tokens are drawn from, applied in this order (as transformers does). */
typedef struct vkm_sampling {
    double temperature; /* 0: the most likely token, the lowest id among equals */
    uint32_t top_k;     /* 0: off */
    double top_p;       /* 1: off; at least one token stays */
    double min_p;       /* 0: off; relative to the most likely token */
} vkm_sampling;

enum { VKM_SAMPLE_WORDS = 8 };
/* Fills the `params` buffer of the sample kernel, u32 (8). Draws are numbered by (seed, step,
 * rollout, position, draw): `draw` tells repeated passes over the same rollouts apart. */
vkm_status vkm_sampling_words(const vkm_sampling *p, uint64_t seed, uint32_t step, uint32_t draw,
                              uint32_t words[VKM_SAMPLE_WORDS], vkm_err *err) VKM_MUST_CHECK;

#endif
