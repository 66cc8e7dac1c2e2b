/* Owns the draws over problems. */
#include "env/select.h"

#include "base/philox.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t key;
    int64_t id; /* breaks ties */
    size_t index;
} shuffled;

static int by_key(const void *a, const void *b) {
    const shuffled *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* A draw named by (purpose, step, id). */
static vkm_u4 draw(uint64_t seed, uint32_t purpose, uint32_t step, int64_t id) {
    return vkm_random4((uint32_t)seed, (uint32_t)(seed >> 32), purpose, step, (uint32_t)id,
                       (uint32_t)((uint64_t)id >> 32), 0);
}

static uint64_t key_of(vkm_u4 r) {
    return (uint64_t)r.x << 32 | r.y;
}

static shuffled *shuffle(uint64_t seed, uint32_t purpose, uint32_t pass, size_t n,
                         const vkm_problems *p, vkm_err *err) {
    shuffled *s = vkm_calloc(n, sizeof *s, "a shuffle of the problems", err);
    for (size_t i = 0; s && i < n; i++) {
        int64_t id = p ? p->items[i].id : (int64_t)i;
        s[i] = (shuffled){key_of(draw(seed, purpose, pass, id)), id, i};
    }
    if (s) qsort(s, n, sizeof *s, by_key);
    return s;
}

vkm_status vkm_select_step(uint64_t seed, uint32_t step, size_t n_problems, size_t n, size_t *out,
                           vkm_err *err) {
    if (!n || n > n_problems)
        return vkm_fail(err, VKM_USAGE,
                        "a step of %zu problems from a set of %zu; lower the prompts a "
                        "step or add problems",
                        n, n_problems);
    uint32_t steps = (uint32_t)(n_problems / n);
    shuffled *s = shuffle(seed, VKM_RNG_PROBLEMS, step / steps, n_problems, NULL, err);
    if (!s) return err->status;
    for (size_t i = 0; i < n; i++) out[i] = s[step % steps * n + i].index;
    free(s);
    return VKM_OK;
}

bool vkm_select_unhackable(uint64_t seed, uint32_t step, int64_t id, float frac) {
    return vkm_unit(draw(seed, VKM_RNG_UNHACKABLE, step, id).x) < frac;
}

vkm_status vkm_select_shuffle(uint64_t seed, const vkm_problems *p, size_t *out, vkm_err *err) {
    shuffled *s = shuffle(seed, VKM_RNG_SPLIT, 0, p->n, p, err);
    if (!s) return err->status;
    for (size_t i = 0; i < p->n; i++) out[i] = s[i].index;
    free(s);
    return VKM_OK;
}

vkm_status vkm_select_disjoint(const vkm_problems *a, const vkm_problems *b, vkm_err *err) {
    for (size_t i = 0; i < a->n; i++) {
        for (size_t j = 0; j < b->n; j++) {
            const vkm_problem *x = &a->items[i], *y = &b->items[j];
            bool same = x->hash.lo == y->hash.lo && x->hash.hi == y->hash.hi;
            if (x->id != y->id && !same) continue;
            return vkm_fail(err, VKM_FAILED,
                            "%s:%zu: problem %lld is also in %s:%zu; take it out of one of them",
                            b->path, y->line, (long long)y->id, a->path, x->line);
        }
    }
    return VKM_OK;
}

/* ---- partitions --------------------------------------------------------------------------------
 */

void vkm_partition_free(vkm_partition *p) {
    if (!p) return;
    free(p->rows);
    free(p);
}

static int by_id(const void *a, const void *b) {
    const struct vkm_partition_row *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static vkm_status read_row(vkm_jv member, struct vkm_partition_row *row, vkm_err *err) {
    const char *name;
    vkm_err e = {0};
    vkm_status st = vkm_json_str(member, &name, err);
    if (st) return st;
    if (vkm_text_int("problem id", vkm_json_key(member), 0, (int64_t)1 << 53, &row->id, &e))
        return vkm_json_fail(member, err, "%s", e.msg);
    row->mode = vkm_mode_find(name, &e);
    return row->mode ? VKM_OK : vkm_json_fail(member, err, "%s", e.msg);
}

static vkm_status read_rows(vkm_jv root, vkm_partition *p, vkm_err *err) {
    if (vkm_json_typeof(root) != VKM_JSON_OBJECT)
        return vkm_json_fail(root, err, "a partition is an object {\"problem id\": \"mode\"}");
    p->rows = vkm_calloc(vkm_json_count(root), sizeof *p->rows, "a partition", err);
    if (!p->rows) return err->status;
    for (vkm_jv m = vkm_json_first(root); m.v; m = vkm_json_next(m)) {
        vkm_status st = read_row(m, &p->rows[p->n++], err);
        if (st) return st;
    }
    qsort(p->rows, p->n, sizeof *p->rows, by_id);
    return VKM_OK;
}

vkm_status vkm_partition_read(vkm_jv root, vkm_partition **out, vkm_err *err) {
    vkm_partition *p = vkm_calloc(1, sizeof *p, "a partition", err);
    *out = NULL;
    if (!p) return err->status;
    if (read_rows(root, p, err)) {
        vkm_partition_free(p);
        return err->status;
    }
    *out = p;
    return VKM_OK;
}

vkm_status vkm_partition_load(const char *path, vkm_partition **out, vkm_err *err) {
    vkm_json *doc = NULL;
    *out = NULL;
    vkm_status st = vkm_json_load(path, NULL, &doc, err);
    if (!st) st = vkm_partition_read(vkm_json_root(doc), out, err);
    vkm_json_free(doc);
    return st;
}

const vkm_mode *vkm_partition_mode(const vkm_partition *p, int64_t id) {
    const struct vkm_partition_row key = {id, NULL};
    const struct vkm_partition_row *r = bsearch(&key, p->rows, p->n, sizeof *p->rows, by_id);
    return r ? r->mode : NULL;
}
