#include "model/unicode.h"

#include <stdlib.h>
#include <utf8proc.h>

/* Characters that stand alone: marks and parts of compositions that are younger than Unicode 9
 * (found by tools/compare_tokenizer.py; Unicode 16's by its charts), and U+11A7, which utf8proc 2.8
 * takes for a Hangul final and drops. Ascending. */
static const struct {
    uint32_t first, last;
} alone[] = {{0x7fd, 0x7fd},     {0x897, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
             {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},
             {0x1715, 0x1715},   {0x1abf, 0x1aff},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
             {0x10d24, 0x10d27}, {0x10d69, 0x10d6d}, {0x10eab, 0x10eac}, {0x10efa, 0x10eff},
             {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
             {0x11382, 0x11382}, {0x11384, 0x11384}, {0x1138b, 0x1138b}, {0x11390, 0x11390},
             {0x113b8, 0x113b8}, {0x113bb, 0x113bb}, {0x113c2, 0x113c2}, {0x113c5, 0x113c5},
             {0x113c7, 0x113c9}, {0x113ce, 0x113d0}, {0x113e1, 0x113e2}, {0x1145e, 0x1145e},
             {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x1193d, 0x1193e},
             {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
             {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
             {0x11f41, 0x11f42}, {0x1611e, 0x16120}, {0x16129, 0x16129}, {0x1612f, 0x1612f},
             {0x16d63, 0x16d63}, {0x16d67, 0x16d67}, {0x16d69, 0x16d69}, {0x16ff0, 0x16ff1},
             {0x1d2c0, 0x1d2d3}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
             {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1e5ee, 0x1e5ef}};

static bool stands_alone(uint32_t c) {
    size_t lo = 0, hi = VKM_COUNTOF(alone);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (c > alone[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < VKM_COUNTOF(alone) && c >= alone[lo].first;
}

static vkm_status compose(const char *text, size_t n, vkm_strbuf *out, vkm_err *err) {
    utf8proc_uint8_t *nfc = NULL;
    if (!n) return VKM_OK;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &nfc,
                                        UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (len < 0) return vkm_fail(err, VKM_FAILED, "NFC of a text: %s", utf8proc_errmsg(len));
    vkm_strbuf_add(out, nfc, (size_t)len);
    free(nfc);
    return VKM_OK;
}

vkm_status vkm_nfc(const char *text, size_t n, vkm_strbuf *out, vkm_err *err) {
    size_t done = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c = 0;
        size_t len = 1; /* ASCII is none of them */
        if ((unsigned char)text[i] >= 0x80) {
            utf8proc_ssize_t got =
                utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
            if (got <= 0) return vkm_fail(err, VKM_FAILED, "NFC of a text that is not UTF-8");
            len = (size_t)got;
        }
        if (len > 1 && stands_alone((uint32_t)c)) {
            if (compose(text + done, i - done, out, err)) return err->status;
            vkm_strbuf_add(out, text + i, len);
            done = i + len;
        }
        i += len;
    }
    if (compose(text + done, n - done, out, err)) return err->status;
    return vkm_strbuf_check(out, "a text", err);
}

/* ---- characters beside an added token -------------------------------------------------------- */

static bool is_word(utf8proc_int32_t c) {
    static const struct {
        int32_t first, last;
    } more[] = {{0x200C, 0x200D},
                {0x24B6, 0x24E9},
                {0x1F130, 0x1F149},
                {0x1F150, 0x1F169},
                {0x1F170, 0x1F189}};
    for (size_t i = 0; i < VKM_COUNTOF(more); i++)
        if (c >= more[i].first && c <= more[i].last) return true;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

static bool is_space(utf8proc_int32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static utf8proc_int32_t char_at(const char *at, const char *end, size_t *n) {
    utf8proc_int32_t c = -1;
    utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)at, end - at, &c);
    *n = len > 0 ? (size_t)len : 1;
    return c;
}

/* The begin of the character that ends at `at`. */
static const char *char_before(const char *begin, const char *at) {
    do at--;
    while (at > begin && ((unsigned char)*at & 0xC0) == 0x80);
    return at;
}

bool vkm_word_at(const char *at, const char *end) {
    size_t n;
    return at < end && is_word(char_at(at, end, &n));
}

bool vkm_word_before(const char *begin, const char *at) {
    return at > begin && vkm_word_at(char_before(begin, at), at);
}

const char *vkm_spaces_at(const char *at, const char *end) {
    size_t n;
    while (at < end && is_space(char_at(at, end, &n))) at += n;
    return at;
}

const char *vkm_spaces_before(const char *begin, const char *at) {
    while (at > begin) {
        size_t n;
        const char *c = char_before(begin, at);
        if (!is_space(char_at(c, at, &n))) break;
        at = c;
    }
    return at;
}
