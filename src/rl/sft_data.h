/* Rows of supervised fine-tuning: JSON lines as token ids, and their order. */
#ifndef VKM_SFT_DATA_H
#define VKM_SFT_DATA_H

#include "model/forward.h"
#include "model/tokenizer.h"

typedef struct vkm_sft_data {
    vkm_ids *ids;    /* of each row: prompt and completion */
    uint32_t *comp0; /* the completion begins here */
    size_t n, cap;
    size_t n_cut;     /* rows that were longer than max_length */
    uint32_t longest; /* tokens */
    uint32_t *order;  /* of the rows in epoch `epoch` */
    uint64_t epoch;
} vkm_sft_data; /* all zero is empty */

/* A line is {"messages": [{"role", "content"}, ...]}, whose last message is the assistant's and the
 * completion, or {"prompt", "completion"}: two texts, or two lists of messages with one in the
 * second. Other keys are ignored. Chat turns follow vkm_chat_render and end with <|im_end|>, a text
 * completion ends with `eos` (added where it is missing). What is longer than max_length tokens is
 * cut there; a prompt that leaves no room for a completion is an error that names the line. */
vkm_status vkm_sft_data_load(const char *path, const vkm_tokenizer *t, uint32_t eos,
                             uint32_t max_length, vkm_sft_data *out, vkm_err *err) VKM_MUST_CHECK;
void vkm_sft_data_free(vkm_sft_data *d);

/* Rows [first, first + n) of the endless sequence of epochs, each a shuffle that follows from the
 * seed and the epoch's number alone. Sequences point into d. */
vkm_status vkm_sft_data_batch(vkm_sft_data *d, uint64_t seed, uint64_t first, uint32_t n,
                              vkm_seq *out, vkm_err *err) VKM_MUST_CHECK;

#endif
