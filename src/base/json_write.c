/* Owns writing JSON. */
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

vkm_jw vkm_jw_begin(vkm_strbuf *out, int indent) {
    return (vkm_jw){.out = out, .indent = indent};
}

static void new_line(vkm_jw *w) {
    if (!w->indent) return;
    vkm_strbuf_putc(w->out, '\n');
    for (int i = 0; i < w->indent * w->depth; i++) vkm_strbuf_putc(w->out, ' ');
}

static void quoted(vkm_strbuf *out, const char *s, size_t n) {
    vkm_strbuf_putc(out, '"');
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        const char *named = c == '"'    ? "\\\""
                            : c == '\\' ? "\\\\"
                            : c == '\n' ? "\\n"
                            : c == '\r' ? "\\r"
                            : c == '\t' ? "\\t"
                                        : NULL;
        size_t len = vkm_utf8_len(s + i, n - i);
        if (named)
            vkm_strbuf_puts(out, named);
        else if (c < 0x20 || c == 0x7F)
            vkm_strbuf_printf(out, "\\u%04x", c);
        else if (!len)
            vkm_strbuf_puts(out, "\xEF\xBF\xBD"); /* U+FFFD */
        else
            vkm_strbuf_add(out, s + i, len);
        i += len ? len : 1;
    }
    vkm_strbuf_putc(out, '"');
}

/* Comma, line break and key before a value. */
static void before(vkm_jw *w, const char *key) {
    if (w->comma) vkm_strbuf_putc(w->out, ',');
    if (w->depth) new_line(w);
    if (w->comma && !w->indent) vkm_strbuf_putc(w->out, ' ');
    w->comma = true;
    if (!key) return;
    quoted(w->out, key, strlen(key));
    vkm_strbuf_puts(w->out, ": ");
}

static void open_group(vkm_jw *w, const char *key, char c) {
    before(w, key);
    vkm_strbuf_putc(w->out, c);
    w->depth++;
    w->comma = false;
}

static void close_group(vkm_jw *w, char c) {
    VKM_BUG_ON(w->depth < 1, "closed more groups than were opened");
    w->depth--;
    if (w->comma) new_line(w); /* an empty group stays on its line */
    vkm_strbuf_putc(w->out, c);
    w->comma = true;
}

void vkm_jw_obj(vkm_jw *w, const char *key) {
    open_group(w, key, '{');
}
void vkm_jw_end_obj(vkm_jw *w) {
    close_group(w, '}');
}
void vkm_jw_arr(vkm_jw *w, const char *key) {
    open_group(w, key, '[');
}
void vkm_jw_end_arr(vkm_jw *w) {
    close_group(w, ']');
}

void vkm_jw_strn(vkm_jw *w, const char *key, const char *s, size_t n) {
    before(w, key);
    quoted(w->out, s, n);
}

void vkm_jw_raw(vkm_jw *w, const char *key, const char *json) {
    before(w, key);
    vkm_strbuf_puts(w->out, json);
}

void vkm_jw_null(vkm_jw *w, const char *key) {
    vkm_jw_raw(w, key, "null");
}
void vkm_jw_bool(vkm_jw *w, const char *key, bool v) {
    vkm_jw_raw(w, key, v ? "true" : "false");
}

void vkm_jw_str(vkm_jw *w, const char *key, const char *s) {
    if (s)
        vkm_jw_strn(w, key, s, strlen(s));
    else
        vkm_jw_null(w, key);
}

void vkm_jw_i64(vkm_jw *w, const char *key, int64_t v) {
    before(w, key);
    vkm_strbuf_printf(w->out, "%lld", (long long)v);
}

void vkm_jw_u64(vkm_jw *w, const char *key, uint64_t v) {
    before(w, key);
    vkm_strbuf_printf(w->out, "%llu", (unsigned long long)v);
}

/* Tries 1 to 17 (double) or 9 (float) digits until the value reads back; then prints 10000.0 rather
 * than 1e+04: readers with typed keys take a number without point or exponent for an integer. */
static void shortest(vkm_jw *w, const char *key, double v, int most, bool is_float) {
    char text[48];
    if (!isfinite(v)) {
        vkm_jw_null(w, key);
        return;
    }
    int digits = 1;
    for (; digits < most; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (is_float ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v) break;
    }
    while (digits < 16 && fabs(v) < 1e15 && fabs(v) >= pow(10, digits)) digits++;
    snprintf(text, sizeof text - 2, "%.*g", digits, v);
    if (!strpbrk(text, ".e")) strcat(text, ".0");
    vkm_jw_raw(w, key, text);
}

void vkm_jw_double(vkm_jw *w, const char *key, double v) {
    shortest(w, key, v, 17, false);
}
void vkm_jw_float(vkm_jw *w, const char *key, float v) {
    shortest(w, key, (double)v, 9, true);
}
