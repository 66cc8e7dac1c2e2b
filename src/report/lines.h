/* Logs of a run's folder, read line by line: a folder may be another version's, or cut by a crash,
 * so what is no JSON object is counted, not refused. */
#ifndef VKM_LINES_H
#define VKM_LINES_H

#include "base/json.h"

/* Calls see(line, ctx) for every line of dir/log; the line is see's to free. A missing file is seen
 * no line of; lines that are no JSON objects are counted into a JSON string of `notes` (NULL:
 * nowhere).
 */
vkm_status vkm_lines_each(const char *dir, const char *log, vkm_strbuf *notes,
                          vkm_status (*see)(vkm_json *line, void *ctx, vkm_err *err), void *ctx,
                          vkm_err *err) VKM_MUST_CHECK;

/* Members as C values, NaN, 0 or NULL where they are missing or of another type. */
double vkm_number_of(vkm_jv object, const char *key);
int vkm_flag_of(vkm_jv object, const char *key);
const char *vkm_text_of(vkm_jv object, const char *key);
uint32_t vkm_count_of(vkm_jv object, const char *key);
/* A value itself, likewise. */
double vkm_number(vkm_jv value);

#endif
