/* A run's state in and out of checkpoints: adapter, router, gate and optimizer, and counters. An
 * evaluation takes the adapter and the counters. */
#include <stdlib.h>
#include <string.h>

#include "rl/checkpoint.h"
#include "rl/run.h"

enum { N_COUNTERS = 7 };

/* Host copies of everything that a checkpoint holds, and its description. */
typedef struct snapshot {
    float *adapter, *adam_m, *adam_v, *router, *router_adam;
    uint32_t counters[N_COUNTERS];
    uint64_t n_params, n_m, n_v, n_router, n_router_adam;
    vkm_ckpt_array adapter_arrays[1], optimizer_arrays[3], router_arrays[1], state_arrays[1],
        gate_arrays[4], mixture_arrays[3];
    vkm_ckpt_file files[6];
    size_t n_files;
} snapshot;

static vkm_ckpt_array vector(const char *name, float *data, uint64_t n) {
    return (vkm_ckpt_array){name, VKM_ST_F32, 1, {n}, data};
}

static void snapshot_free(snapshot *s) {
    free(s->adapter), free(s->adam_m), free(s->adam_v), free(s->router), free(s->router_adam);
}

static vkm_status snapshot_make(const vkm_run *r, snapshot *s, vkm_err *err) {
    const vkm_adapter *a = r->policy->adapter;
    int trains = r->purpose == VKM_RUN_TRAINS;
    *s = (snapshot){.n_params = vkm_adapter_size(a, VKM_STATE_PARAM),
                    .n_m = vkm_adapter_size(a, VKM_STATE_ADAM_M),
                    .n_v = vkm_adapter_size(a, VKM_STATE_ADAM_V)};
    if (r->router) {
        s->n_router = vkm_router_state_size(r->router);
        s->n_router_adam = 2ull * r->router->P + 2;
    }
    const struct {
        float **p;
        uint64_t n;
    } want[] = {{&s->adapter, s->n_params},
                {&s->adam_m, s->n_m},
                {&s->adam_v, s->n_v},
                {&s->router, s->n_router},
                {&s->router_adam, s->n_router_adam}};
    for (size_t i = 0; i < VKM_COUNTOF(want); i++) {
        *want[i].p = vkm_calloc(want[i].n, sizeof(float), "a checkpoint", err);
        if (!*want[i].p) return err->status;
    }
    s->adapter_arrays[0] = vector("delta", s->adapter, s->n_params);
    s->optimizer_arrays[0] = vector("m", s->adam_m, s->n_m);
    s->optimizer_arrays[1] = vector("v", s->adam_v, s->n_v);
    s->optimizer_arrays[2] = vector("router", s->router_adam, s->n_router_adam);
    s->router_arrays[0] = vector("router", s->router, s->n_router);
    s->state_arrays[0] = (vkm_ckpt_array){"counters", VKM_ST_U32, 1, {N_COUNTERS}, s->counters};
    s->files[s->n_files++] = (vkm_ckpt_file){"adapter", s->adapter_arrays, 1};
    if (trains)
        s->files[s->n_files++] =
            (vkm_ckpt_file){"optimizer", s->optimizer_arrays, r->router ? 3 : 2};
    s->files[s->n_files++] = (vkm_ckpt_file){"state", s->state_arrays, 1};
    if (r->router) s->files[s->n_files++] = (vkm_ckpt_file){"router", s->router_arrays, 1};
    if (r->gate) { /* host memory: saved from where it is, restored in place */
        vkm_gate *g = r->gate;
        s->gate_arrays[0] = vector("direction", g->direction, g->P);
        s->gate_arrays[1] = (vkm_ckpt_array){"rows", VKM_ST_F32, 2, {g->cap, g->P}, g->rows};
        s->gate_arrays[2] = (vkm_ckpt_array){"steps", VKM_ST_U32, 1, {g->cap}, g->steps};
        s->gate_arrays[3] = (vkm_ckpt_array){"n_seen", VKM_ST_U32, 1, {2}, g->n_seen};
        s->files[s->n_files++] = (vkm_ckpt_file){"gate", s->gate_arrays, 4};
    }
    if (r->mixture) {
        vkm_mixture *m = r->mixture;
        s->mixture_arrays[0] = vector("pair", m->pair, m->P);
        s->mixture_arrays[1] = vector("counts", m->counts, VKM_MIX_COUNTS);
        s->mixture_arrays[2] =
            (vkm_ckpt_array){"sums", VKM_ST_F32, 2, {VKM_MIX_SUMS, m->P}, m->sums};
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
    const vkm_adapter *a = r->policy->adapter;
    snapshot s;
    if (snapshot_make(r, &s, err)) goto done;
    uint32_t best, now;
    memcpy(&best, &r->state.best_reference_logp, sizeof best);
    memcpy(&now, &r->state.reference_logp, sizeof now);
    const uint32_t counters[N_COUNTERS] = {r->state.step,  r->state.n_updates, r->state.n_skipped,
                                           best,           r->state.n_far,     now,
                                           r->state.healed};
    memcpy(s.counters, counters, sizeof counters);
    if (vkm_adapter_read(a, VKM_STATE_PARAM, s.adapter, err) ||
        vkm_adapter_read(a, VKM_STATE_ADAM_M, s.adam_m, err) ||
        vkm_adapter_read(a, VKM_STATE_ADAM_V, s.adam_v, err))
        goto done;
    if (r->router && (vkm_router_read(r->router, s.router, err) ||
                      move_router_adam(r, s.router_adam, to_host, err)))
        goto done;
    (void)!vkm_ckpt_save(&r->c, r->state.step, s.files, s.n_files, err);
done:
    snapshot_free(&s);
    return err->status;
}

vkm_status vkm_run_restore(vkm_run *r, const char *checkpoint, vkm_err *err) {
    vkm_adapter *a = r->policy->adapter;
    snapshot s;
    uint32_t step;
    if (snapshot_make(r, &s, err) ||
        vkm_ckpt_load(&r->c, checkpoint, s.files, s.n_files, &step, err))
        goto done;
    if (r->purpose == VKM_RUN_TRAINS && (vkm_adapter_write(a, VKM_STATE_ADAM_M, s.adam_m, err) ||
                                         vkm_adapter_write(a, VKM_STATE_ADAM_V, s.adam_v, err)))
        goto done;
    if (vkm_adapter_write(a, VKM_STATE_PARAM, s.adapter, err)) goto done;
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
