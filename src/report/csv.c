/* Owns metrics.csv. */
#include "report/csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#define CSV_FILE "metrics.csv"

vkm_status vkm_csv_open(const char *dir, int64_t resume_step, vkm_err *err) {
    char path[VKM_PATH_MAX];
    if (vkm_path_join(path, dir, CSV_FILE, err)) return err->status;
    FILE *f = resume_step < 0 ? NULL : fopen(path, "r");
    if (!f) return VKM_OK;
    char *line = NULL;
    size_t cap = 0;
    off_t keep = 0;
    ssize_t n;
    unsigned long long step;
    while ((n = getline(&line, &cap, f)) > 0 && line[n - 1] == '\n' &&
           (keep == 0 ||
            (sscanf(line, "%llu,", &step) == 1 && step <= (unsigned long long)resume_step)))
        keep += n;
    free(line);
    (void)fclose(f);
    if (truncate(path, keep))
        return vkm_fail(err, VKM_FAILED, "%s: cannot be cut back to step %lld: %s", path,
                        (long long)resume_step, strerror(errno));
    return VKM_OK;
}

/* RFC 4180: quoted where it must be. */
static void put_cell(vkm_strbuf *b, const char *text) {
    if (b->n) vkm_strbuf_putc(b, ',');
    if (!strpbrk(text, ",\"\r\n")) {
        vkm_strbuf_puts(b, text);
        return;
    }
    vkm_strbuf_putc(b, '"');
    for (; *text; text++) {
        if (*text == '"') vkm_strbuf_putc(b, '"');
        vkm_strbuf_putc(b, *text);
    }
    vkm_strbuf_putc(b, '"');
}

void vkm_csv_text(vkm_csv_row *r, const char *name, const char *text) {
    put_cell(&r->head, name);
    put_cell(&r->row, text);
}

void vkm_csv_number(vkm_csv_row *r, const char *name, double value) {
    vkm_strbuf digits = {0};
    vkm_jw w = vkm_jw_begin(&digits, 0);
    if (isfinite(value) && value == nearbyint(value) && fabs(value) < 0x1p53)
        vkm_jw_i64(&w, NULL, (int64_t)value);
    else if (isfinite(value))
        vkm_jw_double(&w, NULL, value);
    r->row.failed |= digits.failed;
    vkm_csv_text(r, name, vkm_strbuf_str(&digits));
    vkm_strbuf_free(&digits);
}

/* Whether the file has this header; one with another is moved away. */
static vkm_status find_header(const char *path, const vkm_strbuf *head, int *found, vkm_err *err) {
    char old[VKM_PATH_MAX], *line = NULL;
    size_t cap = 0;
    FILE *f = fopen(path, "r");
    *found = 0;
    if (!f) return VKM_OK;
    ssize_t n = getline(&line, &cap, f);
    *found = n > 0 && (size_t)n == head->n && !memcmp(line, head->data, head->n);
    free(line);
    (void)fclose(f);
    if (*found || n <= 0) return VKM_OK;
    if (snprintf(old, sizeof old, "%s.old", path) >= (int)sizeof old || rename(path, old))
        return vkm_fail(err, VKM_FAILED, "%s: has other columns and cannot be moved away: %s", path,
                        strerror(errno));
    vkm_warn("%s: has other columns than this version writes; it is now %s", path, old);
    return VKM_OK;
}

vkm_status vkm_csv_append(vkm_csv_row *r, const char *dir, vkm_err *err) {
    char path[VKM_PATH_MAX];
    int found;
    vkm_strbuf_putc(&r->head, '\n');
    vkm_strbuf_putc(&r->row, '\n');
    if (vkm_strbuf_check(&r->head, CSV_FILE, err) || vkm_strbuf_check(&r->row, CSV_FILE, err) ||
        vkm_path_join(path, dir, CSV_FILE, err) || find_header(path, &r->head, &found, err))
        goto done;
    if (!found) vkm_strbuf_add(&r->head, r->row.data, r->row.n);
    const vkm_strbuf *b = found ? &r->row : &r->head;
    if (!vkm_strbuf_check(b, CSV_FILE, err)) (void)!vkm_file_append(path, b->data, b->n, err);
done:
    vkm_strbuf_free(&r->head);
    vkm_strbuf_free(&r->row);
    return err->status;
}
