/* Unicode normalization as the `tokenizers` library does it. */
#ifndef VKM_NFC_H
#define VKM_NFC_H

#include "base/strbuf.h"

/* Appends NFC of a UTF-8 text. The data are utf8proc's up to Unicode 9, which is what `tokenizers`
 * has: younger marks are characters that neither reorder nor compose. */
vkm_status vkm_nfc(const char *text, size_t n, vkm_strbuf *out, vkm_err *err) VKM_MUST_CHECK;

#endif
