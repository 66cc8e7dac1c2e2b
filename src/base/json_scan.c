/* Owns the grammar of JSON texts. */
#include "base/json_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef vkm_json_scan scan;

static bool bad(scan *s, const char *what) {
    if (!s->wrong) s->wrong = what;
    return false;
}

static void skip_space(scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r'))
        s->at++;
}

static int hex4(const char *p, const char *end) {
    int v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        int c = p[i] | 32, digit = p[i] >= '0' && p[i] <= '9' ? p[i] - '0' : c - 'a' + 10;
        if (digit < 0 || digit > 15 || (digit > 9 && (c < 'a' || c > 'f'))) return -1;
        v = v * 16 + digit;
    }
    return v;
}

static bool scan_escape(scan *s) {
    const char *e = s->at + 1;
    if (e >= s->end) return bad(s, "the text ends inside a string");
    if (*e != 'u') {
        if (!strchr("\"\\/bfnrt", *e) || !*e) return bad(s, "unknown escape in a string");
        s->at += 2;
        return true;
    }
    int u = hex4(e + 1, s->end);
    if (u < 0) return bad(s, "\\u needs four hexadecimal digits");
    if (!u) return bad(s, "a NUL (\\u0000) in a string is not supported; leave it out");
    if (u >= 0xDC00 && u <= 0xDFFF) return bad(s, "a lone surrogate (\\uDC00 to \\uDFFF)");
    s->at += 6;
    if (u < 0xD800 || u > 0xDBFF) return true;
    int low =
        s->end - s->at >= 6 && s->at[0] == '\\' && s->at[1] == 'u' ? hex4(s->at + 2, s->end) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return bad(s, "a lone surrogate (\\uD800 to \\uDBFF)");
    s->at += 6;
    return true;
}

static bool scan_string(scan *s) {
    s->at++;
    while (s->at < s->end) {
        unsigned char c = (unsigned char)*s->at;
        if (c == '"') {
            s->at++;
            return true;
        }
        if (c == '\\') {
            if (!scan_escape(s)) return false;
            continue;
        }
        if (c < 0x20)
            return bad(s, "a control character in a string (is the closing quote missing?)");
        size_t len = vkm_utf8_len(s->at, (size_t)(s->end - s->at));
        if (!len) return bad(s, "invalid UTF-8; save the file as UTF-8");
        s->at += len;
    }
    return bad(s, "the text ends inside a string");
}

static bool digits(scan *s) {
    const char *from = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') s->at++;
    return s->at > from;
}

static bool scan_number(scan *s) {
    const char *from = s->at;
    bool has_exponent = false;
    if (*s->at == '-') s->at++;
    if (s->at < s->end && *s->at == '0') {
        s->at++;
        if (s->at < s->end && *s->at >= '0' && *s->at <= '9')
            return bad(s, "a number with a leading zero");
    } else if (!digits(s)) {
        return bad(s, "not a number");
    }
    if (s->at < s->end && *s->at == '.') {
        s->at++;
        if (!digits(s)) return bad(s, "a number needs digits after its point");
    }
    if (s->at < s->end && (*s->at | 32) == 'e') {
        has_exponent = true;
        s->at++;
        if (s->at < s->end && (*s->at == '+' || *s->at == '-')) s->at++;
        if (!digits(s)) return bad(s, "a number needs digits in its exponent");
    }
    const char *to = s->at;
    if (to - from > VKM_JSON_NUMBER_MAX) {
        s->at = from;
        return bad(s, "a number of more than 63 characters; shorten it");
    }
    if (has_exponent && !isfinite(strtod(from, NULL))) {
        s->at = from;
        return bad(s, "a number too large for a double");
    }
    return true;
}

static bool scan_word(scan *s) {
    static const struct {
        const char *word;
        bool is_nan;
    } words[] = {{"true", false}, {"false", false},   {"null", false},
                 {"NaN", true},   {"Infinity", true}, {"-Infinity", true}};
    for (size_t i = 0; i < VKM_COUNTOF(words); i++) {
        size_t n = strlen(words[i].word);
        if ((size_t)(s->end - s->at) < n || memcmp(s->at, words[i].word, n) != 0) continue;
        if (words[i].is_nan && !s->nan_as_null)
            return bad(s, "NaN and Infinity are not JSON; write null or a number");
        if (words[i].is_nan && s->patched) {
            vkm_strbuf_add(s->patched, s->copied, (size_t)(s->at - s->copied));
            vkm_strbuf_puts(s->patched, "null");
            s->copied = s->at + n;
        }
        s->at += n;
        return true;
    }
    return bad(s, "expected a value");
}

static bool scan_group(scan *s, char close) {
    if (++s->depth > s->max_depth) return bad(s, "nested too deeply");
    s->at++;
    skip_space(s);
    if (s->at < s->end && *s->at == close) goto done;
    for (;;) {
        if (close == '}') {
            if (s->at >= s->end || *s->at != '"') return bad(s, "expected a key in double quotes");
            if (!scan_string(s)) return false;
            skip_space(s);
            if (s->at >= s->end || *s->at != ':') return bad(s, "expected ':' after a key");
            s->at++;
        }
        if (!vkm_json_scan_value(s)) return false;
        if (s->at < s->end && *s->at == close) break;
        if (s->at >= s->end) return bad(s, "the text ends inside an object or array");
        if (*s->at != ',')
            return bad(s, close == '}' ? "expected ',' or '}'" : "expected ',' or ']'");
        s->at++;
        skip_space(s);
    }
done:
    s->at++;
    s->depth--;
    return true;
}

bool vkm_json_scan_value(scan *s) {
    skip_space(s);
    if (s->at >= s->end) return bad(s, "the text ends where a value is expected");
    bool wanted = ++s->n_values == s->want;
    if (wanted) s->found = s->at;
    char c = *s->at;
    bool ok = c == '{'   ? scan_group(s, '}')
              : c == '[' ? scan_group(s, ']')
              : c == '"' ? scan_string(s)
              : (c >= '0' && c <= '9') || (c == '-' && (s->end - s->at < 2 || s->at[1] != 'I'))
                  ? scan_number(s)
                  : scan_word(s);
    if (wanted) s->found_end = s->at;
    if (ok) skip_space(s);
    return ok;
}

void vkm_text_place(const char *text, const char *at, size_t *line, size_t *column) {
    *line = 1;
    const char *start = text;
    for (const char *p = text; p < at; p++)
        if (*p == '\n') ++*line, start = p + 1;
    *column = (size_t)(at - start) + 1;
}
