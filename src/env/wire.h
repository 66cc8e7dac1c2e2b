/* The JSON Lines contract of grading, docs/own-environment.md: a request asks for the grade of one
 * response, an answer gives it. `vkmoe grade` reads requests and writes answers; for a reward
 * program of the user's own the same is written and read. */
#ifndef VKM_WIRE_H
#define VKM_WIRE_H

#include "base/json.h"
#include "env/grade.h"

enum { VKM_WIRE_MAX_ID = 1024 }; /* bytes of a request's id */

typedef struct vkm_request {
    char *id; /* as JSON: a string or an integer */
    const char *response;
    const vkm_mode *mode; /* a row of vkm_modes, or with a marker a novel one */
    const vkm_problem *problem;
    vkm_problem own; /* the problem that came with the request */
    vkm_json *doc;   /* holds the texts */
} vkm_request;

/* Reads a request. Problems named by id are looked up in `data` (NULL: none), a request without a
 * mode takes `mode` (NULL: an error). Takes doc over, also on failure. The request must not be
 * moved when it is cleared while others hold its problem. */
vkm_status vkm_request_read(vkm_json *doc, const vkm_problems *data, const vkm_mode *mode,
                            vkm_request *out, vkm_err *err) VKM_MUST_CHECK;
void vkm_request_clear(vkm_request *q);

/* Appends a request with the whole problem as one line. Bytes of the response that are no text
 * (invalid UTF-8, NUL) become U+FFFD. */
void vkm_request_write(uint64_t id, const vkm_problem *problem, const vkm_mode *mode,
                       const char *text, size_t n, vkm_strbuf *out);

/* Appends an answer as one line; id is JSON, sandbox the stamp of a grade without walls or NULL.
 * The output is written where the grade holds one. */
void vkm_answer_write(const char *id, const vkm_grade *g, const char *sandbox, vkm_strbuf *out);

/* Reads an answer to the request `id`. The reward is finite and at most VKM_ANSWER_MAX_REWARD in
 * size; flags left out are false, `passed` left out is gt_correct or exploited. An answer with an
 * `error` is an infrastructure error. */
#define VKM_ANSWER_MAX_REWARD 1e6
vkm_status vkm_answer_read(const vkm_json *doc, uint64_t id, vkm_grade *out,
                           vkm_err *err) VKM_MUST_CHECK;

#endif
