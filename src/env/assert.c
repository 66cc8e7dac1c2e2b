/* Owns the splitting of assert lines at their one top-level `==`. */
#include "env/assert.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NESTING = 256 };

static const char unreadable[] = "unreadable assert";

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 128;
}

/* The end of the string that starts at s[i], or n when it has none. */
static size_t string_end(const char *s, size_t i, size_t n) {
    char q = s[i];
    size_t width = n - i >= 3 && s[i + 1] == q && s[i + 2] == q ? 3 : 1;
    for (i += width; i < n; i++) {
        if (s[i] == '\\')
            i++;
        else if (s[i] == '\n' && width == 1)
            return n;
        else if (s[i] == q && (width == 1 || (n - i >= 3 && s[i + 1] == q && s[i + 2] == q)))
            return i + width;
    }
    return n;
}

/* Words and operators that make an expression something else than one comparison. */
static const struct {
    const char *token, *form;
} other_forms[] = {
    {"in", "membership (in)"},
    {"not", "negation (not)"},
    {"and", "boolean expression (and)"},
    {"or", "boolean expression (or)"},
    {"is", "identity (is)"},
    {"if", "conditional expression"},
    {"else", "conditional expression"},
    {"lambda", "lambda"},
    {"await", "await"},
    {"yield", "yield"},
    {"for", "comprehension"},
    {"!=", "comparison (!=)"},
    {"<=", "comparison (<=)"},
    {">=", "comparison (>=)"},
    {"<", "comparison (<)"},
    {">", "comparison (>)"},
    {":=", "assignment expression"},
    {",", "message or tuple"},
    {";", "more than one statement"},
    {"=", unreadable},
};

static const char *form_of(const char *token, size_t n) {
    for (size_t i = 0; i < VKM_COUNTOF(other_forms); i++)
        if (strlen(other_forms[i].token) == n && !memcmp(other_forms[i].token, token, n))
            return other_forms[i].form;
    return NULL;
}

/* Finds the top-level `==` of s[0 .. n). plain: whether all before it is one call such as
 * Solution().solve(...). Returns the form that is not handled, or NULL. */
static const char *find_equals(const char *s, size_t n, size_t *at, bool *plain) {
    char open[MAX_NESTING];
    size_t depth = 0, i = 0;
    const char *form = NULL;
    *at = n;
    *plain = n > 0 && is_word(s[0]) && !(s[0] >= '0' && s[0] <= '9');
    while (i < n) {
        char c = s[i];
        size_t token = 1;
        if (c == '\'' || c == '"') {
            token = string_end(s, i, n) - i;
            if (i + token == n && s[n - 1] != c) return unreadable;
        } else if (c == '(' || c == '[' || c == '{') {
            if (depth == MAX_NESTING) return "nested too deeply";
            open[depth++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (!depth || open[--depth] != c) return unreadable;
        } else if (c == '#' || c == '\\') {
            return c == '#' ? "comment" : unreadable;
        } else if (is_word(c)) {
            while (i + token < n && is_word(s[i + token])) token++;
        } else if (i + 1 < n && s[i + 1] == '=' && strchr("=!<>:", c)) {
            token = 2;
        }
        if (depth == 0 && c == '\n') return unreadable;
        if (depth == 0 && token == 2 && c == '=') {
            if (*at != n) return "chained comparison";
            *at = i;
        } else if (depth == 0 && !form) {
            form = form_of(s + i, token);
        }
        bool call_part = depth || is_word(c) || c == '.' || c == ')' || c == ']';
        if (*at == n && !call_part && !is_space(c)) *plain = false;
        if (*at == n && depth == 0 && is_space(c) && i + 1 < n &&
            (is_word(s[i + 1]) || s[i + 1] == '('))
            *plain = false;
        i += token;
    }
    return depth ? unreadable : form;
}

static void trim(const char **s, size_t *n) {
    while (*n && is_space(**s)) (*s)++, (*n)--;
    while (*n && is_space((*s)[*n - 1])) (*n)--;
}

/* Whether the parenthesis that opens s closes at its last byte. */
static bool wrapped(const char *s, size_t n) {
    size_t depth = 0;
    if (n < 2 || s[0] != '(') return false;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\'' || s[i] == '"') {
            i = string_end(s, i, n) - 1;
            continue;
        }
        depth += s[i] == '(';
        if (s[i] == ')' && --depth == 0) return i + 1 == n;
    }
    return false;
}

static char *copy(const char *s, size_t n) {
    char *c = malloc(n + 1);
    if (!c) return NULL;
    memcpy(c, s, n);
    c[n] = 0;
    return c;
}

const char *vkm_assert_parse(const char *text, size_t n, vkm_assert *out) {
    static const char word[] = "assert";
    const char *s = text;
    size_t left = n, at;
    bool plain;
    memset(out, 0, sizeof *out);
    trim(&s, &left);
    if (left < sizeof word || memcmp(s, word, sizeof word - 1) != 0 || is_word(s[sizeof word - 1]))
        return "not an assert";
    s += sizeof word - 1;
    left -= sizeof word - 1;
    trim(&s, &left);
    while (wrapped(s, left)) {
        s++;
        left -= 2;
        trim(&s, &left);
    }
    const char *form = find_equals(s, left, &at, &plain);
    if (form) return form;
    if (at == left) return "truth of an expression (no ==)";
    const char *rhs = s + at + 2;
    size_t rhs_n = left - at - 2;
    trim(&s, &at);
    if (!plain || !at || s[at - 1] != ')') return "left side that is not one call";
    form = vkm_py_parse(rhs, rhs_n, &out->expected);
    if (form) return form;
    out->line = copy(text, n);
    out->call = copy(s, at);
    if (out->line && out->call) return NULL;
    vkm_assert_clear(out);
    return "no memory for the assert";
}

void vkm_assert_clear(vkm_assert *a) {
    free(a->line);
    free(a->call);
    vkm_py_clear(&a->expected);
    memset(a, 0, sizeof *a);
}
