/* Owns Python values: decoding, == and printing. Literals are parsed in literal.c. */
#include "env/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void vkm_py_clear(vkm_py *v) {
    size_t items = v->kind == VKM_PY_DICT ? 2 * v->n : v->n;
    switch (v->kind) {
    case VKM_PY_INT:
        free(v->u.limbs);
        break;
    case VKM_PY_STR:
        free(v->u.s);
        break;
    case VKM_PY_LIST:
    case VKM_PY_TUPLE:
    case VKM_PY_DICT:
        for (size_t i = 0; v->u.items && i < items; i++) vkm_py_clear(&v->u.items[i]);
        free(v->u.items);
        break;
    default:
        break;
    }
    memset(v, 0, sizeof *v);
}

/* ---- equality ----------------------------------------------------------------------------------
 */

typedef struct {
    bool negative;
    size_t n;
    const uint32_t *limbs;
} whole;

static whole whole_of(const vkm_py *v, uint32_t *one) {
    if (v->kind == VKM_PY_INT) return (whole){v->negative, v->n, v->u.limbs};
    *one = 1;
    return (whole){false, v->n, one};
}

static bool whole_equal(whole a, whole b) {
    return a.negative == b.negative && a.n == b.n &&
           (!a.n || !memcmp(a.limbs, b.limbs, a.n * sizeof *a.limbs));
}

/* Exact: the float is taken apart into a whole number, or it has a fraction and is not equal. */
static bool whole_equals_float(whole a, double f) {
    uint64_t bits;
    memcpy(&bits, &f, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t m = bits & ((1ull << 52) - 1);
    if (exponent == 0x7ff) return false;
    if (exponent) m |= 1ull << 52;
    if (!m) return a.n == 0;
    int shift = (exponent ? exponent : 1) - 1075;
    if (shift < 0) {
        if (shift < -52 || m & ((1ull << -shift) - 1)) return false;
        m >>= -shift;
        shift = 0;
    }
    uint32_t limbs[36] = {0};
    size_t at = (size_t)shift / 32, bit = (size_t)shift % 32;
    limbs[at] = (uint32_t)(m << bit);
    limbs[at + 1] = (uint32_t)(m >> (32 - bit));
    limbs[at + 2] = bit ? (uint32_t)(m >> (64 - bit)) : 0;
    size_t n = at + 3;
    while (n && !limbs[n - 1]) n--;
    return whole_equal(a, (whole){bits >> 63 != 0, n, limbs});
}

static bool is_whole(const vkm_py *v) {
    return v->kind == VKM_PY_BOOL || v->kind == VKM_PY_INT;
}

static bool dict_within(const vkm_py *a, const vkm_py *b) {
    for (size_t i = 0; i < a->n; i++) {
        size_t j = 0;
        while (j < b->n && !vkm_py_equal(&a->u.items[2 * i], &b->u.items[2 * j])) j++;
        if (j == b->n || !vkm_py_equal(&a->u.items[2 * i + 1], &b->u.items[2 * j + 1]))
            return false;
    }
    return true;
}

bool vkm_py_equal(const vkm_py *a, const vkm_py *b) {
    uint32_t one_a, one_b;
    if (is_whole(a) && is_whole(b)) return whole_equal(whole_of(a, &one_a), whole_of(b, &one_b));
    if (is_whole(a) && b->kind == VKM_PY_FLOAT)
        return whole_equals_float(whole_of(a, &one_a), b->u.f);
    if (a->kind == VKM_PY_FLOAT && is_whole(b))
        return whole_equals_float(whole_of(b, &one_b), a->u.f);
    if (a->kind != b->kind) return false;
    switch (a->kind) {
    case VKM_PY_NONE:
        return true;
    case VKM_PY_FLOAT:
        return a->u.f == b->u.f;
    case VKM_PY_STR:
        return a->n == b->n && (!a->n || !memcmp(a->u.s, b->u.s, a->n));
    case VKM_PY_LIST:
    case VKM_PY_TUPLE:
        if (a->n != b->n) return false;
        for (size_t i = 0; i < a->n; i++)
            if (!vkm_py_equal(&a->u.items[i], &b->u.items[i])) return false;
        return true;
    case VKM_PY_DICT:
        /* both ways: a forged dict may hold a key twice */
        return a->n == b->n && dict_within(a, b) && dict_within(b, a);
    default:
        return false;
    }
}

/* ---- decoding ----------------------------------------------------------------------------------
 */

typedef struct {
    const uint8_t *at, *end;
} reader;

static bool take(reader *r, size_t n, const uint8_t **out) {
    if ((size_t)(r->end - r->at) < n) return false;
    *out = r->at;
    r->at += n;
    return true;
}

static bool take_size(reader *r, size_t *n) {
    const uint8_t *b;
    if (!take(r, 4, &b)) return false;
    *n = (size_t)b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
    return *n <= (size_t)(r->end - r->at);
}

static bool take_int(reader *r, vkm_py *out) {
    const uint8_t *sign, *b;
    size_t n;
    if (!take(r, 1, &sign) || !take_size(r, &n) || !take(r, n, &b)) return false;
    while (n && !b[n - 1]) n--;
    out->kind = VKM_PY_INT;
    out->negative = *sign == '-' && n;
    out->n = (n + 3) / 4;
    if (!n) return true;
    out->u.limbs = calloc(out->n, sizeof *out->u.limbs);
    if (!out->u.limbs) return out->n = 0, false;
    for (size_t i = 0; i < n; i++) out->u.limbs[i / 4] |= (uint32_t)b[i] << 8 * (i % 4);
    return true;
}

static bool take_value(reader *r, vkm_py *out, int depth);

/* The count is hostile: memory grows with what has really come. */
static bool take_items(reader *r, vkm_py *out, vkm_py_kind kind, int depth) {
    size_t n, filled = 0, cap = 0;
    if (depth > VKM_PY_MAX_DEPTH || !take_size(r, &n)) return false;
    size_t want = kind == VKM_PY_DICT ? 2 * n : n;
    vkm_py *items = NULL;
    for (; filled < want; filled++) {
        if (filled == cap) {
            cap = cap ? 2 * cap : 16;
            vkm_py *more = realloc(items, cap * sizeof *items);
            if (!more) goto fail;
            items = more;
        }
        memset(&items[filled], 0, sizeof *items);
        if (!take_value(r, &items[filled], depth + 1)) {
            vkm_py_clear(&items[filled]);
            goto fail;
        }
    }
    *out = (vkm_py){.kind = kind, .n = n, .u.items = items};
    return true;
fail:
    while (filled) vkm_py_clear(&items[--filled]);
    free(items);
    return false;
}

static bool take_value(reader *r, vkm_py *out, int depth) {
    const uint8_t *tag, *b;
    if (!take(r, 1, &tag)) return false;
    switch (*tag) {
    case 'N':
        return true;
    case 'T':
    case 'F':
        out->kind = VKM_PY_BOOL;
        out->n = *tag == 'T';
        return true;
    case 'I':
        return take_int(r, out);
    case 'D':
        if (!take(r, 8, &b)) return false;
        out->kind = VKM_PY_FLOAT;
        memcpy(&out->u.f, b, 8);
        return true;
    case 'S': {
        size_t n;
        if (!take_size(r, &n) || !take(r, n, &b)) return false;
        out->u.s = malloc(n + 1);
        if (!out->u.s) return false;
        out->kind = VKM_PY_STR;
        out->n = n;
        memcpy(out->u.s, b, n);
        out->u.s[n] = 0;
        return true;
    }
    case 'L':
        return take_items(r, out, VKM_PY_LIST, depth);
    case 'U':
        return take_items(r, out, VKM_PY_TUPLE, depth);
    case 'M':
        return take_items(r, out, VKM_PY_DICT, depth);
    case 'X':
        out->kind = VKM_PY_CUSTOM;
        return true;
    default:
        return false;
    }
}

bool vkm_py_decode(const uint8_t *bytes, size_t n, vkm_py *out) {
    reader r = {bytes, bytes + n};
    memset(out, 0, sizeof *out);
    if (take_value(&r, out, 0) && r.at == r.end) return true;
    vkm_py_clear(out);
    return false;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static void print_int(const vkm_py *v, vkm_strbuf *out) {
    if (v->negative) vkm_strbuf_putc(out, '-');
    vkm_strbuf_puts(out, "0x");
    if (!v->n) vkm_strbuf_putc(out, '0');
    for (size_t i = v->n; i-- > 0;)
        vkm_strbuf_printf(out, i + 1 == v->n ? "%x" : "%08x", v->u.limbs[i]);
}

static void print_float(double f, vkm_strbuf *out) {
    char text[40];
    snprintf(text, sizeof text, "%.17g", f);
    vkm_strbuf_puts(out, text);
    if (!strpbrk(text, ".ein")) vkm_strbuf_puts(out, ".0");
}

static void print_items(const vkm_py *v, const char *open, const char *close, vkm_strbuf *out) {
    vkm_strbuf_puts(out, open);
    for (size_t i = 0; i < v->n; i++) {
        if (i) vkm_strbuf_puts(out, ", ");
        if (v->kind != VKM_PY_DICT) {
            vkm_py_print(&v->u.items[i], out);
            continue;
        }
        vkm_py_print(&v->u.items[2 * i], out);
        vkm_strbuf_puts(out, ": ");
        vkm_py_print(&v->u.items[2 * i + 1], out);
    }
    if (v->kind == VKM_PY_TUPLE && v->n == 1) vkm_strbuf_putc(out, ',');
    vkm_strbuf_puts(out, close);
}

void vkm_py_print(const vkm_py *v, vkm_strbuf *out) {
    switch (v->kind) {
    case VKM_PY_NONE:
        vkm_strbuf_puts(out, "None");
        break;
    case VKM_PY_BOOL:
        vkm_strbuf_puts(out, v->n ? "True" : "False");
        break;
    case VKM_PY_INT:
        print_int(v, out);
        break;
    case VKM_PY_FLOAT:
        print_float(v->u.f, out);
        break;
    case VKM_PY_STR:
        vkm_strbuf_putc(out, '\'');
        for (size_t i = 0; i < v->n; i++) {
            unsigned char c = (unsigned char)v->u.s[i];
            if (c < 32 || c == 127 || c == '\'' || c == '\\')
                vkm_strbuf_printf(out, "\\x%02x", c);
            else
                vkm_strbuf_putc(out, (char)c);
        }
        vkm_strbuf_putc(out, '\'');
        break;
    case VKM_PY_LIST:
        print_items(v, "[", "]", out);
        break;
    case VKM_PY_TUPLE:
        print_items(v, "(", ")", out);
        break;
    case VKM_PY_DICT:
        print_items(v, "{", "}", out);
        break;
    default:
        vkm_strbuf_puts(out, "<custom>");
    }
}
