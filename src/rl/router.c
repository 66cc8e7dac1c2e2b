/* Owns the router's state on the device, its calibration and its gradients. */
#include "rl/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops/gauss.h"
#include "ops/router.h"
#include "ops/softmath.h"
#include "rl/optimizer.h"

vkm_status vkm_router_new(vkm_dev *dev, uint32_t n_modules, uint32_t rank, uint32_t n_pairs,
                          uint32_t max_rows, int linear, vkm_plan *dry, vkm_router **out,
                          vkm_err *err) {
    vkm_router *r = vkm_calloc(1, sizeof *r, "the router", err);
    if (!r) return err->status;
    *r = (vkm_router){.dev = dev,
                      .n_modules = n_modules,
                      .rank = rank,
                      .P = n_modules * rank,
                      .n_pairs = n_pairs,
                      .max_rows = max_rows,
                      .linear = linear};
    uint64_t rows = max_rows > 2 * n_pairs ? max_rows : 2 * n_pairs;
    const struct {
        vkm_tensor *t;
        uint64_t n;
    } want[] = {{&r->mu, r->P},
                {&r->u, r->P},
                {&r->cal, VKM_CAL_WORDS},
                {&r->du, r->P},
                {&r->db, 1},
                {&r->adam[0], r->P},
                {&r->adam[1], r->P},
                {&r->adam[2], 1},
                {&r->adam[3], 1},
                {&r->pairs, 2ull * n_pairs * r->P},
                {&r->rows, (uint64_t)max_rows * r->P},
                {&r->s, rows},
                {&r->z, rows},
                {&r->w, rows},
                {&r->dw, rows},
                {&r->dz, rows},
                {&r->inv, 2 * rows},
                {&r->loss, 1}};
    r->seed_u = vkm_calloc(r->P, sizeof *r->seed_u, "the router", err);
    if (!r->seed_u) goto fail;
    vkm_plan *p = dry ? dry : vkm_plan_new(dev);
    for (size_t i = 0; i < VKM_COUNTOF(want); i++)
        vkm_plan_add(p, want[i].t, VKM_F32, want[i].n, "router");
    if (!dry && vkm_plan_commit(p, &r->mem, err)) goto fail;
    *out = r;
    return VKM_OK;
fail:
    vkm_router_free(r);
    return err->status;
}

void vkm_router_free(vkm_router *r) {
    if (!r) return;
    vkm_mem_free(r->mem);
    free(r->seed_u);
    free(r);
}

/* ---- directions ---------------------------------------------------------------------------------
 */

static float sum_of_squares(const float *v, uint32_t n) {
    float ss = 0;
    for (uint32_t i = 0; i < n; i++) ss = ss + v[i] * v[i];
    return ss;
}

static void scale(float *v, uint32_t n, float by) {
    for (uint32_t i = 0; i < n; i++) v[i] = vkm_canon(v[i] * by);
}

static void unit(float *v, uint32_t n) {
    float ss = sum_of_squares(v, n);
    if (ss > 0) scale(v, n, vkm_div(1.0f, vkm_sqrt(ss)));
}

static void normalise(float *v, uint32_t n_modules, uint32_t rank, int global_norm) {
    if (!global_norm)
        for (uint32_t m = 0; m < n_modules; m++) unit(v + (uint64_t)m * rank, rank);
    unit(v, n_modules * rank); /* of unit rows: 1/sqrt(M) each */
}

void vkm_direction_from_pairs(const float *a, uint32_t n_pairs, uint32_t n_modules, uint32_t rank,
                              int global_norm, float *v) {
    uint64_t p = (uint64_t)n_modules * rank;
    for (uint64_t j = 0; j < p; j++) {
        float sum = 0;
        for (uint32_t i = 0; i < n_pairs; i++)
            sum = sum + (a[i * p + j] - a[(n_pairs + i) * p + j]);
        v[j] = vkm_div(sum, (float)(int)n_pairs);
    }
    normalise(v, n_modules, rank, global_norm);
}

void vkm_direction_haar(uint64_t seed, uint32_t n_modules, uint32_t rank, int global_norm,
                        float *v) {
    vkm_gauss(v, (uint64_t)n_modules * rank, 0, seed, VKM_RNG_DIRECTION, 0, 1.0f);
    normalise(v, n_modules, rank, global_norm);
}

/* ---- forward
 * -------------------------------------------------------------------------------------
 */

static void record_forward(vkm_router *r, vkm_stream *s, vkm_tensor a, uint32_t n) {
    VKM_OP(s, router_fwd, .a = a, .mu = r->mu, .u = r->u, .cal = r->cal, .s = r->s, .z = r->z,
           .w = r->w, .inv = r->inv, .n_rows = n, .n_cols = r->P, .linear = r->linear != 0);
}

static vkm_status forward(vkm_router *r, vkm_tensor a, uint32_t n, vkm_tensor what, float *out,
                          vkm_err *err) {
    vkm_stream *s;
    if (vkm_stream_new(r->dev, &s, err)) return err->status;
    record_forward(r, s, a, n);
    if (!vkm_stream_flush(s, err)) (void)!vkm_read(r->dev, vkm_view(what, 0, n), out, err);
    vkm_stream_free(s);
    return err->status;
}

vkm_status vkm_router_refresh(vkm_router *r, const float *pairs, vkm_err *err) {
    return vkm_write(r->dev, r->pairs, pairs, err);
}

static float mean(const float *x, uint32_t n) {
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) sum = sum + x[i];
    return vkm_div(sum, (float)(int)n);
}

vkm_status vkm_router_calibrate(vkm_router *r, const float *pairs, const float *v,
                                float calib_logit, vkm_err *err) {
    const float plain[2] = {0, 1};
    uint32_t n = 2 * r->n_pairs;
    float *mu = vkm_calloc(r->P, sizeof *mu, "the router", err);
    float *s = vkm_calloc(n, sizeof *s, "the router", err);
    if (!mu || !s) goto done;
    for (uint32_t j = 0; j < r->P; j++) {
        float sum = 0;
        for (uint32_t i = 0; i < n; i++) sum = sum + pairs[(uint64_t)i * r->P + j];
        mu[j] = vkm_div(sum, (float)(int)n);
    }
    memcpy(r->seed_u, v, r->P * sizeof *v);
    if (vkm_write(r->dev, r->mu, mu, err) || vkm_write(r->dev, r->u, v, err) ||
        vkm_write(r->dev, r->cal, plain, err) || vkm_router_refresh(r, pairs, err) ||
        forward(r, r->pairs, n, r->s, s, err))
        goto done;
    float hack = mean(s, r->n_pairs), clean = mean(s + r->n_pairs, r->n_pairs);
    float gap = hack > clean ? hack - clean : clean - hack;
    float cal[2] = {0.5f * (hack + clean), vkm_div(2 * calib_logit, gap > 0.2f ? gap : 0.2f)};
    (void)!vkm_write(r->dev, r->cal, cal, err);
done:
    free(mu);
    free(s);
    return err->status;
}

vkm_status vkm_router_weights(vkm_router *r, const float *a, uint32_t n, float *w, vkm_err *err) {
    VKM_BUG_ON(n > r->max_rows, "%u rollouts, the router has room for %u", n, r->max_rows);
    vkm_tensor rows = vkm_view(r->rows, 0, (uint64_t)n * r->P);
    if (vkm_write(r->dev, rows, a, err)) return err->status;
    return forward(r, rows, n, r->w, w, err);
}

vkm_status vkm_router_pair_weights(vkm_router *r, float *w, vkm_err *err) {
    return forward(r, r->pairs, 2 * r->n_pairs, r->w, w, err);
}

/* ---- backward
 * ------------------------------------------------------------------------------------
 */

static void record_backward(vkm_router *r, vkm_stream *s, vkm_tensor a, uint32_t n) {
    VKM_OP(s, router_bwd, .a = a, .mu = r->mu, .u = r->u, .cal = r->cal, .s = r->s, .inv = r->inv,
           .dz = r->dz, .du = r->du, .db = r->db, .n_rows = n, .n_cols = r->P,
           .linear = r->linear != 0);
}

vkm_status vkm_router_backward(vkm_router *r, const float *dw, uint32_t n, float pin_coef,
                               float *pin_loss, vkm_err *err) {
    vkm_stream *s;
    if (vkm_stream_new(r->dev, &s, err)) return err->status;
    VKM_OP(s, zero, .y = r->du, .n = r->P);
    VKM_OP(s, zero, .y = r->db, .n = 1);
    if (dw && n) {
        if (vkm_write(r->dev, vkm_view(r->dw, 0, n), dw, err)) goto done;
        record_forward(r, s, r->rows, n);
        VKM_OP(s, router_dz, .w = r->w, .dw = r->dw, .dz = r->dz, .n = n);
        record_backward(r, s, r->rows, n);
    }
    record_forward(r, s, r->pairs, 2 * r->n_pairs);
    VKM_OP(s, pin_loss, .z = r->z, .w = r->w, .loss = r->loss, .dz = r->dz, .n_pairs = r->n_pairs,
           .coef = pin_coef, .scale = VKM_LOSS_SCALE);
    record_backward(r, s, r->pairs, 2 * r->n_pairs);
    if (!vkm_stream_flush(s, err)) (void)!vkm_read(r->dev, r->loss, pin_loss, err);
done:
    vkm_stream_free(s);
    return err->status;
}

/* ---- state
 * ---------------------------------------------------------------------------------------
 */

vkm_status vkm_router_seed_cosine(const vkm_router *r, double *out, vkm_err *err) {
    float *u = vkm_calloc(r->P, sizeof *u, "the router", err);
    double dot = 0, uu = 0, ss = 0;
    if (!u) return err->status;
    if (!vkm_read(r->dev, r->u, u, err))
        for (uint32_t i = 0; i < r->P; i++) {
            dot += (double)u[i] * (double)r->seed_u[i];
            uu += (double)u[i] * (double)u[i];
            ss += (double)r->seed_u[i] * (double)r->seed_u[i];
        }
    *out = dot / sqrt(uu * ss);
    free(u);
    return err->status;
}

void vkm_router_trainables(const vkm_router *r, vkm_trainable *out) {
    out[0] = (vkm_trainable){r->u, r->du, r->adam[0], r->adam[1]};
    out[1] = (vkm_trainable){vkm_view(r->cal, VKM_CAL_B, 1), r->db, r->adam[2], r->adam[3]};
}

uint64_t vkm_router_state_size(const vkm_router *r) {
    return 3ull * r->P + 2 + r->pairs.n;
}

vkm_status vkm_router_read(const vkm_router *r, float *out, vkm_err *err) {
    if (vkm_read(r->dev, r->u, out, err) || vkm_read(r->dev, r->cal, out + r->P, err) ||
        vkm_read(r->dev, r->mu, out + r->P + 2, err))
        return err->status;
    memcpy(out + 2 * r->P + 2, r->seed_u, r->P * sizeof *out);
    return vkm_read(r->dev, r->pairs, out + 3 * r->P + 2, err);
}

vkm_status vkm_router_write(vkm_router *r, const float *in, vkm_err *err) {
    memcpy(r->seed_u, in + 2 * r->P + 2, r->P * sizeof *in);
    if (vkm_write(r->dev, r->u, in, err) || vkm_write(r->dev, r->cal, in + r->P, err))
        return err->status;
    if (vkm_write(r->dev, r->mu, in + r->P + 2, err)) return err->status;
    return vkm_write(r->dev, r->pairs, in + 3 * r->P + 2, err);
}
