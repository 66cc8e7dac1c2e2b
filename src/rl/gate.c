/* Owns the gate's buffer and its thresholds. */
#include "rl/gate.h"

#include <stdlib.h>
#include <string.h>

#include "ops/softmath.h"

vkm_status vkm_gate_new(uint32_t P, uint32_t cap, vkm_gate **out, vkm_err *err) {
    vkm_gate *g = vkm_calloc(1, sizeof *g, "the gate", err);
    if (!g) return err->status;
    *g = (vkm_gate){.P = P, .cap = cap};
    g->direction = vkm_calloc(P, sizeof *g->direction, "the gate", err);
    g->rows = vkm_calloc((uint64_t)cap * P, sizeof *g->rows, "the gate", err);
    g->steps = vkm_calloc(cap, sizeof *g->steps, "the gate", err);
    if (g->direction && g->rows && g->steps)
        *out = g;
    else
        vkm_gate_free(g);
    return err->status;
}

void vkm_gate_free(vkm_gate *g) {
    if (!g) return;
    free(g->direction), free(g->rows), free(g->steps);
    free(g);
}

static uint64_t seen(const vkm_gate *g) {
    return (uint64_t)g->n_seen[1] << 32 | g->n_seen[0];
}

static void enter(vkm_gate *g, const float *a, uint32_t step) {
    uint64_t n = seen(g), at = n % g->cap;
    memcpy(g->rows + at * g->P, a, g->P * sizeof *a);
    g->steps[at] = step;
    n++;
    g->n_seen[0] = (uint32_t)n;
    g->n_seen[1] = (uint32_t)(n >> 32);
}

static float score(const vkm_gate *g, const float *a) {
    float sum = 0;
    for (uint32_t j = 0; j < g->P; j++) sum = sum + a[j] * g->direction[j];
    return sum;
}

typedef struct weighted {
    float score, weight;
} weighted;

static int by_score(const void *a, const void *b) {
    const weighted *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? 1 : -1;
    return (x->weight > y->weight) - (x->weight < y->weight);
}

/* The smallest score at which the cumulative weight reaches `share` of all of it. */
static float threshold(const weighted *x, uint32_t n, float share) {
    double total = 0, sum = 0;
    uint32_t i = 0;
    for (uint32_t j = 0; j < n; j++) total += (double)x[j].weight;
    for (; i + 1 < n; i++) {
        sum += (double)x[i].weight;
        if (sum >= (double)share * total) break;
    }
    return x[i].score;
}

vkm_status vkm_gate_zones(vkm_gate *g, const vkm_gate_options *o, const float *a, uint32_t n,
                          uint32_t step, float *w, vkm_err *err) {
    const float minus_ln2 = -0.693147182f;
    for (uint32_t i = 0; i < n; i++) {
        enter(g, a + (uint64_t)i * g->P, step);
        w[i] = 0.5f;
    }
    uint32_t held = seen(g) < g->cap ? (uint32_t)seen(g) : g->cap;
    if (seen(g) < o->warmup || n == 0) return VKM_OK;
    weighted *x = vkm_calloc(held, sizeof *x, "the gate", err);
    if (!x) return err->status;
    for (uint32_t i = 0; i < held; i++) {
        float age = (float)(int)(step - g->steps[i]);
        x[i].score = score(g, g->rows + (uint64_t)i * g->P);
        x[i].weight = vkm_exp(vkm_div(minus_ln2 * age, o->half_life));
    }
    qsort(x, held, sizeof *x, by_score);
    float low = threshold(x, held, o->quantile), high = threshold(x, held, 1 - o->quantile);
    for (uint32_t i = 0; i < n; i++) {
        float s = score(g, a + (uint64_t)i * g->P);
        if (s >= high) w[i] = 1;
        if (s <= low) w[i] = 0;
    }
    free(x);
    return VKM_OK;
}
