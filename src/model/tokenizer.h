/* Byte-level BPE from a Hugging Face tokenizer.json: the same ids as the `tokenizers` library.
 * tokenizer.c loads, tokenizer_bpe.c encodes and decodes. A tokenizer is read-only after loading:
 * threads may share one. */
#ifndef VKM_TOKENIZER_H
#define VKM_TOKENIZER_H

#include "base/strbuf.h"

typedef struct vkm_tokenizer vkm_tokenizer;

/* The chat format of a folder (chat.h renders it). */
typedef enum vkm_chat_style {
    VKM_CHAT_PLAIN,    /* ChatML alone: no think block anywhere */
    VKM_CHAT_QWEN2,    /* ChatML with a system message of its own where there is none: Qwen2's */
    VKM_CHAT_QWEN2_5,  /* and Qwen2.5's */
    VKM_CHAT_NO_THINK, /* Qwen3 with enable_thinking=False: the prompt ends in an empty think block
                        */
    VKM_CHAT_THINK,    /* Qwen3 with enable_thinking=True: the model writes its own think block */
    VKM_CHAT_UNKNOWN,  /* another template, or a tokenizer without ChatML's tokens */
} vkm_chat_style;

/* path: a tokenizer.json, or a folder that holds one. Normalizers: none, NFC. Pre-tokenizers: Split
 * by regular expressions, ByteLevel. Model: BPE over all 256 bytes. Anything else is an error that
 * names the key. A folder's chat template (chat_template.jinja, or in tokenizer_config.json) tells
 * the chat style; without one Qwen3's where there is <think>, else plain ChatML. */
vkm_status vkm_tokenizer_load(const char *path, vkm_tokenizer **out, vkm_err *err) VKM_MUST_CHECK;
/* The same from the text of a tokenizer.json; `name` begins error messages. */
vkm_status vkm_tokenizer_parse(const char *text, size_t n, const char *name, vkm_tokenizer **out,
                               vkm_err *err) VKM_MUST_CHECK;
void vkm_tokenizer_free(vkm_tokenizer *t); /* accepts NULL */

uint32_t vkm_tokenizer_n_ids(const vkm_tokenizer *t); /* largest id + 1: at most the model's V */
/* The id of a token by its text in tokenizer.json, as "<|im_end|>"; -1 when there is none. */
int64_t vkm_tokenizer_id(const vkm_tokenizer *t, const char *token);
/* The bytes that an id stands for, not NUL-terminated; n = 0 for an id without a token. */
const char *vkm_tokenizer_bytes(const vkm_tokenizer *t, uint32_t id, size_t *n);
vkm_chat_style vkm_chat_style_of(const vkm_tokenizer *t); /* a think style is NO_THINK */
bool vkm_tokenizer_is_special(const vkm_tokenizer *t, uint32_t id);

typedef struct vkm_ids {
    uint32_t *id;
    size_t n, cap;
} vkm_ids; /* all zero is empty; free .id */

/* Appends the ids of a UTF-8 text. Added tokens in the text (such as <|im_end|>) become their ids,
 * as in transformers; no token is put before or after. */
vkm_status vkm_tokenizer_encode(const vkm_tokenizer *t, const char *text, size_t n, vkm_ids *out,
                                vkm_err *err) VKM_MUST_CHECK;
/* Appends the text of n ids; bytes that are not UTF-8 become U+FFFD. Ids without a token give
 * nothing. skip_special leaves special tokens out. Memory failure is the strbuf's. */
void vkm_tokenizer_decode(const vkm_tokenizer *t, const uint32_t *ids, size_t n, bool skip_special,
                          vkm_strbuf *out);

/* The same in parts, for a text that is shown as it comes: a character whose last bytes are still
 * to come is held back. The parts together are the text of all ids. */
typedef struct vkm_decoder {
    const vkm_tokenizer *t;
    bool skip_special;
    char held[4];
    size_t n_held;
} vkm_decoder; /* {t, skip_special} begins */
void vkm_decoder_add(vkm_decoder *d, const uint32_t *ids, size_t n, vkm_strbuf *out);
void vkm_decoder_end(vkm_decoder *d, vkm_strbuf *out); /* what is held back, as U+FFFD */

#endif
