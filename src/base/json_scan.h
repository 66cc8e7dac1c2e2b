/* The strict scan of a JSON text: grammar, UTF-8, numbers, depth. It builds nothing; json.c calls
 * it before cJSON sees the text, and again to find the place of a value that is wrong. */
#ifndef VKM_JSON_SCAN_H
#define VKM_JSON_SCAN_H

#include "base/strbuf.h"

enum { VKM_JSON_NUMBER_MAX = 63 }; /* cJSON copies a number into 64 bytes and drops the rest */

typedef struct vkm_json_scan {
    const char *at, *end; /* set by the caller; after a failure at is where it is wrong */
    int depth, max_depth;
    const char *wrong; /* what is wrong at `at` */
    bool nan_as_null;
    vkm_strbuf *patched; /* the text with NaN and infinities as null; copied up to `copied` */
    const char *copied;
    size_t n_values, want; /* looks for the value number `want` (from 1), 0 for none */
    const char *found, *found_end;
} vkm_json_scan;

/* Scans one value and the space around it; false with s->wrong where the text is not JSON. */
bool vkm_json_scan_value(vkm_json_scan *s);

/* 1-based line and column (in bytes) of a place in a text. */
void vkm_text_place(const char *text, const char *at, size_t *line, size_t *column);

#endif
