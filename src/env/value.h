/* Python values outside Python: parsed from literals (expected values) and decoded from what a box
 * sends (observed values), compared as Python's == compares them. */
#ifndef VKM_VALUE_H
#define VKM_VALUE_H

#include "base/status.h"
#include "base/strbuf.h"

#include <stdbool.h>

typedef enum {
    VKM_PY_NONE,
    VKM_PY_BOOL,
    VKM_PY_INT,
    VKM_PY_FLOAT,
    VKM_PY_STR,
    VKM_PY_LIST,
    VKM_PY_TUPLE,
    VKM_PY_DICT,
    VKM_PY_CUSTOM, /* not built of the exact types above: equal to nothing */
} vkm_py_kind;

enum { VKM_PY_MAX_DEPTH = 66 };

/* A value. BOOL: negative is unused, n is 0 or 1. INT: n limbs of 32 bits, the lowest first, none
 * leading zero. STR: n bytes of UTF-8, lone surrogates as three bytes each. LIST and TUPLE: n
 * items; DICT: n pairs in items[0 .. 2n), key then value, no key twice. */
typedef struct vkm_py {
    vkm_py_kind kind;
    bool negative;
    size_t n;
    union {
        double f;
        uint32_t *limbs;
        char *s;
        struct vkm_py *items;
    } u;
} vkm_py;

/* Frees what v holds, not v; a zeroed v is fine. */
void vkm_py_clear(vkm_py *v);

/* Parses the literal that fills text[0 .. n): None, True, False, numbers, strings, lists, tuples,
 * dicts, a sign, inf and nan by name, by math and by float('...'). Returns NULL, or the name of the
 * form that is not handled (static text); *out is then zeroed. */
const char *vkm_py_parse(const char *text, size_t n, vkm_py *out) VKM_MUST_CHECK;

/* Decodes one value of the box's encoding that fills bytes[0 .. n) (see zygote.py, encode()); false
 * for anything malformed. Bytes come from hostile code. */
bool vkm_py_decode(const uint8_t *bytes, size_t n, vkm_py *out) VKM_MUST_CHECK;

/* Python's ==: 2 == 2.0, True == 1, [1] != (1,), dicts in any order, nan != nan, ints of any size
 * against floats exactly. */
bool vkm_py_equal(const vkm_py *a, const vkm_py *b);

/* Appends v as Python would write it (ints in hexadecimal): for messages and tests. */
void vkm_py_print(const vkm_py *v, vkm_strbuf *out);

#endif
