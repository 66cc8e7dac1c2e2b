/* Which problems a step takes, which it shows hint-free, and how a set is split. All of it is a
 * function of a seed and of names (step, id), so a resumed run draws the same. */
#ifndef VKM_SELECT_H
#define VKM_SELECT_H

#include "env/problems.h"

/* The n problems of a step among n_problems: out (n) gets distinct indices. Problems are shuffled
 * anew for each pass over them; a pass has n_problems / n whole steps and leaves the rest out. */
vkm_status vkm_select_step(uint64_t seed, uint32_t step, size_t n_problems, size_t n, size_t *out,
                           vkm_err *err) VKM_MUST_CHECK;

/* Whether a step shows the problem hint-free and grades it as gt_only: true with probability frac.
 */
bool vkm_select_unhackable(uint64_t seed, uint32_t step, int64_t id, float frac);

/* A seeded shuffle of a set by id, whatever the file's order: out (p->n) gets all indices. Splits
 * are runs of it: disjoint, and the same in every run with the seed. */
vkm_status vkm_select_shuffle(uint64_t seed, const vkm_problems *p, size_t *out,
                              vkm_err *err) VKM_MUST_CHECK;

/* Fails when a problem of b is in a too: the same id, or the same set-up, asserts and solution. */
vkm_status vkm_select_disjoint(const vkm_problems *a, const vkm_problems *b,
                               vkm_err *err) VKM_MUST_CHECK;

/* A file {"id": "mode", ...} that gives problems their modes. */
typedef struct vkm_partition {
    struct vkm_partition_row {
        int64_t id;
        const vkm_mode *mode;
    } * rows; /* (n) ascending by id */
    size_t n;
} vkm_partition;
vkm_status vkm_partition_load(const char *path, vkm_partition **out, vkm_err *err) VKM_MUST_CHECK;
/* The same from JSON that is there already. */
vkm_status vkm_partition_read(vkm_jv root, vkm_partition **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_partition_free(vkm_partition *p);
const vkm_mode *vkm_partition_mode(const vkm_partition *p, int64_t id); /* NULL: not in it */

#endif
