/* Remembered verdicts: what was graded before is not run again, in this process or, with a file, in
 * any that shares it (the runs of a sweep). A table with one place a key: a newer verdict takes the
 * place of an older one. */
#ifndef VKM_VERDICTS_H
#define VKM_VERDICTS_H

#include "base/hash.h"
#include "env/grade.h"

typedef struct vkm_verdicts vkm_verdicts;

/* 2^log2 places. path: NULL or "" for memory of this process alone, else a file that is made when
 * it is not there; one of another kind or size is an error. */
vkm_status vkm_verdicts_open(const char *path, int log2, vkm_verdicts **out,
                             vkm_err *err) VKM_MUST_CHECK;
void vkm_verdicts_close(vkm_verdicts *v); /* accepts NULL */

/* key: of all that a grade depends on. A place that another process is writing reads as absent. */
bool vkm_verdicts_get(const vkm_verdicts *v, vkm_hash128 key, vkm_grade *out);
/* A verdict that the wall clock made, or none, is not kept: another run might end in time. */
void vkm_verdicts_put(vkm_verdicts *v, vkm_hash128 key, const vkm_grade *grade);

#endif
