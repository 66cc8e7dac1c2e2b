/* Owns the norm, the clip and the AdamW update of a parameter group. */
#include "rl/optimizer.h"

#include <stdlib.h>
#include <string.h>

#include "ops/optim.h"
#include "ops/softmath.h"

vkm_status vkm_optimizer_new(vkm_dev *dev, const vkm_trainable *tensors, uint32_t n, vkm_plan *dry,
                             vkm_optimizer **out, vkm_err *err) {
    vkm_optimizer *o = vkm_calloc(1, sizeof *o, "the optimizer", err);
    if (!o) return err->status;
    o->dev = dev;
    o->n = n;
    o->tensors = vkm_calloc(n, sizeof *tensors, "the optimizer", err);
    if (!o->tensors) goto fail;
    memcpy(o->tensors, tensors, n * sizeof *tensors);
    uint64_t blocks = 0; /* a part begins a block of its own */
    for (uint32_t i = 0; i < n; i++)
        blocks += vkm_n_sum_blocks((uint32_t)tensors[i].grad.n) + VKM_MAX_EXPERTS;
    vkm_plan *p = dry ? dry : vkm_plan_new(dev);
    vkm_plan_add(p, &o->blocks, VKM_F32, blocks, "optimizer");
    vkm_plan_add(p, &o->sums, VKM_F32, (uint64_t)n * VKM_MAX_EXPERTS, "optimizer");
    vkm_plan_add(p, &o->clip, VKM_F32, VKM_CLIP_WORDS, "optimizer");
    if (!dry && vkm_plan_commit(p, &o->mem, err)) goto fail;
    *out = o;
    return VKM_OK;
fail:
    vkm_optimizer_free(o);
    return err->status;
}

void vkm_optimizer_free(vkm_optimizer *o) {
    if (!o) return;
    vkm_mem_free(o->mem);
    free(o->tensors);
    free(o);
}

static const float inv_scale = 1.0f / VKM_LOSS_SCALE; /* a power of two: exact */

/* Sums of squares of each of `parts` parts of every gradient into o->sums. All first sums, then all
 * second ones: one barrier between. */
static void record_sums(vkm_optimizer *o, vkm_stream *s, uint32_t parts) {
    for (int second = 0; second < 2; second++) {
        uint64_t at = 0;
        for (uint32_t i = 0; i < o->n * parts; i++) {
            vkm_tensor g = o->tensors[i / parts].grad;
            uint32_t n = (uint32_t)(g.n / parts), blocks = vkm_n_sum_blocks(n);
            vkm_tensor x = vkm_view(g, (uint64_t)(i % parts) * n, n);
            vkm_tensor y = vkm_view(o->blocks, at, blocks);
            if (second)
                VKM_OP(s, sum5, .x = y, .y = vkm_view(o->sums, i, 1), .n = blocks);
            else
                VKM_OP(s, sumsq, .x = x, .y = y, .n = n);
            at += blocks;
        }
    }
}

vkm_status vkm_optimizer_part_sums(vkm_optimizer *o, vkm_stream *s, uint32_t parts, double *sums,
                                   vkm_err *err) {
    VKM_BUG_ON(parts == 0 || parts > VKM_MAX_EXPERTS, "%u parts", parts);
    uint32_t n = o->n * parts;
    float *all = vkm_calloc(n, sizeof *all, "sums", err);
    if (!all) return err->status;
    record_sums(o, s, parts);
    for (uint32_t i = 0; i < parts; i++) sums[i] = 0;
    if (!vkm_stream_flush(s, err) && !vkm_read(o->dev, vkm_view(o->sums, 0, n), all, err))
        for (uint32_t i = 0; i < n; i++) sums[i % parts] += (double)all[i];
    free(all);
    return err->status;
}

vkm_status vkm_optimizer_norm(vkm_optimizer *o, vkm_stream *s, float max_norm, float *norm,
                              int *finite, vkm_err *err) {
    record_sums(o, s, 1);
    VKM_OP(s, clip_coef, .sums = o->sums, .clip = o->clip, .n = o->n, .max_norm = max_norm,
           .inv_scale = inv_scale);
    float out[VKM_CLIP_WORDS];
    if (vkm_stream_flush(s, err) || vkm_read(o->dev, o->clip, out, err)) return err->status;
    *norm = out[VKM_CLIP_NORM];
    *finite = out[VKM_CLIP_FINITE] > 0;
    return VKM_OK;
}

/* 1 / (1 - beta^t) by repeated multiplication: no libm in what is hashed. */
static float bias_correction(float beta, uint32_t t) {
    double power = 1;
    for (uint32_t i = 0; i < t; i++) power = power * (double)beta;
    return (float)(1.0 / (1.0 - power));
}

void vkm_optimizer_step(vkm_optimizer *o, vkm_stream *s, const vkm_adam_rates *r) {
    float c1 = bias_correction(r->beta1, r->t + 1), c2 = bias_correction(r->beta2, r->t + 1);
    for (uint32_t i = 0; i < o->n; i++) {
        const vkm_trainable *t = &o->tensors[i];
        uint32_t n = (uint32_t)t->param.n, per_tensor = t->v.n == 1 && n > 1;
        if (per_tensor)
            VKM_OP(s, adam_tensor_v, .sum = vkm_view(o->sums, i, 1), .clip = o->clip, .v = t->v,
                   .n = n, .b2 = r->beta2, .inv_scale = inv_scale);
        VKM_OP(s, adamw, .p = t->param, .g = t->grad, .m = t->m, .v = t->v, .clip = o->clip, .n = n,
               .v_stride = per_tensor ? 0 : 1, .lr = r->lr, .b1 = r->beta1, .b2 = r->beta2,
               .eps = r->epsilon, .wd = t->no_decay ? 0 : r->weight_decay, .bias1 = c1, .bias2 = c2,
               .inv_scale = inv_scale);
    }
}

float vkm_lr_factor(const vkm_config *c, uint32_t t) {
    if (t < c->warmup_steps) return vkm_div((float)(int)(t + 1), (float)(int)c->warmup_steps);
    if (c->lr_scheduler == VKM_lr_scheduler_constant) return 1;
    int done = (int)(t - c->warmup_steps), all = (int)(c->max_steps - c->warmup_steps);
    /* half a turn over the rest of the run */
    return 0.5f * (1.0f + vkm_cos_turn(0.5f * vkm_div((float)done, (float)(all > 0 ? all : 1))));
}
