/* Owns the reading of logs. */
#include "report/lines.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* JSON text as the strict reader takes it: texts of models may hold NUL characters. */
static void replace_nul_escapes(char *s) {
    static const char instead[] = {'f', 'f', 'f', 'd'};
    for (; (s = strchr(s, '\\')) && s[1]; s += 2)
        if (!strncmp(s, "\\u0000", 6)) memcpy(s + 2, instead, sizeof instead);
}

vkm_status vkm_lines_each(const char *dir, const char *log, vkm_strbuf *notes,
                          vkm_status (*see)(vkm_json *line, void *ctx, vkm_err *err), void *ctx,
                          vkm_err *err) {
    char path[VKM_PATH_MAX], *line = NULL;
    size_t cap = 0, number = 0, refused = 0;
    vkm_err first = {0};
    if (vkm_path_join(path, dir, log, err)) return err->status;
    FILE *f = fopen(path, "r");
    for (ssize_t n; f && !err->status && (n = getline(&line, &cap, f)) > 0; number++) {
        vkm_json *doc = NULL;
        vkm_err bad = {0};
        replace_nul_escapes(line);
        if (vkm_json_parse_line(line, (size_t)n, log, number + 1, NULL, &doc, &bad) ||
            vkm_json_typeof(vkm_json_root(doc)) != VKM_JSON_OBJECT) {
            if (!refused++) first = bad;
            vkm_json_free(doc);
            continue;
        }
        (void)!see(doc, ctx, err);
    }
    free(line);
    if (f) (void)fclose(f);
    if (refused && notes) {
        vkm_jw w = vkm_jw_begin(notes, 0);
        vkm_strbuf note = {0};
        w.comma = notes->n != 0;
        vkm_strbuf_printf(&note, "%s: %zu lines are left out, the first because: %s", log, refused,
                          first.status ? first.msg : "it is no object");
        vkm_jw_str(&w, NULL, vkm_strbuf_str(&note));
        notes->failed |= note.failed;
        vkm_strbuf_free(&note);
    }
    return err->status;
}

double vkm_number(vkm_jv value) {
    double v = NAN;
    vkm_err ignored = {0};
    if (value.v && vkm_json_double(value, -INFINITY, INFINITY, &v, &ignored)) return NAN;
    return v;
}
double vkm_number_of(vkm_jv object, const char *key) {
    return vkm_number(vkm_json_find(object, key));
}
int vkm_flag_of(vkm_jv object, const char *key) {
    bool v = false;
    vkm_err ignored = {0};
    vkm_jv m = vkm_json_find(object, key);
    return m.v && !vkm_json_bool(m, &v, &ignored) && v;
}
const char *vkm_text_of(vkm_jv object, const char *key) {
    const char *v = NULL;
    vkm_err ignored = {0};
    vkm_jv m = vkm_json_find(object, key);
    return m.v && !vkm_json_str(m, &v, &ignored) ? v : NULL;
}
uint32_t vkm_count_of(vkm_jv object, const char *key) {
    double v = vkm_number_of(object, key);
    return v >= 0 && v <= UINT32_MAX ? (uint32_t)v : 0;
}
