/* Assert lines: `assert CALL == LITERAL`, split outside Python into the call that a box evaluates
 * and the value that never enters one. Called by problems.c. */
#ifndef VKM_ASSERT_H
#define VKM_ASSERT_H

#include "env/value.h"

typedef struct vkm_assert {
    char *line;      /* the whole line */
    char *call;      /* the left side */
    vkm_py expected; /* the right side */
} vkm_assert;

/* Splits text[0 .. n). Returns NULL, or the name of the form that is not handled (static text);
 * *out is then empty. An assert is never taken for another one: what is not understood is refused.
 */
const char *vkm_assert_parse(const char *text, size_t n, vkm_assert *out) VKM_MUST_CHECK;
void vkm_assert_clear(vkm_assert *a);

#endif
