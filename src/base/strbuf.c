/* Owns growable bytes and UTF-8 sequence checks. */
#include "base/strbuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vkm_strbuf_free(vkm_strbuf *b) {
    free(b->data);
    *b = (vkm_strbuf){0};
}

void vkm_strbuf_clear(vkm_strbuf *b) {
    b->n = 0;
    if (b->data) b->data[0] = 0;
}

bool vkm_strbuf_reserve(vkm_strbuf *b, size_t more) {
    if (b->failed) return false;
    if (more < SIZE_MAX - b->n && b->n + more + 1 <= b->cap) return true;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap - b->n <= more) {
        if (cap > SIZE_MAX / 2) goto fail;
        cap *= 2;
    }
    char *p = realloc(b->data, cap);
    if (!p) goto fail;
    if (!b->data) p[0] = 0;
    b->data = p;
    b->cap = cap;
    return true;
fail:
    b->failed = true;
    return false;
}

void vkm_strbuf_add(vkm_strbuf *b, const void *bytes, size_t n) {
    if (!n || !vkm_strbuf_reserve(b, n)) return;
    memcpy(b->data + b->n, bytes, n);
    b->n += n;
    b->data[b->n] = 0;
}

void vkm_strbuf_puts(vkm_strbuf *b, const char *s) {
    vkm_strbuf_add(b, s, strlen(s));
}

void vkm_strbuf_putc(vkm_strbuf *b, char c) {
    vkm_strbuf_add(b, &c, 1);
}

void vkm_strbuf_printf(vkm_strbuf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
    } else if (vkm_strbuf_reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

const char *vkm_strbuf_str(const vkm_strbuf *b) {
    return b->data ? b->data : "";
}

vkm_status vkm_strbuf_check(const vkm_strbuf *b, const char *what, vkm_err *err) {
    if (!b->failed) return VKM_OK;
    return vkm_fail(err, VKM_FAILED, "out of host memory for %s (after %zu bytes)", what, b->n);
}

size_t vkm_utf8_len(const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return 1;
    size_t len = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || n < len) return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F)) return 0;
    if ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
    return len;
}

/* Length of the part at s, where vkm_utf8_len is 0, that one U+FFFD stands for. */
static size_t broken_len(const char *text, size_t n) {
    const unsigned char *s = (const unsigned char *)text;
    size_t want = s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : s[0] >= 0xE0 && s[0] < 0xF0 ? 3 : 1;
    size_t len = 1;
    for (; len < want && len < n; len++) {
        unsigned low = 0x80, high = 0xBF;
        if (len == 1) { /* the lead byte narrows the byte after it */
            if (s[0] == 0xE0) low = 0xA0;
            if (s[0] == 0xED) high = 0x9F;
            if (s[0] == 0xF0) low = 0x90;
            if (s[0] == 0xF4) high = 0x8F;
        }
        if (s[len] < low || s[len] > high) break;
    }
    return len;
}

void vkm_utf8_repair(vkm_strbuf *b, size_t from) {
    size_t i = from, len;
    while (i < b->n && (len = vkm_utf8_len(b->data + i, b->n - i))) i += len;
    if (i == b->n || b->failed) return;
    vkm_strbuf old = *b, fixed = {0};
    vkm_strbuf_add(&fixed, old.data, i);
    while (i < old.n) {
        len = vkm_utf8_len(old.data + i, old.n - i);
        if (len)
            vkm_strbuf_add(&fixed, old.data + i, len);
        else
            vkm_strbuf_puts(&fixed, "\xEF\xBF\xBD");
        i += len ? len : broken_len(old.data + i, old.n - i);
    }
    vkm_strbuf_free(&old);
    *b = fixed;
}
