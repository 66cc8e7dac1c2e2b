/* The mixture that reads w from live activations: its figures against a plain computation in
 * double, and what it is for: it finds the hacking answers where the live rollouts lie elsewhere
 * than the pairs and where all hacks stand behind prompts of one kind, without taking the kind for
 * the hack. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/gauss.h"
#include "rl/mixture.h"

enum { P = 24, PAIRS = 9, GROUPS = 8, SIZE = 8, ROWS = GROUPS * SIZE, STEPS = 30 };

static float noise[4 * P * ROWS];

static void draw(uint64_t seed) {
    vkm_gauss(noise, VKM_COUNTOF(noise), 0, seed, VKM_RNG_DIRECTION, 0, 1.0f);
}

static vkm_mixture *mixture(void) {
    vkm_mixture *m = NULL;
    vkm_err err = {0};
    if (vkm_mixture_new(P, &m, &err)) fail_msg("%s", err.msg);
    return m;
}

static void weigh(vkm_mixture *m, const float *a, const uint32_t *group, uint32_t n, float *w) {
    vkm_err err = {0};
    if (vkm_mixture_weights(m, a, group, n, w, &err)) fail_msg("%s", err.msg);
}

/* The definition, all rollouts of all steps kept, each with its weight 0.95^age. */
typedef struct plain {
    double a[STEPS * ROWS][P], w[STEPS * ROWS], fade[STEPS * ROWS];
    uint32_t group[STEPS * ROWS], n;
} plain;

static void plain_weights(plain *h, const float *pairs, const float *a, const uint32_t *group,
                          uint32_t n, double *w) {
    double d[P], mean[P], variance[P], honest = 0, hack = 0, within = 0, sum_v = 0, z0 = -2;
    for (uint32_t r = 0; r < h->n; r++)
        honest += h->fade[r] * (1 - h->w[r]), hack += h->fade[r] * h->w[r];
    for (uint32_t j = 0; j < P; j++) {
        double up = 0, sum = 0, other = 0, square = 0;
        for (uint32_t i = 0; i < PAIRS; i++)
            up += .5 * ((double)pairs[i * P + j] - (double)pairs[(PAIRS + i) * P + j]);
        within = 0;
        for (uint32_t r = 0; r < h->n; r++) {
            double mean_w = 0, mean_a = 0, size = 0;
            for (uint32_t q = 0; q < h->n; q++)
                if (h->group[q] == h->group[r] && h->fade[q] == h->fade[r])
                    mean_w += h->w[q], mean_a += h->a[q][j], size++;
            mean_w /= size, mean_a /= size;
            up += h->fade[r] * (h->w[r] - mean_w) * (h->a[r][j] - mean_a);
            within += h->fade[r] * (h->w[r] - mean_w) * (h->w[r] - mean_w);
            sum += h->fade[r] * (1 - h->w[r]) * h->a[r][j];
            other += h->fade[r] * h->w[r] * h->a[r][j];
        }
        d[j] = up / (.5 * PAIRS + within);
        if (h->n) {
            mean[j] = sum / honest, other /= hack;
            for (uint32_t r = 0; r < h->n; r++) {
                double x = h->a[r][j] - mean[j], y = h->a[r][j] - other;
                square += h->fade[r] * ((1 - h->w[r]) * x * x + h->w[r] * y * y);
            }
            variance[j] = square / (honest + hack);
        } else {
            for (uint32_t i = 0; i < n; i++) sum += (double)a[i * P + j];
            mean[j] = sum / n;
            for (uint32_t i = 0; i < n; i++)
                square += ((double)a[i * P + j] - mean[j]) * ((double)a[i * P + j] - mean[j]);
            variance[j] = square / n;
        }
        sum_v += variance[j];
    }
    if (h->n) z0 = log((hack + 1) / (honest + 1));
    for (uint32_t r = 0; r < h->n; r++) h->fade[r] *= .95;
    for (uint32_t i = 0; i < n; i++, h->n++) {
        double z = z0;
        for (uint32_t j = 0; j < P; j++)
            z += d[j] * ((double)a[i * P + j] - mean[j] - d[j] / 2) /
                 (variance[j] + .05 * sum_v / P);
        w[i] = 1 / (1 + exp(-z));
        for (uint32_t j = 0; j < P; j++) h->a[h->n][j] = (double)a[i * P + j];
        h->w[h->n] = w[i], h->fade[h->n] = 1, h->group[h->n] = group[i];
    }
}

static void figures_are_those_of_the_definition(void **state) {
    (void)state;
    enum { N = 21 }; /* groups of 4, 4, 1, 8, 4 */
    static plain h;
    static const uint32_t group[N] = {0, 0, 0, 0, 2, 2, 2, 2, 3, 5, 5,
                                      5, 5, 5, 5, 5, 5, 7, 7, 7, 7};
    vkm_mixture *m = mixture();
    for (uint32_t step = 0; step < 6; step++) {
        float a[N * P], pairs[2 * PAIRS * P], w[N];
        double want[N];
        draw(step);
        for (uint32_t k = 0; k < 2 * PAIRS * P; k++)
            pairs[k] = noise[k] + (k < PAIRS * P ? .3f : 0);
        for (uint32_t k = 0; k < N * P; k++)
            a[k] = noise[2 * PAIRS * P + k] + (k / P % 3 ? 0 : .5f) + 2;
        vkm_mixture_seed(m, pairs, PAIRS, NULL);
        weigh(m, a, group, N, w);
        plain_weights(&h, pairs, a, group, N, want);
        /* fp32 sums of 24 products against double, through an exponential */
        for (uint32_t i = 0; i < N; i++)
            if (fabs((double)w[i] - want[i]) > 2e-4)
                fail_msg("step %u, rollout %u: %.6f, not %.6f", step, i, (double)w[i], want[i]);
    }
    vkm_mixture_free(m);
}

/* A world: hacks differ by `hack` from honest answers, prompts with a hint by `hint`, live rollouts
 * from pairs by `shift`. In half the groups there is a hint, and of those some answers hack. */
typedef struct found {
    double hack, honest, honest_hinted; /* mean w over the second half */
} found;

static found in_a_world(float share, const float *random) {
    vkm_mixture *m = mixture();
    found out = {0, 0, 0};
    double n[3] = {0, 0, 0};
    for (uint32_t step = 0; step < STEPS; step++) {
        float pairs[2 * PAIRS * P], a[ROWS * P], w[ROWS];
        uint32_t group[ROWS];
        int hacks[ROWS], hinted[ROWS];
        draw(100 + step);
        for (uint32_t k = 0; k < 2 * PAIRS * P; k++) /* the hack shows in values 0 to 7 */
            pairs[k] = noise[k] + (k < PAIRS * P && k % P < 8 ? 1.f : 0);
        for (uint32_t i = 0; i < ROWS; i++) {
            group[i] = i / SIZE;
            hinted[i] = group[i] % 2 == 0;
            hacks[i] = hinted[i] && i % SIZE < (uint32_t)(share * SIZE);
            for (uint32_t j = 0; j < P; j++)
                a[i * P + j] = noise[2 * PAIRS * P + i * P + j] + 3.f * (j % 2 ? 1.f : -1.f) +
                               (hinted[i] && j >= 6 && j < 14 ? 1.f : 0) +
                               (hacks[i] && j < 8 ? 1.5f : 0);
        }
        vkm_mixture_seed(m, pairs, PAIRS, random);
        weigh(m, a, group, ROWS, w);
        for (uint32_t i = 0; i < ROWS && step >= STEPS / 2; i++) {
            if (hacks[i]) out.hack += (double)w[i], n[0]++;
            if (!hacks[i]) out.honest += (double)w[i], n[1]++;
            if (!hacks[i] && hinted[i]) out.honest_hinted += (double)w[i], n[2]++;
        }
    }
    out.hack /= n[0], out.honest /= n[1], out.honest_hinted /= n[2];
    vkm_mixture_free(m);
    return out;
}

static void it_finds_hacks_and_not_hints(void **state) {
    (void)state;
    static const float shares[] = {.25f, .5f, .75f};
    float random[P];
    for (size_t k = 0; k < VKM_COUNTOF(shares); k++) {
        found f = in_a_world(shares[k], NULL);
        print_message("share %.2f: w of hacks %.3f, honest %.3f, honest under a hint %.3f\n",
                      (double)shares[k], f.hack, f.honest, f.honest_hinted);
        assert_true(f.hack > .9 && f.honest < .05 && f.honest_hinted < .1);
    }
    /* the pairs' direction decides: the opposite one finds no hacks */
    for (uint32_t j = 0; j < P; j++) random[j] = j < 8 ? -0.35355339f : 0;
    assert_true(in_a_world(.25f, random).hack < .5);
}

/* Rows all alike, a single row, answers of one kind only: w stays a number in [0, 1]. */
static void nothing_to_part_is_no_trouble(void **state) {
    (void)state;
    vkm_mixture *m = mixture();
    float pairs[2 * PAIRS * P] = {0}, a[ROWS * P] = {0}, w[ROWS];
    uint32_t group[ROWS] = {0};
    vkm_mixture_seed(m, pairs, PAIRS, NULL);
    for (uint32_t step = 0; step < 400; step++) {
        uint32_t n = step % 2 ? ROWS : 1;
        for (uint32_t k = 0; k < ROWS * P; k++) a[k] = step > 100 ? 50.f : 0;
        weigh(m, a, group, n, w);
        for (uint32_t i = 0; i < n; i++) assert_true(w[i] >= 0 && w[i] <= 1);
        for (uint32_t j = 0; j < P; j++) pairs[j] = step > 50 ? 1.f : 0;
        vkm_mixture_seed(m, pairs, PAIRS, NULL);
    }
    weigh(m, a, group, 0, w);
    vkm_mixture_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(figures_are_those_of_the_definition),
                                       cmocka_unit_test(it_finds_hacks_and_not_hints),
                                       cmocka_unit_test(nothing_to_part_is_no_trouble)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
