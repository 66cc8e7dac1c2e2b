/* A run's state in and out of checkpoints: adapter, router, gate and optimizer, and counters. An
 * evaluation takes the adapter and the counters. */
#include <stdlib.h>
#include <string.h>

#include "rl/checkpoint.h"
#include "rl/run.h"

enum { N_COUNTERS = 7 };

/* What a checkpoint holds: the adapter's tensors where they are, host copies of the little ones. */
typedef struct snapshot {
    const vkm_tensor **parts[VKM_STATE_ADAM_V + 1];
    float *router, *router_adam;
    uint32_t counters[N_COUNTERS];
    uint64_t n_router, n_router_adam;
    vkm_ckpt_array adapter_arrays[1], optimizer_arrays[3], router_arrays[1], state_arrays[1],
        gate_arrays[4], mixture_arrays[3];
    vkm_ckpt_file files[6];
    size_t n_files;
} snapshot;

static vkm_ckpt_array vector(const char *name, float *data, uint64_t n) {
    return (vkm_ckpt_array){name, VKM_ST_F32, 1, {n}, .data = data};
}

/* All of a state of the adapter as one vector. */
static vkm_ckpt_array of_adapter(const char *name, snapshot *s, const vkm_adapter *a,
                                 vkm_adapter_state which, vkm_err *err) {
    size_t n = 2 * (size_t)a->n_modules;
    const vkm_tensor **parts = s->parts[which] = vkm_calloc(n, sizeof *parts, "a checkpoint", err);
    for (uint32_t i = 0; parts && i < n; i++)
        parts[i] = vkm_module_tensor(&a->modules[i / 2], which, (int)(i % 2));
    return (vkm_ckpt_array){name,           VKM_ST_F32,  1, {vkm_adapter_size(a, which)},
                            .parts = parts, .n_parts = n};
}

static void snapshot_free(snapshot *s) {
    for (size_t i = 0; i < VKM_COUNTOF(s->parts); i++) free(s->parts[i]);
    free(s->router), free(s->router_adam);
}

static vkm_status snapshot_make(const vkm_run *r, snapshot *s, vkm_err *err) {
    const vkm_adapter *a = r->policy->adapter;
    int trains = r->purpose == VKM_RUN_TRAINS;
    *s = (snapshot){0};
    if (r->router) {
        s->n_router = vkm_router_state_size(r->router);
        s->n_router_adam = 2ull * r->router->P + 2;
    }
    s->router = vkm_calloc(s->n_router, sizeof(float), "a checkpoint", err);
    s->router_adam = vkm_calloc(s->n_router_adam, sizeof(float), "a checkpoint", err);
    s->adapter_arrays[0] = of_adapter("delta", s, a, VKM_STATE_PARAM, err);
    if (trains) {
        s->optimizer_arrays[0] = of_adapter("m", s, a, VKM_STATE_ADAM_M, err);
        s->optimizer_arrays[1] = of_adapter("v", s, a, VKM_STATE_ADAM_V, err);
    }
    if (err->status) return err->status;
    s->optimizer_arrays[2] = vector("router", s->router_adam, s->n_router_adam);
    s->router_arrays[0] = vector("router", s->router, s->n_router);
    s->state_arrays[0] =
        (vkm_ckpt_array){"counters", VKM_ST_U32, 1, {N_COUNTERS}, .data = s->counters};
    s->files[s->n_files++] = (vkm_ckpt_file){"adapter", s->adapter_arrays, 1};
    if (trains)
        s->files[s->n_files++] =
            (vkm_ckpt_file){"optimizer", s->optimizer_arrays, r->router ? 3 : 2};
    s->files[s->n_files++] = (vkm_ckpt_file){"state", s->state_arrays, 1};
    if (r->router) s->files[s->n_files++] = (vkm_ckpt_file){"router", s->router_arrays, 1};
    if (r->gate) { /* host memory: saved from where it is, restored in place */
        vkm_gate *g = r->gate;
        s->gate_arrays[0] = vector("direction", g->direction, g->P);
        s->gate_arrays[1] =
            (vkm_ckpt_array){"rows", VKM_ST_F32, 2, {g->cap, g->P}, .data = g->rows};
        s->gate_arrays[2] = (vkm_ckpt_array){"steps", VKM_ST_U32, 1, {g->cap}, .data = g->steps};
        s->gate_arrays[3] = (vkm_ckpt_array){"n_seen", VKM_ST_U32, 1, {2}, .data = g->n_seen};
        s->files[s->n_files++] = (vkm_ckpt_file){"gate", s->gate_arrays, 4};
    }
    if (r->mixture) {
        vkm_mixture *m = r->mixture;
        s->mixture_arrays[0] = vector("pair", m->pair, m->P);
        s->mixture_arrays[1] = vector("counts", m->counts, VKM_MIX_COUNTS);
        s->mixture_arrays[2] =
            (vkm_ckpt_array){"sums", VKM_ST_F32, 2, {VKM_MIX_SUMS, m->P}, .data = m->sums};
        s->files[s->n_files++] = (vkm_ckpt_file){"mixture", s->mixture_arrays, 3};
    }
    return VKM_OK;
}

typedef vkm_status (*mover)(vkm_dev *dev, vkm_tensor t, float *host, vkm_err *err);
static vkm_status to_host(vkm_dev *dev, vkm_tensor t, float *host, vkm_err *err) {
    return vkm_read(dev, t, host, err);
}
static vkm_status to_device(vkm_dev *dev, vkm_tensor t, float *host, vkm_err *err) {
    return vkm_write(dev, t, host, err);
}

static vkm_status move_router_adam(const vkm_run *r, float *host, mover move, vkm_err *err) {
    for (size_t i = 0; i < VKM_COUNTOF(r->router->adam); host += r->router->adam[i].n, i++)
        if (move(r->dev, r->router->adam[i], host, err)) return err->status;
    return VKM_OK;
}

vkm_status vkm_run_save(vkm_run *r, vkm_err *err) {
    snapshot s;
    if (snapshot_make(r, &s, err)) goto done;
    uint32_t best, now;
    memcpy(&best, &r->state.best_reference_logp, sizeof best);
    memcpy(&now, &r->state.reference_logp, sizeof now);
    const uint32_t counters[N_COUNTERS] = {r->state.step,  r->state.n_updates, r->state.n_skipped,
                                           best,           r->state.n_far,     now,
                                           r->state.healed};
    memcpy(s.counters, counters, sizeof counters);
    if (r->router && (vkm_router_read(r->router, s.router, err) ||
                      move_router_adam(r, s.router_adam, to_host, err)))
        goto done;
    (void)!vkm_ckpt_save(&r->c, r->state.step, r->dev, s.files, s.n_files, err);
done:
    snapshot_free(&s);
    return err->status;
}

vkm_status vkm_run_restore(vkm_run *r, const char *checkpoint, vkm_err *err) {
    snapshot s;
    uint32_t step;
    if (snapshot_make(r, &s, err) ||
        vkm_ckpt_load(&r->c, checkpoint, r->dev, s.files, s.n_files, &step, err) ||
        vkm_adapter_follow(r->policy->adapter, err))
        goto done;
    if (r->router && (vkm_router_write(r->router, s.router, err) ||
                      move_router_adam(r, s.router_adam, to_device, err)))
        goto done;
    r->state.step = s.counters[0];
    r->state.n_updates = s.counters[1];
    r->state.n_skipped = s.counters[2];
    memcpy(&r->state.best_reference_logp, &s.counters[3], sizeof(float));
    r->state.n_far = s.counters[4];
    memcpy(&r->state.reference_logp, &s.counters[5], sizeof(float));
    r->state.healed = s.counters[6];
done:
    snapshot_free(&s);
    return err->status;
}
