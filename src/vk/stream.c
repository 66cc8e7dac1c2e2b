/* Recording of work. Backends execute it. */
#include "vk/stream.h"

#include <stdlib.h>
#include <string.h>

#include "vk/backend.h"

struct vkm_stream {
    vkm_dev *dev;
    vkm_nodes nodes;
    vkm_err err; /* the first error since the last flush */
};

struct vkm_graph {
    vkm_dev *dev;
    vkm_nodes nodes;
    void *impl;
};

vkm_status vkm_stream_new(vkm_dev *dev, vkm_stream **out, vkm_err *err) {
    vkm_stream *s = vkm_calloc(1, sizeof *s, "a stream", err);
    if (!s) return err->status;
    s->dev = dev;
    *out = s;
    return VKM_OK;
}

void vkm_stream_free(vkm_stream *s) {
    if (!s) return;
    free(s->nodes.v);
    free(s);
}

vkm_dev *vkm_stream_dev(vkm_stream *s) {
    return s->dev;
}

void vkm_stream_launch(vkm_stream *s, const vkm_kernel *k, const void *args, vkm_launch how) {
    if (how.groups[0] == 0 || how.groups[1] == 0 || how.groups[2] == 0) return;
    if (s->nodes.n == s->nodes.cap) {
        uint32_t cap = s->nodes.cap ? 2 * s->nodes.cap : 256;
        vkm_node *v = realloc(s->nodes.v, cap * sizeof *v);
        if (!v) {
            vkm_fail(&s->err, VKM_FAILED, "out of host memory for %u recorded kernels", cap);
            return;
        }
        s->nodes.v = v;
        s->nodes.cap = cap;
    }
    vkm_node *node = &s->nodes.v[s->nodes.n++];
    memset(node, 0, sizeof *node);
    node->kernel = k;
    node->how = how;
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < k->n_params; i++) {
        uint32_t o = vkm_param_offset(&bytes, k->params[i].kind);
        if (!vkm_param_is_pointer(k->params[i].kind)) continue;
        vkm_tensor t;
        memcpy(&t, (const char *)args + o, sizeof t);
        VKM_BUG_ON(t.addr == 0, "kernel %s: parameter '%s' has no memory", k->name,
                   k->params[i].name);
    }
    VKM_BUG_ON(bytes > VKM_MAX_ARGS, "kernel %s has %u bytes of arguments", k->name, bytes);
    memcpy(node->args, args, bytes);
}

static vkm_status prepare(vkm_stream *s, int cyclic, vkm_err *err) {
    if (s->err.status) {
        vkm_fail(err, s->err.status, "%s", s->err.msg);
        s->err = (vkm_err){0};
        s->nodes.n = 0;
        return err->status;
    }
    vkm_place_barriers(&s->nodes, cyclic);
    uint32_t a, b;
    VKM_BUG_ON(s->dev->options.check_hazards && !vkm_barriers_suffice(&s->nodes, &a, &b),
               "no barrier between %s and %s", s->nodes.v[a].kernel->name,
               s->nodes.v[b].kernel->name);
    return VKM_OK;
}

vkm_status vkm_stream_flush(vkm_stream *s, vkm_err *err) {
    vkm_status st = prepare(s, 0, err);
    if (!st && s->nodes.n) st = s->dev->backend->run(s->dev, &s->nodes, err);
    s->nodes.n = 0;
    return st;
}

vkm_status vkm_stream_take_graph(vkm_stream *s, vkm_graph **out, vkm_err *err) {
    vkm_status st = prepare(s, 1, err);
    if (st) return st;
    vkm_graph *g = vkm_calloc(1, sizeof *g, "a graph", err);
    if (!g) return err->status;
    g->dev = s->dev;
    g->nodes = s->nodes;
    s->nodes = (vkm_nodes){0};
    st = g->dev->backend->compile(g->dev, &g->nodes, &g->impl, err);
    if (st) {
        vkm_graph_free(g);
        return st;
    }
    *out = g;
    return VKM_OK;
}

vkm_status vkm_graph_run(vkm_graph *g, uint32_t times, vkm_err *err) {
    if (!g->nodes.n) return VKM_OK;
    return g->dev->backend->run_compiled(g->dev, &g->nodes, g->impl, times, err);
}

void vkm_graph_free(vkm_graph *g) {
    if (!g) return;
    g->dev->backend->free_compiled(g->dev, g->impl);
    free(g->nodes.v);
    free(g);
}
