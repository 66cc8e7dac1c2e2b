/* Barriers from declared reads and writes, and their proof. */
#include <stdlib.h>
#include <string.h>

#include "vk/backend.h"

typedef struct access {
    uint64_t lo, hi; /* bytes [lo, hi) */
    int writes;
} access;

static uint32_t accesses_of(const vkm_node *node, access *out) {
    uint32_t n = 0, at = 0;
    for (uint32_t i = 0; i < node->kernel->n_params; i++) {
        vkm_param_kind kind = node->kernel->params[i].kind;
        uint32_t o = vkm_param_offset(&at, kind);
        if (!vkm_param_is_pointer(kind)) continue;
        const vkm_tensor *t = (const vkm_tensor *)(const void *)(node->args + o);
        if (t->n) out[n++] = (access){t->addr, t->addr + t->n * t->esz, kind != VKM_P_IN};
    }
    return n;
}

static int overlap(const access *a, const access *b) {
    return (a->writes || b->writes) && a->lo < b->hi && b->lo < a->hi;
}

double vkm_node_bytes(const vkm_node *node) {
    double bytes = 0;
    for (uint32_t i = 0, at = 0; i < node->kernel->n_params; i++) {
        vkm_param_kind kind = node->kernel->params[i].kind;
        uint32_t o = vkm_param_offset(&at, kind);
        if (!vkm_param_is_pointer(kind)) continue;
        const vkm_tensor *t = (const vkm_tensor *)(const void *)(node->args + o);
        bytes += (double)(t->n * t->esz) * (kind == VKM_P_INOUT ? 2 : 1);
    }
    return bytes;
}

int vkm_nodes_conflict(const vkm_node *a, const vkm_node *b) {
    access x[VKM_MAX_PARAMS], y[VKM_MAX_PARAMS];
    uint32_t n = accesses_of(a, x), m = accesses_of(b, y);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < m; j++)
            if (overlap(&x[i], &y[j])) return 1;
    return 0;
}

/* Disjoint byte ranges in ascending order: what was read, or written, since the last barrier. A
 * node is checked against the set, not against every node before it, so a long run without a
 * barrier (an optimizer's) costs n log n. */
typedef struct range_set {
    access *v;
    uint32_t n, cap;
} range_set;

/* The first range that ends behind `at`. */
static uint32_t first_behind(const range_set *s, uint64_t at) {
    uint32_t lo = 0, hi = s->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (s->v[mid].hi > at)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static int set_hits(const range_set *s, const access *a) {
    uint32_t i = first_behind(s, a->lo);
    return i < s->n && s->v[i].lo < a->hi;
}

static void set_add(range_set *s, access a) {
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->v = realloc(s->v, s->cap * sizeof *s->v);
        VKM_BUG_ON(!s->v, "no memory for %u ranges", s->cap);
    }
    uint32_t i = first_behind(s, a.lo), end = i;
    for (; end < s->n && s->v[end].lo < a.hi; end++) { /* swallow what it overlaps */
        a.lo = s->v[end].lo < a.lo ? s->v[end].lo : a.lo;
        a.hi = s->v[end].hi > a.hi ? s->v[end].hi : a.hi;
    }
    memmove(s->v + i + 1, s->v + end, (s->n - end) * sizeof *s->v);
    s->n = s->n - (end - i) + 1;
    s->v[i] = a;
}

void vkm_place_barriers(vkm_nodes *nodes, int cyclic) {
    range_set reads = {0}, writes = {0};
    for (uint32_t i = 0; i < nodes->n; i++) {
        access x[VKM_MAX_PARAMS];
        uint32_t n = accesses_of(&nodes->v[i], x);
        int need = cyclic && i == 0;
        for (uint32_t j = 0; j < n && !need; j++)
            need = set_hits(&writes, &x[j]) || (x[j].writes && set_hits(&reads, &x[j]));
        if (need) reads.n = writes.n = 0;
        for (uint32_t j = 0; j < n; j++) set_add(x[j].writes ? &writes : &reads, x[j]);
        nodes->v[i].barrier = need;
    }
    free(reads.v);
    free(writes.v);
}

int vkm_barriers_suffice(const vkm_nodes *nodes, uint32_t *first, uint32_t *second) {
    for (uint32_t i = 0; i < nodes->n; i++) {
        for (uint32_t j = i + 1; j < nodes->n && !nodes->v[j].barrier; j++) {
            if (!vkm_nodes_conflict(&nodes->v[i], &nodes->v[j])) continue;
            *first = i, *second = j;
            return 0;
        }
    }
    return 1;
}
