/* An sft run's state in and out of checkpoints: parameters and both moments by the tensors' names,
 * and counters. */
#include <stdlib.h>
#include <string.h>

#include "rl/checkpoint.h"
#include "rl/sft.h"

enum { N_COUNTERS = 5, N_KINDS = 3 };

typedef struct snapshot {
    const vkm_tensor **parts; /* (N_KINDS, tensors) */
    uint32_t counters[N_COUNTERS];
    vkm_ckpt_array *arrays[N_KINDS], state[1];
    vkm_ckpt_file files[N_KINDS + 1];
} snapshot;

static const vkm_tensor *tensor_of(const vkm_trainable *t, int kind) {
    const vkm_tensor *kinds[N_KINDS] = {&t->param, &t->m, &t->v};
    return kinds[kind];
}

static void snapshot_free(snapshot *s) {
    for (int k = 0; k < N_KINDS; k++) free(s->arrays[k]);
    free(s->parts);
}

static vkm_status snapshot_make(const vkm_sft *r, snapshot *s, vkm_err *err) {
    static const char *const names[N_KINDS] = {"weights", "adam_m", "adam_v"};
    const vkm_tuner *t = r->tuner;
    *s = (snapshot){0};
    s->parts = vkm_calloc((size_t)N_KINDS * t->n, sizeof *s->parts, "a checkpoint", err);
    for (uint32_t k = 0; k < N_KINDS && !err->status; k++) {
        s->arrays[k] = vkm_calloc(t->n, sizeof *s->arrays[k], "a checkpoint", err);
        for (uint32_t i = 0; s->arrays[k] && i < t->n; i++) {
            const vkm_tensor **part = &s->parts[k * t->n + i];
            *part = tensor_of(&t->tensors[i], (int)k);
            s->arrays[k][i] = (vkm_ckpt_array){t->names[i],  VKM_ST_F32,    1,
                                               {(*part)->n}, .parts = part, .n_parts = 1};
        }
        s->files[k] = (vkm_ckpt_file){names[k], s->arrays[k], t->n};
    }
    s->state[0] = (vkm_ckpt_array){"counters", VKM_ST_U32, 1, {N_COUNTERS}, .data = s->counters};
    s->files[N_KINDS] = (vkm_ckpt_file){"state", s->state, 1};
    return err->status;
}

vkm_status vkm_sft_save(vkm_sft *r, vkm_err *err) {
    snapshot s;
    if (snapshot_make(r, &s, err)) goto done;
    const uint32_t counters[N_COUNTERS] = {r->state.step, r->state.n_updates, r->state.n_skipped,
                                           (uint32_t)r->state.n_tokens,
                                           (uint32_t)(r->state.n_tokens >> 32)};
    memcpy(s.counters, counters, sizeof counters);
    (void)!vkm_ckpt_save(&r->c, r->state.step, r->dev, s.files, VKM_COUNTOF(s.files), err);
done:
    snapshot_free(&s);
    return err->status;
}

vkm_status vkm_sft_restore(vkm_sft *r, const char *checkpoint, vkm_err *err) {
    snapshot s;
    uint32_t step;
    if (snapshot_make(r, &s, err) ||
        vkm_ckpt_load(&r->c, checkpoint, r->dev, s.files, VKM_COUNTOF(s.files), &step, err))
        goto done;
    if (vkm_tuner_refresh(r->tuner, err)) goto done;
    r->state.step = s.counters[0];
    r->state.n_updates = s.counters[1];
    r->state.n_skipped = s.counters[2];
    r->state.n_tokens = s.counters[3] | (uint64_t)s.counters[4] << 32;
done:
    snapshot_free(&s);
    return err->status;
}
