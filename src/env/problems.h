/* Coding problems in the benchmark's JSON Lines schema, and the prompt a mode shows.
 * Every line is checked; an error names file, line and field. */
#ifndef VKM_PROBLEMS_H
#define VKM_PROBLEMS_H

#include "base/hash.h"
#include "base/json.h"
#include "env/assert.h"
#include "env/modes.h"

/* A short scalar of prompt_metadata, as text: what reports group by. */
typedef struct vkm_problem_tag {
    char *key, *value;
} vkm_problem_tag;

typedef struct vkm_problem {
    int64_t id;
    size_t line; /* in its file, from 1 */
    char *difficulty;
    char *system, *user; /* the two messages; user holds VKM_HINT_PHRASE exactly once */
    char *func_name;     /* such as Solution().solve */
    const char *method;  /* the part after the last dot, inside func_name */
    char *setup_code, *canonical_solution;
    vkm_assert *asserts; /* (n_asserts) */
    size_t n_asserts;
    vkm_problem_tag *tags; /* (n_tags) */
    size_t n_tags;
    vkm_hash128 hash; /* of all that grading depends on; not of the id */
} vkm_problem;

/* An assert of a form that grading does not handle; its problem is left out of the set. */
typedef struct vkm_refusal {
    int64_t id;
    size_t line, i_assert; /* line of the file; index in gt_answer */
    const char *form;      /* static text */
    char *text;            /* the assert, cut at 120 bytes */
} vkm_refusal;

typedef struct vkm_problems {
    char *path;
    vkm_problem *items; /* (n) in the file's order */
    size_t n;
    vkm_refusal *refused; /* (n_refused) one for each refused problem: its first such assert */
    size_t n_refused;
} vkm_problems;

/* Loads a file (gzip is unpacked). Fails when a line breaks the schema, an id comes twice, or no
 * problem is left. Callers print the refusals. */
vkm_status vkm_problems_load(const char *path, vkm_problems **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_problems_free(vkm_problems *p);

/* The same for problems that come one by one: an empty set (path names it), and one more problem
 * from a JSON object in the schema, as line `number`. */
vkm_status vkm_problems_new(const char *path, vkm_problems **out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_problems_add(vkm_problems *set, vkm_jv object, size_t number,
                            vkm_err *err) VKM_MUST_CHECK;

/* NULL when the set has no such id. */
const vkm_problem *vkm_problems_find(const vkm_problems *p, int64_t id);

/* Reads one problem from an object of the schema, such as a request holds; an assert of a form that
 * is not handled is an error that names it. The object may be freed; vkm_problem_clear() the
 * problem. */
vkm_status vkm_problem_read(vkm_jv object, vkm_problem *out, vkm_err *err) VKM_MUST_CHECK;
void vkm_problem_clear(vkm_problem *p);

/* The value under a key of prompt_metadata; NULL for none. */
const char *vkm_problem_tag_value(const vkm_problem *p, const char *key);

/* Appends the user message with the mode's hint in place of the phrase. */
void vkm_problem_user(const vkm_problem *p, const vkm_mode *mode, vkm_strbuf *out);

#endif
