/* The inside of a tokenizer, shared by tokenizer.c and tokenizer_bpe.c only. */
#ifndef VKM_TOKENIZER_IMPL_H
#define VKM_TOKENIZER_IMPL_H

#include "model/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { VKM_TOK_SPLITS = 8, VKM_NO_ID = UINT32_MAX };

typedef struct vkm_tok_entry {
    uint32_t name_at, name_n;   /* text in tokenizer.json; name_n == 0: no token of this id */
    uint32_t bytes_at, bytes_n; /* what it decodes to */
    bool special;
} vkm_tok_entry;

typedef struct vkm_tok_merge {
    uint32_t left, right; /* left == VKM_NO_ID: empty slot */
    uint32_t rank, id;
} vkm_tok_merge;

typedef struct vkm_tok_added {
    uint32_t id, at, n;  /* content in the arena */
    bool normalized;     /* looked for after NFC instead of before */
    bool single_word;    /* only where no word character stands beside it */
    bool lstrip, rstrip; /* takes the white space before it, behind it */
    int32_t next;        /* among those with the same first byte, longest first; -1 ends */
} vkm_tok_added;

struct vkm_tokenizer {
    vkm_strbuf arena;
    vkm_tok_entry *entries; /* by id */
    uint32_t n_ids, cap_ids;
    uint32_t *names; /* hash table of ids + 1 by name; n_names a power of two */
    uint32_t n_names;
    vkm_tok_merge *merges; /* hash table; n_merges a power of two */
    uint32_t n_merges;
    vkm_tok_added *added;
    uint32_t n_added;
    int32_t added_first[256];
    uint32_t byte_id[256];
    pcre2_code *split[VKM_TOK_SPLITS];
    int n_splits;
    bool nfc, ignore_merges, any_normalized;
    vkm_chat_style chat;
};

uint32_t vkm_tok_find(const vkm_tokenizer *t, const char *name, size_t n); /* or VKM_NO_ID */
vkm_tok_merge *vkm_tok_merge_slot(const vkm_tokenizer *t, uint32_t left, uint32_t right);
/* Sets t->chat; folder NULL: by the tokens alone. */
vkm_status vkm_tok_find_style(vkm_tokenizer *t, const char *folder, vkm_err *err) VKM_MUST_CHECK;
/* The ByteLevel alphabet: the code point that stands for a byte. */
uint32_t vkm_tok_byte_char(unsigned byte);

#endif
