/* Owns the parsing of Python literals: the right sides of asserts. What is not listed here is
 * refused by name, never guessed. */
#include "env/value.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DIGITS = 4300, MAX_FLOAT_TEXT = 400 };

static const char unreadable[] = "unreadable right side";
static const char no_memory[] = "right side too large for memory";

typedef struct {
    const char *at, *end;
    const char *form; /* what is not handled; NULL so far */
} parser;

static bool fail(parser *p, const char *form) {
    if (!p->form) p->form = form;
    return false;
}

static void space(parser *p) {
    while (p->at < p->end && strchr(" \t\r\n", *p->at) && *p->at) p->at++;
}

static bool eat(parser *p, char c) {
    space(p);
    if (p->at == p->end || *p->at != c) return false;
    p->at++;
    return true;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 128;
}

static int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* ---- numbers -----------------------------------------------------------------------------------
 */

static bool whole_number(parser *p, const char *digits, size_t n, uint32_t base, vkm_py *out) {
    if (n > MAX_DIGITS) return fail(p, "integer of more than 4300 digits");
    uint32_t *limbs = calloc(n / 7 + 1, sizeof *limbs); /* 7 hex digits fit in one */
    if (!limbs) return fail(p, no_memory);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t carry = (uint64_t)hex_digit(digits[i]);
        for (size_t j = 0; j < used; j++) {
            carry += (uint64_t)limbs[j] * base;
            limbs[j] = (uint32_t)carry;
            carry >>= 32;
        }
        if (carry) limbs[used++] = (uint32_t)carry;
    }
    *out = (vkm_py){.kind = VKM_PY_INT, .n = used, .u.limbs = limbs};
    return true;
}

/* Copies digits of the base without their underscores (each stands between two digits). */
static bool digits_of(parser *p, uint32_t base, char *out, size_t *n, size_t max) {
    size_t first = *n;
    for (; p->at < p->end; p->at++) {
        if (*p->at == '_') {
            if (p->at + 1 == p->end || *n == first || (uint32_t)hex_digit(p->at[1]) >= base)
                return fail(p, unreadable);
            continue;
        }
        if ((uint32_t)hex_digit(*p->at) >= base) break;
        if (*n == max) return fail(p, "number too long");
        out[(*n)++] = *p->at;
    }
    return true;
}

static bool float_number(parser *p, char *text, size_t n, vkm_py *out) {
    if (p->at < p->end && *p->at == '.') {
        text[n++] = *p->at++;
        if (!digits_of(p, 10, text, &n, MAX_FLOAT_TEXT)) return false;
    }
    if (p->at < p->end && (*p->at | 32) == 'e') {
        text[n++] = *p->at++;
        if (p->at < p->end && (*p->at == '-' || *p->at == '+')) text[n++] = *p->at++;
        size_t before = n;
        if (!digits_of(p, 10, text, &n, MAX_FLOAT_TEXT + 8)) return false;
        if (n == before) return fail(p, unreadable);
    }
    text[n] = 0;
    *out = (vkm_py){.kind = VKM_PY_FLOAT, .u.f = strtod(text, NULL)};
    return true;
}

static bool number(parser *p, vkm_py *out) {
    static const struct {
        char letter;
        uint32_t base;
    } prefixes[] = {{'x', 16}, {'o', 8}, {'b', 2}};
    char text[MAX_DIGITS + 16];
    size_t n = 0;
    bool done = false, ok = true;
    for (size_t i = 0; i < VKM_COUNTOF(prefixes); i++) {
        if (p->end - p->at < 3 || p->at[0] != '0' || (p->at[1] | 32) != prefixes[i].letter)
            continue;
        p->at += 2;
        done = true;
        ok = digits_of(p, prefixes[i].base, text, &n, MAX_DIGITS);
        if (ok && !n) ok = fail(p, unreadable);
        if (ok) ok = whole_number(p, text, n, prefixes[i].base, out);
    }
    if (!done) {
        ok = digits_of(p, 10, text, &n, MAX_DIGITS);
        text[n] = 0;
        bool is_float = p->at < p->end && (*p->at == '.' || (*p->at | 32) == 'e');
        if (ok && is_float && n > MAX_FLOAT_TEXT - 2) ok = fail(p, "number too long");
        if (ok && is_float) {
            if (!n && (p->end - p->at < 2 || !is_digit(p->at[1]))) return fail(p, unreadable);
            ok = float_number(p, text, n, out);
        } else if (ok) {
            bool zero = strspn(text, "0") >= n;
            if (n > 1 && text[0] == '0' && !zero) return fail(p, unreadable);
            ok = whole_number(p, text, n, 10, out);
        }
    }
    if (ok && p->at < p->end && is_word(*p->at)) {
        vkm_py_clear(out);
        return fail(p, (*p->at | 32) == 'j' ? "complex number" : unreadable);
    }
    return ok;
}

/* ---- strings -----------------------------------------------------------------------------------
 */

static void put_code_point(vkm_strbuf *b, uint32_t c) {
    if (c < 0x80) {
        vkm_strbuf_putc(b, (char)c);
    } else if (c < 0x800) {
        vkm_strbuf_putc(b, (char)(0xc0 | c >> 6));
        vkm_strbuf_putc(b, (char)(0x80 | (c & 63)));
    } else if (c < 0x10000) {
        vkm_strbuf_putc(b, (char)(0xe0 | c >> 12));
        vkm_strbuf_putc(b, (char)(0x80 | (c >> 6 & 63)));
        vkm_strbuf_putc(b, (char)(0x80 | (c & 63)));
    } else {
        vkm_strbuf_putc(b, (char)(0xf0 | c >> 18));
        vkm_strbuf_putc(b, (char)(0x80 | (c >> 12 & 63)));
        vkm_strbuf_putc(b, (char)(0x80 | (c >> 6 & 63)));
        vkm_strbuf_putc(b, (char)(0x80 | (c & 63)));
    }
}

static bool hex_escape(parser *p, int digits, vkm_strbuf *b) {
    uint32_t c = 0;
    for (int i = 0; i < digits; i++, p->at++) {
        if (p->at == p->end || hex_digit(*p->at) > 15) return fail(p, unreadable);
        c = c * 16 + (uint32_t)hex_digit(*p->at);
    }
    if (c > 0x10ffff) return fail(p, unreadable);
    put_code_point(b, c);
    return true;
}

static bool escape(parser *p, vkm_strbuf *b) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    if (p->at == p->end) return fail(p, unreadable);
    char c = *p->at++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known) {
        vkm_strbuf_putc(b, to[known - from]);
    } else if (c >= '0' && c <= '7') {
        uint32_t code = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && p->at < p->end && *p->at >= '0' && *p->at <= '7'; i++)
            code = code * 8 + (uint32_t)(*p->at++ - '0');
        put_code_point(b, code);
    } else if (c == 'x' || c == 'u' || c == 'U') {
        return hex_escape(p, c == 'x' ? 2 : c == 'u' ? 4 : 8, b);
    } else if (c == 'N') {
        return fail(p, "named character in a string");
    } else if (c != '\n') {
        vkm_strbuf_putc(b, '\\');
        vkm_strbuf_putc(b, c);
    }
    return true;
}

/* One quoted part, at its first quote. */
static bool quoted(parser *p, bool raw, vkm_strbuf *b) {
    char q = *p->at;
    bool triple = p->end - p->at >= 3 && p->at[1] == q && p->at[2] == q;
    size_t width = triple ? 3 : 1;
    p->at += width;
    while (p->at < p->end) {
        if (*p->at == q && (!triple || (p->end - p->at >= 3 && p->at[1] == q && p->at[2] == q))) {
            p->at += width;
            return true;
        }
        char c = *p->at++;
        if (c == '\n' && !triple) break;
        if (c != '\\') {
            vkm_strbuf_putc(b, c);
        } else if (raw) {
            vkm_strbuf_putc(b, c);
            if (p->at < p->end) vkm_strbuf_putc(b, *p->at++);
        } else if (!escape(p, b)) {
            return false;
        }
    }
    return fail(p, unreadable);
}

/* Adjacent parts are one string. prefix: the letters before the first quote. */
static bool string(parser *p, vkm_py *out) {
    vkm_strbuf b = {0};
    bool ok = true;
    for (;;) {
        bool raw = false;
        const char *start = p->at;
        while (p->at < p->end && strchr("rRuU", *p->at) && *p->at) raw |= (*p->at++ | 32) == 'r';
        if (p->at == p->end || (*p->at != '\'' && *p->at != '"')) {
            p->at = start;
            break;
        }
        ok = p->at - start < 2 ? quoted(p, raw, &b) : fail(p, unreadable);
        if (!ok) break;
        space(p);
    }
    if (ok && b.failed) ok = fail(p, no_memory);
    if (ok && !b.data) vkm_strbuf_reserve(&b, 1);
    if (ok && !b.data) ok = fail(p, no_memory);
    if (!ok) {
        vkm_strbuf_free(&b);
        return false;
    }
    *out = (vkm_py){.kind = VKM_PY_STR, .n = b.n, .u.s = b.data};
    return true;
}

/* ---- names, containers, values -----------------------------------------------------------------
 */

static bool value(parser *p, vkm_py *out, int depth);

/* Names and calls that stand for one value, spaces left out. */
static const struct {
    const char *name;
    vkm_py value;
} names[] = {
    {"None", {.kind = VKM_PY_NONE}},
    {"True", {.kind = VKM_PY_BOOL, .n = 1}},
    {"False", {.kind = VKM_PY_BOOL}},
    {"inf", {.kind = VKM_PY_FLOAT, .u.f = __builtin_inf()}},
    {"nan", {.kind = VKM_PY_FLOAT, .u.f = __builtin_nan("")}},
    {"math.inf", {.kind = VKM_PY_FLOAT, .u.f = __builtin_inf()}},
    {"math.nan", {.kind = VKM_PY_FLOAT, .u.f = __builtin_nan("")}},
    {"float('inf')", {.kind = VKM_PY_FLOAT, .u.f = __builtin_inf()}},
    {"float('-inf')", {.kind = VKM_PY_FLOAT, .u.f = -__builtin_inf()}},
    {"float('nan')", {.kind = VKM_PY_FLOAT, .u.f = __builtin_nan("")}},
};

static bool name(parser *p, vkm_py *out) {
    char text[32];
    size_t n = 0;
    int open = 0;
    for (; p->at < p->end && n + 1 < sizeof text; p->at++) {
        char c = *p->at;
        if (open && c == ' ') continue;
        if (!is_word(c) && c != '.' && c != '(' && !open) break;
        text[n++] = c == '"' ? '\'' : c;
        if (c == '(') open = 1;
        if (c == ')') {
            p->at++;
            break;
        }
    }
    text[n] = 0;
    for (size_t i = 0; i < VKM_COUNTOF(names); i++) {
        if (strcmp(text, names[i].name) != 0) continue;
        *out = names[i].value;
        return true;
    }
    if (open) return fail(p, "call on the right side");
    return fail(p, "name on the right side");
}

static bool hashable(const vkm_py *v) {
    if (v->kind == VKM_PY_LIST || v->kind == VKM_PY_DICT) return false;
    for (size_t i = 0; v->kind == VKM_PY_TUPLE && i < v->n; i++)
        if (!hashable(&v->u.items[i])) return false;
    return true;
}

typedef struct {
    vkm_py *items;
    size_t n, cap;
} item_list;

static bool push(parser *p, item_list *l, vkm_py *v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        vkm_py *more = realloc(l->items, cap * sizeof *more);
        if (!more) {
            vkm_py_clear(v);
            return fail(p, no_memory);
        }
        l->items = more;
        l->cap = cap;
    }
    l->items[l->n++] = *v;
    return true;
}

/* A key that comes again keeps its place and takes the later value. */
static bool push_pair(parser *p, item_list *l, vkm_py *key, int depth) {
    vkm_py v = {0};
    if (!hashable(key)) fail(p, "dict with an unhashable key");
    if (p->form || !value(p, &v, depth)) {
        vkm_py_clear(key);
        return false;
    }
    for (size_t i = 0; i < l->n; i += 2) {
        if (!vkm_py_equal(&l->items[i], key)) continue;
        vkm_py_clear(key);
        vkm_py_clear(&l->items[i + 1]);
        l->items[i + 1] = v;
        return true;
    }
    if (push(p, l, key) && push(p, l, &v)) return true;
    if (l->n % 2)
        vkm_py_clear(&l->items[--l->n]);
    else
        vkm_py_clear(&v);
    return false;
}

static bool container(parser *p, char close, vkm_py *out, int depth) {
    item_list l = {0};
    bool comma = false, dict = close == '}';
    while (!p->form && !eat(p, close)) {
        vkm_py v = {0};
        if (!value(p, &v, depth + 1)) break;
        if (dict && !eat(p, ':')) {
            vkm_py_clear(&v);
            fail(p, "set");
        } else if (dict ? push_pair(p, &l, &v, depth + 1) : push(p, &l, &v)) {
            comma = eat(p, ',');
            if (comma) continue;
            if (!eat(p, close))
                fail(p, p->at < p->end ? "expression on the right side" : unreadable);
            break;
        }
    }
    if (p->form) {
        while (l.n) vkm_py_clear(&l.items[--l.n]);
        free(l.items);
        return false;
    }
    if (close == ')' && l.n == 1 && !comma) { /* parentheses around one value */
        *out = l.items[0];
        free(l.items);
        return true;
    }
    vkm_py_kind kind = dict ? VKM_PY_DICT : close == ']' ? VKM_PY_LIST : VKM_PY_TUPLE;
    *out = (vkm_py){.kind = kind, .n = dict ? l.n / 2 : l.n, .u.items = l.items};
    return true;
}

static bool signed_value(parser *p, bool minus, vkm_py *out, int depth) {
    if (!value(p, out, depth + 1)) return false;
    if (out->kind == VKM_PY_INT) {
        if (minus && out->n) out->negative = !out->negative;
    } else if (out->kind == VKM_PY_FLOAT) {
        if (minus) out->u.f = -out->u.f;
    } else {
        vkm_py_clear(out);
        return fail(p, "sign before what is not a number");
    }
    return true;
}

static bool value(parser *p, vkm_py *out, int depth) {
    if (depth > VKM_PY_MAX_DEPTH) return fail(p, "right side nested too deeply");
    space(p);
    if (p->at == p->end) return fail(p, unreadable);
    char c = *p->at, next = p->at + 1 < p->end ? p->at[1] : 0;
    bool quote_next = next == '\'' || next == '"';
    if (c == '-' || c == '+') return p->at++, signed_value(p, c == '-', out, depth);
    if (c == '[') return p->at++, container(p, ']', out, depth);
    if (c == '(') return p->at++, container(p, ')', out, depth);
    if (c == '{') return p->at++, container(p, '}', out, depth);
    if (is_digit(c) || c == '.') return number(p, out);
    if (c == '\'' || c == '"' || (quote_next && strchr("rRuU", c))) return string(p, out);
    if (quote_next && strchr("bB", c)) return fail(p, "bytes");
    if (quote_next && strchr("fF", c)) return fail(p, "formatted string");
    if (is_word(c)) return name(p, out);
    return fail(p, unreadable);
}

const char *vkm_py_parse(const char *text, size_t n, vkm_py *out) {
    parser p = {text, text + n, NULL};
    memset(out, 0, sizeof *out);
    if (value(&p, out, 0)) {
        space(&p);
        if (p.at != p.end) fail(&p, "expression on the right side");
    }
    if (p.form) vkm_py_clear(out);
    return p.form;
}
