/* Owns the parsing of what users type; knows no option by name. */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folded(char c) {
    return (char)(c == '-' ? '_' : c);
}

int vkm_text_same(const char *a, const char *b) {
    while (*a && folded(*a) == folded(*b)) a++, b++;
    return *a == *b;
}

vkm_status vkm_text_int(const char *name, const char *text, int64_t min, int64_t max, int64_t *out,
                        vkm_err *err) {
    char *end;
    errno = 0;
    long long x = strtoll(text, &end, 10);
    if (end == text || *end)
        return vkm_fail(err, VKM_USAGE, "%s: '%s' is not an integer", name, text);
    if (errno || x < min || x > max)
        return vkm_fail(err, VKM_USAGE, "%s: %s is out of range, it must be from %lld to %lld",
                        name, text, (long long)min, (long long)max);
    *out = x;
    return VKM_OK;
}

vkm_status vkm_text_float(const char *name, const char *text, double min, double max, double *out,
                          vkm_err *err) {
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end)
        return vkm_fail(err, VKM_USAGE, "%s: '%s' is not a number", name, text);
    int nan_is_valid = isnan(min);
    double least = nan_is_valid ? 0 : min;
    if (!(x >= least && x <= max) && !(nan_is_valid && isnan(x)))
        return vkm_fail(err, VKM_USAGE, "%s: %s is out of range, it must be %sfrom %g to %g", name,
                        text, nan_is_valid ? "nan or " : "", least, max);
    *out = x;
    return VKM_OK;
}

vkm_status vkm_text_choice(const char *name, const char *text, const char *choices, int *out,
                           vkm_err *err) {
    size_t n = strlen(text);
    const char *c = choices;
    for (int i = 0; c; i++) {
        size_t len = strcspn(c, "|"), same = 0;
        while (same < len && same < n && folded(c[same]) == folded(text[same])) same++;
        if (len == n && same == n) {
            *out = i;
            return VKM_OK;
        }
        c = c[len] ? c + len + 1 : NULL;
    }
    return vkm_fail(err, VKM_USAGE, "%s: unknown value '%s', valid are %s", name, text, choices);
}

const char *vkm_text_choice_name(const char *choices, int index, char out[VKM_CHOICE_BYTES]) {
    for (; index > 0; index--) choices = strchr(choices, '|') + 1;
    snprintf(out, VKM_CHOICE_BYTES, "%.*s", (int)strcspn(choices, "|"), choices);
    return out;
}

#define LONGEST 63

/* Edit distance with swaps of neighbours counted once. */
static size_t distance(const char *a, const char *b) {
    size_t na = strnlen(a, LONGEST), nb = strnlen(b, LONGEST);
    size_t d[3][LONGEST + 1];
    for (size_t j = 0; j <= nb; j++) d[0][j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t *now = d[i % 3], *last = d[(i + 2) % 3], *before = d[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = last[j - 1] + (folded(a[i - 1]) != folded(b[j - 1]));
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return d[na % 3][nb];
}

const char *vkm_text_hint(const char *word, const char *prefix, const char *const *names, size_t n,
                          char out[VKM_CHOICE_BYTES * 2]) {
    const char *best = NULL;
    size_t least = 0;
    for (size_t i = 0; i < n; i++) {
        size_t d = names[i] ? distance(word, names[i]) : 0;
        if (!names[i] || 3 * d > strlen(names[i]) + 2 || (best && d >= least)) continue;
        best = names[i];
        least = d;
    }
    out[0] = 0;
    if (best) snprintf(out, VKM_CHOICE_BYTES * 2, " (did you mean '%s%s'?)", prefix, best);
    return out;
}
