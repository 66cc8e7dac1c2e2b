/* Owns the parsing of what users type; knows no option by name. */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"

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
    if (!(nan_is_valid && (isnan(x) || x <= max)) && !(x >= min && x <= max))
        return vkm_fail(err, VKM_USAGE, "%s: %s is out of range, it must be from %g to %g", name,
                        text, min, max);
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

const char *vkm_text_hint(const char *word, const char *prefix, const char *const *names, size_t n,
                          char out[VKM_CHOICE_BYTES * 2]) {
    const char *name = vkm_nearest(word, names, n);
    out[0] = 0;
    if (name) snprintf(out, VKM_CHOICE_BYTES * 2, " (did you mean '%s%s'?)", prefix, name);
    return out;
}
