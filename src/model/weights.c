/* Owns the masters of a model's weights. The optimizer lives in rl. */
#include "model/weights.h"

#include <stdlib.h>

#include "model/safetensors.h"
#include "ops/numerics.h"

static uint64_t n_elements(const vkm_model_tensor *t) {
    return (uint64_t)(t->rows ? t->rows : 1) * t->cols;
}

/* Where the model keeps the roundings of a weight. */
static void bind(vkm_model *m, vkm_weight *w) {
    vkm_layer *layer = &m->layers[w->is.layer];
    if (w->is.role < VKM_N_LINEARS) {
        w->w = layer->lin[w->is.role].w;
        w->wt = layer->lin[w->is.role].wt;
        return;
    }
    const struct {
        vkm_tensor w, wt;
    } places[VKM_N_ROLES] = {
        [VKM_ROLE_NORM_ATTN] = {.w = layer->norm_attn},
        [VKM_ROLE_NORM_MLP] = {.w = layer->norm_mlp},
        [VKM_ROLE_NORM_Q] = {.w = layer->norm_q},
        [VKM_ROLE_NORM_K] = {.w = layer->norm_k},
        [VKM_ROLE_NORM_FINAL] = {.w = m->norm_final},
        [VKM_ROLE_EMBED] = {.w = m->embed, .wt = m->dims.tied ? m->head_t : (vkm_tensor){0}},
        [VKM_ROLE_HEAD] = {.w = m->head, .wt = m->head_t},
    };
    w->w = places[w->is.role].w;
    w->wt = places[w->is.role].wt;
}

static vkm_status read_master(vkm_model *m, const vkm_st *st, const vkm_weight *w, float *chunk,
                              uint64_t cap, vkm_err *err) {
    const uint64_t shape[2] = {w->is.rows ? w->is.rows : w->is.cols, w->is.cols};
    const vkm_st_tensor *t;
    if (vkm_st_expect(st, w->is.name, w->is.rows ? 2 : 1, shape, &t, err)) return err->status;
    for (uint64_t at = 0; at < w->param.n && !err->status; at += cap) {
        uint64_t n = w->param.n - at < cap ? w->param.n - at : cap;
        if (!vkm_st_to_f32(t, at, n, chunk, err))
            (void)!vkm_write(m->dev, vkm_view(w->param, at, n), chunk, err);
    }
    return err->status;
}

static vkm_status read_masters(vkm_weights *w, const char *folder, vkm_err *err) {
    enum { CHUNK = 1 << 18 };
    vkm_st *st = NULL;
    vkm_stream *s = NULL;
    float *chunk = vkm_calloc(CHUNK, sizeof *chunk, "weights", err);
    if (!chunk || vkm_st_open(folder, &st, err)) goto done;
    for (uint32_t i = 0; i < w->n; i++)
        if (read_master(w->model, st, &w->w[i], chunk, CHUNK, err)) goto done;
    if (vkm_stream_new(w->model->dev, &s, err)) goto done;
    vkm_weights_refresh(s, w);
    (void)!vkm_stream_flush(s, err);
done:
    vkm_stream_free(s);
    vkm_st_close(st);
    free(chunk);
    return err->status ? vkm_fail_in(err, "model '%s'", folder) : VKM_OK;
}

vkm_status vkm_weights_new(vkm_model *m, const char *folder, vkm_plan *dry, vkm_weights **out,
                           vkm_err *err) {
    vkm_model_tensor *list = NULL;
    const vkm_model_config *d = &m->dims;
    vkm_weights *w = vkm_calloc(1, sizeof *w, "the weights' masters", err);
    *out = NULL;
    if (!w) return err->status;
    w->model = m;
    if (d->qkv_bias) {
        vkm_fail(err, VKM_USAGE,
                 "model '%s': the biases of q, k and v have no gradient here; train an adapter: "
                 "sft_train deployed or both",
                 folder);
        goto fail;
    }
    if (vkm_model_tensors(d, &list, &w->n, err)) goto fail;
    w->w = vkm_calloc(w->n, sizeof *w->w, "the weights' masters", err);
    w->by_role =
        vkm_calloc((uint64_t)d->L * VKM_N_ROLES, sizeof(vkm_weight *), "the weights' masters", err);
    if (!w->w || !w->by_role) goto fail;
    vkm_plan *p = dry ? dry : vkm_plan_new(m->dev);
    for (uint32_t i = 0; i < w->n; i++) {
        vkm_weight *x = &w->w[i];
        uint64_t n = n_elements(&list[i]);
        x->is = list[i];
        w->by_role[x->is.layer * VKM_N_ROLES + x->is.role] = x;
        vkm_plan_add(p, &x->param, VKM_F32, n, "master weights");
        vkm_plan_add(p, &x->grad, VKM_F32, n, "gradients");
        vkm_plan_add(p, &x->adam_m, VKM_F32, n, "optimizer");
        vkm_plan_add(p, &x->adam_v, VKM_F32, n, "optimizer");
    }
    if (d->tied) vkm_plan_add(p, &w->head_grad, VKM_F32, (uint64_t)d->V * d->C, "gradients");
    free(list);
    list = NULL;
    *out = w;
    if (dry) return VKM_OK;
    if (vkm_plan_commit(p, &w->mem, err)) goto fail;
    for (uint32_t i = 0; i < w->n; i++) bind(m, &w->w[i]);
    if (!d->tied) w->head_grad = vkm_weight_of(w, 0, VKM_ROLE_HEAD)->grad;
    if (!read_masters(w, folder, err)) return VKM_OK;
fail:
    *out = NULL;
    free(list);
    vkm_weights_free(w);
    return err->status;
}

void vkm_weights_free(vkm_weights *w) {
    if (!w) return;
    vkm_mem_free(w->mem);
    free(w->by_role);
    free(w->w);
    free(w);
}

const vkm_weight *vkm_weight_of(const vkm_weights *w, uint32_t layer, uint32_t role) {
    return w->by_role[layer * VKM_N_ROLES + role];
}

void vkm_weights_refresh(vkm_stream *s, const vkm_weights *w) {
    for (uint32_t i = 0; i < w->n; i++) {
        const vkm_weight *x = &w->w[i];
        uint32_t rows = x->is.rows, cols = x->is.cols;
        if (!rows) {
            VKM_OP(s, round_bf16, .x = x->param, .y = x->w, .n = cols);
            continue;
        }
        VKM_OP(s, pack_f32, .x = x->param, .y = x->w, .n_rows = rows, .n_cols = cols, .ldx = cols);
        if (x->wt.n)
            VKM_OP(s, pack_transpose, .x = x->w, .row_seq = x->w, .y = x->wt, .n_rows = rows,
                   .n_cols = cols, .has_seq = 0);
    }
}

static void record_zero(vkm_stream *s, vkm_tensor t) {
    VKM_OP(s, zero, .y = t, .n = (uint32_t)t.n);
}

void vkm_weights_zero_grad(vkm_stream *s, const vkm_weights *w) {
    for (uint32_t i = 0; i < w->n; i++) record_zero(s, w->w[i].grad);
    if (w->model->dims.tied) record_zero(s, w->head_grad);
}

void vkm_weights_close_grad(vkm_stream *s, const vkm_weights *w) {
    if (!w->model->dims.tied) return;
    const vkm_weight *embed = vkm_weight_of(w, 0, VKM_ROLE_EMBED);
    VKM_OP(s, accumulate, .group = w->head_grad, .total = embed->grad,
           .n = (uint32_t)embed->grad.n);
}

/* ---- saving ---------------------------------------------------------------------------------- */

static vkm_status read_part(void *user, uint32_t i, const vkm_model_tensor *t, uint64_t first,
                            uint64_t n, float *out, vkm_err *err) {
    const vkm_weights *w = user;
    (void)t;
    return vkm_read(w->model->dev, vkm_view(w->w[i].param, first, n), out, err);
}

vkm_status vkm_weights_save(const vkm_weights *w, const char *folder, vkm_err *err) {
    const vkm_model_write_options bf16 = {0};
    return vkm_model_write(&w->model->dims, folder, &bf16, read_part, (void *)(uintptr_t)w, err);
}
