/* Norms, clipping and AdamW on fp32 vectors. Gradients carry the loss scale until here: inv_scale
 * takes it out. Vectors longer than 65,536 are summed by blocks, then over the block results. */
#include "ops/twin.h"
#include "ops/guarded.h"
#include "ops/optim.h"

#ifndef VKM_TWIN64
static vkm_launch rule5_launch(uint32_t n_groups, uint64_t n) {
    return vkm_launch_flat(64ull * n_groups, 64, 10.0 * (double)n);
}

void vkm_op_sumsq(vkm_stream *s, const vkm_args_sumsq *a) {
    vkm_args_sumsq b = *a;
    uint32_t blocks = vkm_n_sum_blocks(a->n);
    b.x = vkm_need(a->x, a->n, "sumsq", "x");
    b.y = vkm_need(a->y, blocks, "sumsq", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_sumsq], &b, rule5_launch(blocks, a->n));
}

void vkm_op_sum5(vkm_stream *s, const vkm_args_sum5 *a) {
    vkm_args_sum5 b = *a;
    VKM_BUG_ON(a->n > VKM_SUM_BLOCK, "sum5: %u values", a->n);
    b.x = vkm_need(a->x, a->n, "sum5", "x");
    b.y = vkm_need(a->y, 1, "sum5", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_sum5], &b, rule5_launch(1, a->n));
}

void vkm_op_clip_coef(vkm_stream *s, const vkm_args_clip_coef *a) {
    vkm_args_clip_coef b = *a;
    b.sums = vkm_need(a->sums, a->n, "clip_coef", "sums");
    b.clip = vkm_need(a->clip, VKM_CLIP_WORDS, "clip_coef", "clip");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_clip_coef], &b, vkm_launch_flat(1, 1, 20.0 * a->n));
}

void vkm_op_adamw(vkm_stream *s, const vkm_args_adamw *a) {
    vkm_args_adamw b = *a;
    VKM_BUG_ON(a->v_stride > 1, "adamw: v_stride is %u", a->v_stride);
    b.p = vkm_need(a->p, a->n, "adamw", "p");
    b.g = vkm_need(a->g, a->n, "adamw", "g");
    b.m = vkm_need(a->m, a->n, "adamw", "m");
    b.v = vkm_need(a->v, a->v_stride ? a->n : 1, "adamw", "v");
    b.clip = vkm_need(a->clip, VKM_CLIP_WORDS, "adamw", "clip");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_adamw], &b, vkm_launch_flat(a->n, 64, 200.0 * a->n));
}

void vkm_op_adam_tensor_v(vkm_stream *s, const vkm_args_adam_tensor_v *a) {
    vkm_args_adam_tensor_v b = *a;
    b.sum = vkm_need(a->sum, 1, "adam_tensor_v", "sum");
    b.clip = vkm_need(a->clip, VKM_CLIP_WORDS, "adam_tensor_v", "clip");
    b.v = vkm_need(a->v, 1, "adam_tensor_v", "v");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_adam_tensor_v], &b, vkm_launch_flat(1, 1, 100));
}

void vkm_op_accumulate(vkm_stream *s, const vkm_args_accumulate *a) {
    vkm_args_accumulate b = *a;
    b.group = vkm_need(a->group, a->n, "accumulate", "group");
    b.total = vkm_need(a->total, a->n, "accumulate", "total");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_accumulate], &b,
                      vkm_launch_flat(a->n, 64, 20.0 * a->n));
}
#endif

/* Adds x (or x^2) of one block to the 64 lanes. */
VKM_IN_REF real sum_block(const real *x, uint64_t n, int squared) {
    real acc[64] = {0};
    for (uint64_t i = 0; i < n; i += 64) {
        uint32_t m = n - i < 64 ? (uint32_t)(n - i) : 64;
        for (uint32_t l = 0; l < m; l++) acc[l] += squared ? mulc(x[i + l], x[i + l]) : x[i + l];
    }
    return vkm_rule5_tree(acc);
}

VKM_REF(sumsq) {
    FOR_PART(b, vkm_n_sum_blocks(a->n)) {
        uint64_t first = b * VKM_SUM_BLOCK, left = a->n - first;
        ref_f32(a->y)[b] =
            canon(sum_block(ref_f32(a->x) + first, left < VKM_SUM_BLOCK ? left : VKM_SUM_BLOCK, 1));
    }
}

VKM_REF(sum5) {
    if (me.i == 0) ref_f32(a->y)[0] = canon(sum_block(ref_f32(a->x), a->n, 0));
}

VKM_REF(clip_coef) {
    if (me.i != 0) return;
    real total = 0, max = a->max_norm;
    for (uint32_t i = 0; i < a->n; i++) total = total + ref_f32(a->sums)[i];
    real norm = mulc(vkm_sqrt(total), a->inv_scale);
    int finite = (vkm_bits((float)norm) & 0x7f800000u) != 0x7f800000u;
    real *out = ref_f32(a->clip);
    out[VKM_CLIP_NORM] = norm;
    out[VKM_CLIP_FACTOR] = finite && max > 0 && norm > max ? vkm_div(max, norm) : 1;
    out[VKM_CLIP_FINITE] = finite;
}

VKM_REF(adamw) {
    real *restrict p = ref_f32(a->p), *restrict m = ref_f32(a->m), *restrict v = ref_f32(a->v);
    const real *restrict g = ref_f32(a->g);
    real lr = a->lr, b1 = a->b1, b2 = a->b2, clip = ref_f32(a->clip)[VKM_CLIP_FACTOR];
    real decay = mulc(lr, a->wd), a1 = (real)1 - b1, a2 = (real)1 - b2;
    enum { CHUNK = 64 }; /* loops without branches, side by side */
    FOR_PART(chunk, vkm_div_up(a->n, CHUNK)) {
        uint64_t first = chunk * CHUNK;
        uint32_t n = a->n - first < CHUNK ? (uint32_t)(a->n - first) : CHUNK;
        real gi[CHUNK], vi[CHUNK];
        for (uint32_t j = 0; j < n; j++) gi[j] = mulc(mulc(g[first + j], a->inv_scale), clip);
        for (uint32_t j = 0; j < n; j++) vi[j] = v[a->v_stride ? first + j : 0];
        if (a->v_stride)
            for (uint32_t j = 0; j < n; j++)
                v[first + j] = vi[j] = addc(mulc(b2, vi[j]), mulc(a2, mulc(gi[j], gi[j])));
        for (uint32_t j = 0; j < n; j++) {
            real mi = m[first + j] = addc(mulc(b1, m[first + j]), mulc(a1, gi[j]));
            real step = addc(vkm_sqrt(mulc(vi[j], a->bias2)), a->eps), pi = p[first + j];
            step = vkm_div(mulc(mi, a->bias1), step);
            p[first + j] = subc(subc(pi, mulc(decay, pi)), mulc(lr, step));
        }
    }
}

VKM_REF(adam_tensor_v) {
    if (me.i != 0) return;
    real *v = ref_f32(a->v), k = mulc(a->inv_scale, ref_f32(a->clip)[VKM_CLIP_FACTOR]);
    real mean = vkm_div(mulc(mulc(ref_f32(a->sum)[0], k), k), (real)(int32_t)a->n);
    v[0] = addc(mulc(a->b2, v[0]), mulc((real)1 - (real)a->b2, mean));
}

VKM_REF(accumulate) {
    FOR_PART(i, a->n) {
        ref_f32(a->total)[i] = addc(ref_f32(a->total)[i], ref_f32(a->group)[i]);
        ref_f32(a->group)[i] = 0;
    }
}
