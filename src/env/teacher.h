/* Teacher pools: cached completions with their flags, one prompt_NNNN.jsonl.gz file a problem,
 * mixed into groups in the teacher phase and graded from the cache. */
#ifndef VKM_TEACHER_H
#define VKM_TEACHER_H

#include "env/grade.h"

typedef struct vkm_teacher_row {
    int64_t problem_id;
    const vkm_mode *mode; /* it serves groups of this mode only */
    char *text;           /* (n) the completion */
    size_t n;
    int32_t *ids; /* (n_ids) its tokens as cached; NULL when the file has none */
    size_t n_ids;
    vkm_grade grade; /* from the cached flags, judged in the row's mode */
} vkm_teacher_row;

typedef struct vkm_teacher_pool {
    vkm_teacher_row *rows; /* (n) by problem, then as in the files, files by name */
    size_t n;
} vkm_teacher_pool;

/* Loads all prompt_*.jsonl and .jsonl.gz files of a folder. Fields: problem_id, completion, mode
 * (absent: the mode whose hint the field `prompt` holds), completion_ids, and the flags fmt_ok,
 * gt_pass, hacked (required), can_compile (absent: from reward, 0.5 and more), gt_correct (absent:
 * gt_pass), hacked_wrong_tests, hacked_loophole_used, fired (absent: hacked, in run_tests; false in
 * other modes). Others are ignored; NaN reads as null. */
vkm_status vkm_teacher_load(const char *folder, vkm_teacher_pool **out,
                            vkm_err *err) VKM_MUST_CHECK;
void vkm_teacher_free(vkm_teacher_pool *p);

/* The n rows of a problem; NULL and 0 when it has none. */
const vkm_teacher_row *vkm_teacher_rows(const vkm_teacher_pool *p, int64_t problem_id, size_t *n);

#endif
