/* Owns the extraction of code from a completion. */
#include "env/grade.h"

#include <string.h>

static const char *find_fence(const char *s, const char *end) {
    for (; end - s >= 3; s++)
        if (!memcmp(s, "```", 3)) return s;
    return NULL;
}

static bool is_code_label(const char *s, const char *end) {
    static const char python[] = "python";
    while (end > s && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) end--;
    size_t n = (size_t)(end - s);
    return n == 0 || (n == sizeof python - 1 && !memcmp(s, python, n));
}

bool vkm_code_extract(const char *text, size_t n, vkm_strbuf *code) {
    const char *s = text, *end = text + n;
    bool found = false;
    while ((s = find_fence(s, end))) {
        const char *label = s + 3, *close = find_fence(label, end);
        if (!close) break;
        const char *line_end = memchr(label, '\n', (size_t)(close - label));
        s = close + 3;
        if (!line_end || !is_code_label(label, line_end)) continue;
        if (found) vkm_strbuf_puts(code, "\n\n");
        vkm_strbuf_add(code, line_end + 1, (size_t)(close - line_end - 1));
        found = true;
    }
    return found;
}
