/* A growable run of bytes.
 * Memory failure is sticky: writes after it do nothing, and vkm_strbuf_check() reports it once, so
 * that callers may build a whole text before they look. */
#ifndef VKM_STRBUF_H
#define VKM_STRBUF_H

#include "base/status.h"

#include <stdbool.h>

typedef struct vkm_strbuf {
    char *data; /* n bytes and then a NUL; NULL while empty */
    size_t n, cap;
    bool failed;
} vkm_strbuf; /* all zero is an empty buffer */

void vkm_strbuf_free(vkm_strbuf *b);
/* Empties the buffer and keeps its memory. */
void vkm_strbuf_clear(vkm_strbuf *b);
/* Makes room for `more` bytes after the end. */
bool vkm_strbuf_reserve(vkm_strbuf *b, size_t more);
void vkm_strbuf_add(vkm_strbuf *b, const void *bytes, size_t n);
void vkm_strbuf_puts(vkm_strbuf *b, const char *s);
void vkm_strbuf_putc(vkm_strbuf *b, char c);
void vkm_strbuf_printf(vkm_strbuf *b, const char *fmt, ...) VKM_PRINTF(2, 3);
/* The text, never NULL: "" for an empty buffer. */
const char *vkm_strbuf_str(const vkm_strbuf *b);
/* VKM_OK, or the memory failure that one of the writes met. */
vkm_status vkm_strbuf_check(const vkm_strbuf *b, const char *what, vkm_err *err) VKM_MUST_CHECK;

/* Length of the valid UTF-8 sequence at s (of n > 0 bytes): 1 to 4, or 0 where it is not valid
 * (overlong, surrogate, above U+10FFFF or cut short). */
size_t vkm_utf8_len(const char *s, size_t n);
/* Replaces what is not UTF-8 from byte `from` on by U+FFFD, one for each longest part that could
 * have begun a character (as Unicode 15, section 3.9 recommends, and Python and Rust do). */
void vkm_utf8_repair(vkm_strbuf *b, size_t from);

#endif
