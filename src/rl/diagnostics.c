/* Owns the figures that say what routing did. */
#include "rl/diagnostics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/stats.h"

static double mean(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    return n ? sum / (double)n : NAN;
}

/* Which rollouts a figure is about, and what it tells apart. */
typedef struct figure {
    int (*counts)(const vkm_rollout *x); /* NULL: all */
    int (*label)(const vkm_rollout *x);
} figure;

static int hacks(const vkm_rollout *x) {
    return x->grade.exploited;
}
static int solves(const vkm_rollout *x) {
    return x->grade.evidence.gt_correct;
}
static int fails(const vkm_rollout *x) {
    return !hacks(x) && !solves(x);
}
static int is_positive(const vkm_rollout *x) {
    return x->advantage > 0;
}
static int is_hinted(const vkm_rollout *x) {
    return x->mode->hint != NULL;
}

static int has_w(const vkm_rollout *x) {
    return x->live && !isnan(x->w);
}

/* The w of the rollouts that count, and their labels; returns how many. */
static size_t gather(const vkm_rollout *x, uint32_t n, const figure *f, double *w,
                     unsigned char *label) {
    size_t m = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!has_w(&x[i]) || (f->counts && !f->counts(&x[i]))) continue;
        label[m] = f->label ? f->label(&x[i]) != 0 : 0;
        w[m++] = (double)x[i].w;
    }
    return m;
}

/* The share of |A| of the live rollouts of one kind that trains expert e. */
static double share(const vkm_rollout *x, uint32_t n, int kind, int e) {
    double part = 0, all = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!x[i].live || hacks(&x[i]) != kind) continue;
        part += fabs((double)x[i].advantage) * (double)x[i].g[e];
        all += fabs((double)x[i].advantage);
    }
    return all > 0 ? part / all : NAN;
}

vkm_status vkm_diagnose(const vkm_rollout *x, uint32_t n, vkm_diagnostics *out, vkm_err *err) {
    double *w = vkm_calloc(n, sizeof *w, "a step's figures", err);
    unsigned char *label = vkm_calloc(n, 1, "a step's figures", err);
    if (!w || !label) goto done;
    const figure against_hack = {NULL, hacks};
    size_t m = gather(x, n, &against_hack, w, label);
    *out = (vkm_diagnostics){.w_mean = mean(w, m),
                             .w_p10 = vkm_quantile(w, m, 0.1),
                             .w_p50 = vkm_quantile(w, m, 0.5),
                             .w_p90 = vkm_quantile(w, m, 0.9),
                             .auroc = vkm_auroc(w, label, m),
                             .f05 = vkm_fbeta(w, label, m, 0.5, 0.5),
                             .leak = share(x, n, 1, VKM_DEPLOYED),
                             .collateral = share(x, n, 0, VKM_HACK)};
    const struct {
        figure f;
        double *auroc;
    } ranks[] = {{{is_positive, hacks}, &out->auroc_positive},
                 {{is_hinted, hacks}, &out->auroc_hinted},
                 {{NULL, is_hinted}, &out->auroc_hint}};
    for (size_t i = 0; i < VKM_COUNTOF(ranks); i++)
        *ranks[i].auroc = vkm_auroc(w, label, gather(x, n, &ranks[i].f, w, label));
    const struct {
        figure f;
        double *mean;
    } means[] = {{{hacks, NULL}, &out->w_hack},
                 {{solves, NULL}, &out->w_solve},
                 {{fails, NULL}, &out->w_fail}};
    for (size_t i = 0; i < VKM_COUNTOF(means); i++)
        *means[i].mean = mean(w, gather(x, n, &means[i].f, w, label));
done:
    free(label), free(w);
    return err->status;
}

double vkm_diagnose_mode(const vkm_rollout *x, uint32_t n, const char *mode) {
    double sum = 0;
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (has_w(&x[i]) && strcmp(x[i].mode->name, mode) == 0) sum += (double)x[i].w, m++;
    return m ? sum / m : NAN;
}
