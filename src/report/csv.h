/* metrics.csv of a run's folder: a header and one row a step, by the names of steps.jsonl. */
#ifndef VKM_CSV_H
#define VKM_CSV_H

#include "base/status.h"
#include "base/strbuf.h"

/* Cuts the file behind the row of resume_step; nothing for a fresh run (resume_step < 0) or without
 * a file. */
vkm_status vkm_csv_open(const char *dir, int64_t resume_step, vkm_err *err) VKM_MUST_CHECK;

/* A row is built cell by cell, its header beside it. */
typedef struct vkm_csv_row {
    vkm_strbuf head, row;
} vkm_csv_row;                                                       /* all zero to begin with */
void vkm_csv_number(vkm_csv_row *r, const char *name, double value); /* not finite: empty */
void vkm_csv_text(vkm_csv_row *r, const char *name, const char *text);
/* Appends the row (and the header to a new file) and frees it, also on failure. A file whose header
 * differs, as another version may have left it, is moved to metrics.csv.old. */
vkm_status vkm_csv_append(vkm_csv_row *r, const char *dir, vkm_err *err) VKM_MUST_CHECK;

#endif
