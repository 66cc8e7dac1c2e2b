/* Barriers from declared reads and writes, and their proof. */
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

int vkm_nodes_conflict(const vkm_node *a, const vkm_node *b) {
    access x[VKM_MAX_PARAMS], y[VKM_MAX_PARAMS];
    uint32_t n = accesses_of(a, x), m = accesses_of(b, y);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < m; j++)
            if (overlap(&x[i], &y[j])) return 1;
    return 0;
}

void vkm_place_barriers(vkm_nodes *nodes, int cyclic) {
    uint32_t since = 0; /* first node behind the last barrier */
    for (uint32_t i = 0; i < nodes->n; i++) {
        int need = cyclic && i == 0;
        for (uint32_t j = i; j-- > since && !need;)
            need = vkm_nodes_conflict(&nodes->v[j], &nodes->v[i]);
        nodes->v[i].barrier = need;
        if (need) since = i;
    }
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
