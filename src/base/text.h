/* Words and numbers as users write them: exact parsing, choices, the nearest valid name. */
#ifndef VKM_TEXT_H
#define VKM_TEXT_H

#include "base/status.h"

/* The whole text as a decimal integer or a float in [min, max]; `name` is what the error calls it.
 * A float row whose minimum is NaN takes "nan", and numbers from 0. */
vkm_status vkm_text_int(const char *name, const char *text, int64_t min, int64_t max, int64_t *out,
                        vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_text_float(const char *name, const char *text, double min, double max, double *out,
                          vkm_err *err) VKM_MUST_CHECK;

/* choices: "a|b|c". Index of a choice; the error lists the valid ones. */
vkm_status vkm_text_choice(const char *name, const char *text, const char *choices, int *out,
                           vkm_err *err) VKM_MUST_CHECK;
#define VKM_CHOICE_BYTES 64
/* The choice at an index, for messages and dumps; returns `out`. */
const char *vkm_text_choice_name(const char *choices, int index, char out[VKM_CHOICE_BYTES]);

/* Equal up to '-' for '_', so that --max-steps and --max_steps are one option. */
int vkm_text_same(const char *a, const char *b);

/* " (did you mean '<prefix>NAME'?)" for the name nearest to a mistyped word among n (NULL entries
 * are skipped), or "" when none is near. */
const char *vkm_text_hint(const char *word, const char *prefix, const char *const *names, size_t n,
                          char out[VKM_CHOICE_BYTES * 2]);

#endif
