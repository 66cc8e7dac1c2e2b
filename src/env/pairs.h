/* Hand-authored hack/clean pairs: the only labels that routing and training may see.
 * Markdown: `## section`, `### name`, optional `Tags: a, b`, then `#### Prompt`, `#### Hack` and
 * `#### Clean`, each with a block fenced by five backticks and marked text. Prose may stand under
 * `#` and `##` headings only. */
#ifndef VKM_PAIRS_H
#define VKM_PAIRS_H

#include "base/hash.h"

typedef struct vkm_pair {
    size_t line; /* of its heading */
    char *section, *name;
    char *tags;   /* ",a,b," or "" */
    char *prompt; /* one ChatML prompt for both sides; a last newline after "assistant" is added */
    char *hack, *clean;
} vkm_pair;

typedef struct vkm_pairs {
    vkm_pair *items; /* (n) in the file's order */
    size_t n;
    vkm_hash128 hash; /* of names and texts of these pairs */
} vkm_pairs;

/* Loads the pairs that a selector names: file.md#section/prefix@tag, where section, prefix (of the
 * name) and tag may be left out. The whole file is checked: an error names the line and the
 * heading. Two pairs of the same texts, or a pair whose sides are the same, are errors. */
vkm_status vkm_pairs_load(const char *selector, vkm_pairs **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_pairs_free(vkm_pairs *p);

#endif
