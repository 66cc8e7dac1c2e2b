/* `vkmoe report`: runs' folders in, one HTML file out that needs no network and no server. */
#ifndef VKM_REPORT_H
#define VKM_REPORT_H

#include "base/json.h"

/* Writes the page about n runs' folders. A folder without config.json fails; other parts that are
 * missing or cannot be read become sentences of the page. */
vkm_status vkm_report_write(const char *const *runs, size_t n, const char *output,
                            vkm_err *err) VKM_MUST_CHECK;

/* Writes one run as an object: what the page's script reads (page.js). */
vkm_status vkm_report_run(const char *dir, vkm_jw *w, vkm_err *err) VKM_MUST_CHECK;

#endif
