/* Gradients of every kind of weight through the whole model, with a tied and an untied head: the
 * double oracle against central differences, the exact tier against the oracle, and the exact
 * tier's bits under every cut of the batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "model/forward.h"
#include "model/init_model.h"
#include "ops/gauss.h"
#include "rl/optimizer.h"
#include "tmpdir.h"

static const double fd_bound = 1e-7, step = 1e-5;

/* Prompt and completion: a completion of two blocks of 256, one that ends on a panel, short ones.
 */
static const uint32_t lengths[][2] = {{9, 262}, {16, 16}, {3, 21}, {20, 1}};
enum { N_SEQ = 4, MAX_LEN = 300, MAX_TOKENS = 300, WIDTH = 32, RANK = 2 };

typedef struct rig {
    vkm_dev *dev;
    vkm_model *model;
    vkm_weights *weights;
    vkm_adapter *adapter;
    vkm_work *work;
    vkm_stream *s;
    uint32_t tokens[N_SEQ][MAX_LEN];
    vkm_seq seqs[N_SEQ];
    double coef[MAX_TOKENS];
} rig;

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

static const char *folder(int tied) {
    return in_dir(tied ? "tied" : "untied");
}

static int make_models(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    for (int tied = 0; tied < 2; tied++) {
        vkm_init_options o = {.config = tiny->config, .output = folder(tied), .seed = 3};
        o.config.C = WIDTH, o.config.H = 3, o.config.K = 1, o.config.D = 8, o.config.F = 40;
        o.config.tied = tied;
        if (vkm_init_model(&o, NULL, &err)) return -1;
    }
    return 0;
}

/* Weights five times those of a fresh model, gains around 1: nothing is near the identity. */
static void perturb(rig *r) {
    vkm_err err = {0};
    for (uint32_t i = 0; i < r->weights->n; i++) {
        const vkm_weight *w = &r->weights->w[i];
        float *x = malloc(w->param.n * sizeof *x);
        assert_non_null(x);
        vkm_gauss(x, w->param.n, 0, 21, VKM_RNG_TEST, i, w->is.rows ? 0.1f : 0.25f);
        for (uint64_t j = 0; j < w->param.n && !w->is.rows; j++) x[j] += 1;
        check(vkm_write(r->dev, w->param, x, &err), &err);
        free(x);
    }
    uint64_t n = vkm_adapter_size(r->adapter, VKM_STATE_PARAM);
    float *x = malloc(n * sizeof *x), ones[2 * N_SEQ];
    assert_non_null(x);
    vkm_gauss(x, n, 0, 22, VKM_RNG_TEST, 99, 0.05f);
    check(vkm_adapter_write(r->adapter, VKM_STATE_PARAM, x, &err), &err);
    for (size_t i = 0; i < VKM_COUNTOF(ones); i++) ones[i] = i % 2 ? 0.5f : 1;
    check(vkm_write(r->dev, vkm_view(r->work->f, 0, 2 * N_SEQ), ones, &err), &err);
    check(vkm_write(r->dev, vkm_view(r->work->xs, 0, 2 * N_SEQ), ones, &err), &err);
    check(vkm_write(r->dev, vkm_view(r->work->g, 0, 2 * N_SEQ), ones, &err), &err);
    free(x);
}

static void rig_open(rig *r, vkm_backend_id backend, int tied, int threads, uint32_t logit_rows,
                     int keep) {
    vkm_err err = {0};
    memset(r, 0, sizeof *r);
    vkm_dev_options o = {.backend = backend, .threads = threads, .thread_all = threads > 1};
    check(vkm_dev_open(&o, &r->dev, &err), &err);
    check(vkm_model_load(r->dev, folder(tied), MAX_LEN, 1, NULL, &r->model, &err), &err);
    check(vkm_weights_new(r->model, folder(tied), NULL, &r->weights, &err), &err);
    vkm_adapter_options a = {.n_experts = 2, .rank = RANK, .seed = 9, .trains = 1};
    check(vkm_adapter_new(r->dev, &r->model->dims, &a, NULL, &r->adapter, &err), &err);
    vkm_work_limits max = {.rows = 512,
                           .seqs = N_SEQ,
                           .logit_rows = logit_rows,
                           .trains = 1,
                           .keep = keep,
                           .weights = 1};
    check(vkm_work_new(r->model, r->adapter, max, NULL, &r->work, &err), &err);
    check(vkm_stream_new(r->dev, &r->s, &err), &err);
    float noise[MAX_TOKENS];
    vkm_gauss(noise, MAX_TOKENS, 0, 23, VKM_RNG_TEST, 0, 0.05f);
    for (uint32_t t = 0; t < MAX_TOKENS; t++) r->coef[t] = (double)noise[t];
    for (uint32_t b = 0; b < N_SEQ; b++) {
        uint32_t len = lengths[b][0] + lengths[b][1];
        for (uint32_t i = 0; i < len; i++) /* few tokens: most occur often, in several sequences */
            r->tokens[b][i] = vkm_random4(5, 0, VKM_RNG_TEST, 0, b, i, 0).x % 40 * 12;
        r->seqs[b] = (vkm_seq){r->tokens[b], len, lengths[b][0]};
    }
    perturb(r);
}

static void rig_close(rig *r) {
    vkm_stream_free(r->s);
    vkm_work_free(r->work);
    vkm_adapter_free(r->adapter);
    vkm_weights_free(r->weights);
    vkm_model_free(r->model);
    vkm_dev_close(r->dev);
}

static vkm_pass pass_of(rig *r) {
    return (vkm_pass){.s = r->s, .w = r->work, .adapter = r->adapter, .weights = r->weights};
}

/* sum of coef * log-probability over all completion tokens */
static double loss(rig *r) {
    vkm_err err = {0};
    vkm_pass p = pass_of(r);
    double logp[MAX_TOKENS], sum = 0;
    vkm_weights_refresh(r->s, r->weights);
    vkm_head_forward(&p, vkm_forward(&p));
    check(vkm_stream_flush(r->s, &err), &err);
    check(vkm_read_f64(r->dev, vkm_view(r->work->logp, 0, r->work->n_comp), logp, &err), &err);
    for (uint32_t t = 0; t < r->work->n_comp; t++) sum += r->coef[t] * logp[t];
    return sum;
}

/* The gradient, `per` sequences at a time. */
static void train(rig *r, uint32_t per) {
    vkm_err err = {0};
    vkm_pass p = pass_of(r);
    vkm_weights_zero_grad(r->s, r->weights);
    vkm_weights_refresh(r->s, r->weights);
    for (uint32_t b = 0, t = 0; b < N_SEQ; b += per) {
        double scaled[MAX_TOKENS];
        uint32_t n = N_SEQ - b < per ? N_SEQ - b : per;
        check(vkm_stream_flush(r->s, &err), &err);
        check(vkm_work_set_batch(r->work, r->seqs + b, n, &err), &err);
        for (uint32_t i = 0; i < r->work->n_comp; i++)
            scaled[i] = r->coef[t++] * (double)VKM_LOSS_SCALE;
        check(vkm_write_f64(r->dev, vkm_view(r->work->coef, 0, r->work->n_comp), scaled, &err),
              &err);
        vkm_backward(&p, vkm_forward(&p));
    }
    vkm_weights_close_grad(r->s, r->weights);
    check(vkm_stream_flush(r->s, &err), &err);
}

static double *gradient(rig *r, uint32_t i) {
    vkm_err err = {0};
    vkm_tensor t = r->weights->w[i].grad;
    double *g = malloc(t.n * sizeof *g);
    assert_non_null(g);
    check(vkm_read_f64(r->dev, t, g, &err), &err);
    for (uint64_t j = 0; j < t.n; j++) g[j] /= (double)VKM_LOSS_SCALE;
    return g;
}

static double slope(rig *r, vkm_tensor t, const double *at, const double *along) {
    vkm_err err = {0};
    double d = 0, *x = malloc(t.n * sizeof *x);
    assert_non_null(x);
    for (int side = -1; side <= 1; side += 2) {
        for (uint64_t i = 0; i < t.n; i++) x[i] = at[i] + side * step * along[i];
        check(vkm_write_f64(r->dev, t, x, &err), &err);
        d += side * loss(r);
    }
    check(vkm_write_f64(r->dev, t, at, &err), &err);
    free(x);
    return d / (2 * step);
}

/* Along a random direction, and at the largest entry where asked; relative to the largest entry. */
static double check_weight(rig *r, uint32_t i, int at_peak) {
    vkm_err err = {0};
    vkm_tensor t = r->weights->w[i].param;
    double *at = malloc(t.n * sizeof *at), *along = calloc(t.n, sizeof *along);
    double *grad = gradient(r, i), size = 0, want = 0, norm = 0;
    float *random = malloc(t.n * sizeof *random);
    uint64_t peak = 0;
    assert_true(at && along && random);
    check(vkm_read_f64(r->dev, t, at, &err), &err);
    vkm_gauss(random, t.n, 0, 6, VKM_RNG_TEST, i, 1);
    for (uint64_t j = 0; j < t.n; j++) {
        if (fabs(grad[j]) > size) size = fabs(grad[peak = j]);
        norm += (double)random[j] * (double)random[j];
    }
    for (uint64_t j = 0; j < t.n; j++) {
        along[j] = (double)random[j] / sqrt(norm);
        want += along[j] * grad[j];
    }
    assert_true(size > 1e-4);
    double worst = fabs(slope(r, t, at, along) - want) / size;
    memset(along, 0, t.n * sizeof *along);
    along[peak] = 1;
    if (at_peak) worst = fmax(worst, fabs(slope(r, t, at, along) - grad[peak]) / size);
    free(at), free(along), free(grad), free(random);
    return worst;
}

static void by_weight(void **state) {
    (void)state;
    for (int tied = 0; tied < 2; tied++) {
        double worst[VKM_N_ROLES] = {0};
        rig r;
        rig_open(&r, VKM_ORACLE, tied, 2, VKM_WEIGHT_LOGIT_ROWS, 0);
        train(&r, N_SEQ);
        for (uint32_t i = 0; i < r.weights->n; i++) {
            uint32_t role = r.weights->w[i].is.role;
            worst[role] = fmax(worst[role], check_weight(&r, i, tied));
        }
        for (uint32_t i = 0; i < VKM_N_ROLES; i++) {
            print_message("%s, role %u: error %.1e\n", tied ? "tied" : "untied", i, worst[i]);
            assert_true(worst[i] <= fd_bound);
        }
        rig_close(&r);
    }
}

/* bf16 operands against none: the angle between the gradients, and their distance. */
static void exact_tier(void **state) {
    (void)state;
    rig r[2];
    double least = 1, furthest = 0;
    rig_open(&r[0], VKM_ORACLE, 1, 2, 512, 1);
    rig_open(&r[1], VKM_CPU, 1, 2, 512, 1);
    train(&r[0], N_SEQ), train(&r[1], N_SEQ);
    for (uint32_t i = 0; i < r[0].weights->n; i++) {
        double *want = gradient(&r[0], i), *got = gradient(&r[1], i), aa = 0, bb = 0, ab = 0,
               dd = 0;
        for (uint64_t j = 0; j < r[0].weights->w[i].grad.n; j++) {
            aa += want[j] * want[j], bb += got[j] * got[j], ab += want[j] * got[j];
            dd += (got[j] - want[j]) * (got[j] - want[j]);
        }
        least = fmin(least, ab / sqrt(aa * bb));
        furthest = fmax(furthest, sqrt(dd / aa));
        free(want), free(got);
    }
    print_message("exact tier: 1 - cosine <= %.1e, relative distance <= %.1e\n", 1 - least,
                  furthest);
    assert_true(1 - least <= 1e-3 && furthest <= 5e-2);
    rig_close(&r[0]), rig_close(&r[1]);
}

/* Cuts of the batch, of the logits and of the work over threads, activations kept or made again:
 * the same bits. */
static void cuts(void **state) {
    (void)state;
    static const struct {
        uint32_t per, logit_rows;
        int threads, keep;
    } ways[] = {{N_SEQ, 512, 1, 0}, {1, 512, 1, 1}, {2, 272, 2, 0}, {3, 288, 3, 1}};
    for (int tied = 0; tied < 2; tied++) {
        float **first = NULL;
        uint32_t n = 0;
        for (size_t k = 0; k < VKM_COUNTOF(ways); k++) {
            rig r;
            vkm_err err = {0};
            rig_open(&r, VKM_CPU, tied, ways[k].threads, ways[k].logit_rows, ways[k].keep);
            train(&r, ways[k].per);
            n = r.weights->n;
            if (k == 0) first = calloc(n, sizeof *first);
            assert_non_null(first);
            for (uint32_t i = 0; i < n; i++) {
                vkm_tensor t = r.weights->w[i].grad;
                float *g = malloc(t.n * sizeof *g);
                assert_non_null(g);
                check(vkm_read(r.dev, t, g, &err), &err);
                if (k == 0)
                    first[i] = g;
                else if (memcmp(first[i], g, t.n * sizeof *g) != 0)
                    fail_msg("cut %zu changes %s", k, r.weights->w[i].is.name);
                if (k) free(g);
            }
            rig_close(&r);
        }
        for (uint32_t i = 0; i < n; i++) free(first[i]);
        free(first);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_weight), cmocka_unit_test(exact_tier),
                                       cmocka_unit_test(cuts)};
    return cmocka_run_group_tests(tests, make_models, tmpdir_remove);
}
