/* Unicode as the `tokenizers` library has it: normalization, and what is a word or a space. */
#ifndef VKM_UNICODE_H
#define VKM_UNICODE_H

#include "base/strbuf.h"

/* Appends NFC of a UTF-8 text. The data are utf8proc's up to Unicode 9, which is what `tokenizers`
 * has: younger marks are characters that neither reorder nor compose. */
vkm_status vkm_nfc(const char *text, size_t n, vkm_strbuf *out, vkm_err *err) VKM_MUST_CHECK;

/* What stands beside an added token, for its flags; text is UTF-8. A word character is one of
 * letters, marks, decimal digits, letter numbers and connectors (Rust's \w). */
bool vkm_word_before(const char *begin, const char *at);
bool vkm_word_at(const char *at, const char *end);
/* The begin of the white space that ends at `at`, not before `begin`; the end of that from `at`. */
const char *vkm_spaces_before(const char *begin, const char *at);
const char *vkm_spaces_at(const char *at, const char *end);

#endif
