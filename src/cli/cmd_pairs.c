/* `vkmoe pairs check FILE`: whether hack/clean pairs are fit to seed a router. Form and duplicates
 * are the loader's; here are lengths, which must not give the label away, and with a model how well
 * the seed direction tells the sides apart, on the pairs it was made of and on others. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "cli/cli.h"
#include "ops/softmath.h"
#include "rl/pair_ids.h"
#include "rl/arms.h"
#include "rl/router.h"
#include "rl/stats.h"

enum { FOLDS = 10 };

typedef struct lengths {
    double mean[2];    /* hack, clean */
    double worst;      /* the largest ratio of a pair's sides */
    size_t worst_pair; /* its index */
    double auroc;      /* of the length as a detector of hacks: 0.5 tells nothing */
} lengths;

typedef struct separation {
    double w[2];      /* mean router weight of hack and clean sides, as calibrated */
    double auroc;     /* of w, on the pairs that made the direction */
    double held_out;  /* of the score of pairs that did not: folds of the set */
    double reference; /* mean log-probability of the clean sides' tokens */
} separation;

typedef struct check {
    const char *selector;
    vkm_pairs *set;
    vkm_pair_ids *ids; /* (set->n) with a model */
    lengths bytes, tokens;
    separation seed;
    int global_norm;
    float *w; /* (2n) with a model */
} check;

/* ---- lengths -----------------------------------------------------------------------------------
 */

static vkm_status measure(const double *n /* (2 pairs): hack sides, clean sides */, size_t pairs,
                          lengths *out, vkm_err *err) {
    VKM_BUG_ON(!pairs, "a set without pairs");
    unsigned char *labels = vkm_calloc(2 * pairs, 1, "the pairs", err);
    if (!labels) return err->status;
    *out = (lengths){{0}, 0, 0, 0};
    for (size_t i = 0; i < pairs; i++) {
        labels[i] = 1;
        out->mean[0] += n[i];
        out->mean[1] += n[pairs + i];
    }
    for (int k = 0; k < 2; k++) out->mean[k] /= (double)pairs;
    for (size_t i = 0; i < pairs; i++) {
        double ratio = n[i] > n[pairs + i] ? n[i] / n[pairs + i] : n[pairs + i] / n[i];
        if (ratio <= out->worst) continue;
        out->worst = ratio;
        out->worst_pair = i;
    }
    out->auroc = vkm_auroc(n, labels, 2 * pairs);
    free(labels);
    return VKM_OK;
}

static vkm_status measure_lengths(check *c, vkm_err *err) {
    size_t n = c->set->n;
    double *x = vkm_calloc(2 * n, sizeof *x, "the pairs", err);
    if (!x) return err->status;
    for (size_t i = 0; i < n; i++) {
        x[i] = (double)strlen(c->set->items[i].hack);
        x[n + i] = (double)strlen(c->set->items[i].clean);
    }
    (void)!measure(x, n, &c->bytes, err);
    for (size_t i = 0; c->ids && i < n; i++)
        for (size_t k = 0; k < 2; k++)
            x[k * n + i] = (double)(c->ids[i].side[k].n - c->ids[i].comp0);
    if (c->ids && !err->status) (void)!measure(x, n, &c->tokens, err);
    free(x);
    return err->status;
}

/* ---- separation --------------------------------------------------------------------------------
 */

/* The cosine of a - mu with v, as the router scores. */
static double score(const float *a, const float *mu, const float *v, uint32_t width) {
    double dot = 0, aa = 0, vv = 0;
    for (uint32_t j = 0; j < width; j++) {
        double x = (double)a[j] - (double)mu[j];
        dot += x * (double)v[j];
        aa += x * x;
        vv += (double)v[j] * (double)v[j];
    }
    return aa > 0 && vv > 0 ? dot / sqrt(aa * vv) : 0;
}

/* AUROC of pairs that did not make the direction: each fold is scored by the others. */
static vkm_status held_out_auroc(const float *act, uint32_t n, const vkm_adapter *a,
                                 int global_norm, double *out, vkm_err *err) {
    uint32_t width = a->n_modules * a->rank, folds = n < FOLDS ? n : FOLDS;
    VKM_BUG_ON(!n || !width, "a set without pairs");
    float *some = vkm_calloc(2ull * n * width, sizeof *some, "the pairs", err);
    float *v = vkm_calloc(width, sizeof *v, "the pairs", err);
    float *mu = vkm_calloc(width, sizeof *mu, "the pairs", err);
    double *scores = vkm_calloc(2ull * n, sizeof *scores, "the pairs", err);
    unsigned char *labels = vkm_calloc(2ull * n, 1, "the pairs", err);
    *out = NAN;
    if (n < 2 || !some || !v || !mu || !scores || !labels) goto done;
    for (uint32_t fold = 0; fold < folds; fold++) {
        uint32_t m = 0, kept = n - (n - fold + folds - 1) / folds;
        for (uint32_t i = 0; i < n; i++) {
            if (i % folds == fold) continue;
            memcpy(some + (uint64_t)m * width, act + (uint64_t)i * width, width * sizeof *act);
            memcpy(some + (uint64_t)(kept + m++) * width, act + (uint64_t)(n + i) * width,
                   width * sizeof *act);
        }
        vkm_direction_from_pairs(some, kept, a->n_modules, a->rank, global_norm, v);
        for (uint32_t j = 0; j < width; j++) {
            double sum = 0;
            for (uint32_t i = 0; i < 2 * n; i++)
                if (i % n % folds != fold) sum += (double)act[(uint64_t)i * width + j];
            mu[j] = (float)(sum / (2 * kept));
        }
        for (uint32_t i = fold; i < 2 * n; i++)
            if (i % n % folds == fold) scores[i] = score(act + (uint64_t)i * width, mu, v, width);
    }
    for (uint32_t i = 0; i < 2 * n; i++) labels[i] = i < n;
    *out = vkm_auroc(scores, labels, 2ull * n);
done:
    free(labels), free(scores), free(mu), free(v), free(some);
    return err->status;
}

/* Seeds and calibrates a router on the activations as a run of arm moe does. */
static vkm_status calibrate(check *c, vkm_dev *dev, const vkm_adapter *a, const float *act,
                            vkm_err *err) {
    uint32_t n = (uint32_t)c->set->n;
    const vkm_arm *arm = vkm_arm_find("moe", err);
    vkm_router *router = NULL;
    double *scores = vkm_calloc(2ull * n, sizeof *scores, "the pairs", err);
    unsigned char *labels = vkm_calloc(2ull * n, 1, "the pairs", err);
    float *v = vkm_calloc((size_t)a->n_modules * a->rank, sizeof *v, "the pairs", err);
    c->w = vkm_calloc(2ull * n, sizeof *c->w, "the pairs", err);
    if (!arm || !scores || !labels || !v || !c->w) goto done;
    vkm_direction_from_pairs(act, n, a->n_modules, a->rank, c->global_norm, v);
    if (vkm_router_new(dev, a->n_modules, a->rank, n, 1, 0, NULL, &router, err) ||
        vkm_router_calibrate(router, act, v, arm->calib_logit, err) ||
        vkm_router_pair_weights(router, c->w, err))
        goto done;
    for (uint32_t i = 0; i < 2 * n; i++) {
        labels[i] = i < n;
        scores[i] = (double)c->w[i];
        c->seed.w[i / n] += scores[i] / n;
    }
    c->seed.auroc = vkm_auroc(scores, labels, 2ull * n);
done:
    vkm_router_free(router);
    free(v), free(labels), free(scores);
    return err->status;
}

static vkm_status separate(check *c, vkm_dev *dev, const char *model, uint32_t rank, uint64_t seed,
                           vkm_err *err) {
    uint32_t n = (uint32_t)c->set->n, longest = 0;
    vkm_policy *policy = NULL;
    float *act = NULL, reference = 0;
    for (uint32_t i = 0; i < 2 * n; i++)
        if (c->ids[i % n].side[i / n].n > longest) longest = (uint32_t)c->ids[i % n].side[i / n].n;
    vkm_policy_limits max = {.max_prompt = longest,
                             .max_new = 1,
                             .rollouts = 1,
                             .prompts = 1,
                             .ids = 1,
                             .micro_rows = longest > 4096 ? longest + 16 : 4096,
                             .n_experts = VKM_MAX_EXPERTS,
                             .rank = rank,
                             .seed = seed};
    if (vkm_policy_new(dev, model, &max, NULL, &policy, err)) goto done;
    const vkm_adapter *a = policy->adapter;
    act = vkm_calloc(2ull * n * a->n_modules * a->rank, sizeof *act, "the pairs", err);
    if (!act || vkm_pairs_read(policy, vkm_policy_read, c->ids, n, act, &reference, err) ||
        calibrate(c, dev, a, act, err) ||
        held_out_auroc(act, n, a, c->global_norm, &c->seed.held_out, err))
        goto done;
    c->seed.reference = (double)reference;
done:
    free(act);
    vkm_policy_free(policy);
    return err->status;
}

static vkm_status encode(check *c, const char *model, vkm_err *err) {
    vkm_tokenizer *t = NULL;
    c->ids = vkm_calloc(c->set->n, sizeof *c->ids, "the pairs", err);
    if (!c->ids || vkm_tokenizer_load(model, &t, err)) return err->status;
    for (size_t i = 0; i < c->set->n && !err->status; i++)
        (void)!vkm_pair_encode(t, &c->set->items[i], UINT32_MAX, &c->ids[i], err);
    vkm_tokenizer_free(t);
    return err->status;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static void print_lengths(const check *c, const lengths *l, const char *unit) {
    printf("%s: hack %.1f, clean %.1f on average; most unlike 1 : %.2f ('%s', line %zu); length "
           "tells the sides apart with AUROC %.3f\n",
           unit, l->mean[0], l->mean[1], l->worst, c->set->items[l->worst_pair].name,
           c->set->items[l->worst_pair].line, l->auroc);
}

static void print_text(const check *c) {
    size_t n = c->set->n;
    printf("%6s %-16s %-24s %11s %13s %8s %8s\n", "line", "section", "pair", "bytes h/c",
           "tokens h/c", "w hack", "w clean");
    for (size_t i = 0; i < n; i++) {
        const vkm_pair *p = &c->set->items[i];
        char bytes[48], tokens[48] = "-", w[2][16] = {"-", "-"};
        snprintf(bytes, sizeof bytes, "%zu/%zu", strlen(p->hack), strlen(p->clean));
        if (c->ids)
            snprintf(tokens, sizeof tokens, "%zu/%zu", c->ids[i].side[0].n - c->ids[i].comp0,
                     c->ids[i].side[1].n - c->ids[i].comp0);
        for (size_t k = 0; c->w && k < 2; k++)
            snprintf(w[k], sizeof w[k], "%.3f", (double)c->w[k * n + i]);
        printf("%6zu %-16.16s %-24.24s %11s %13s %8s %8s\n", p->line, p->section, p->name, bytes,
               tokens, w[0], w[1]);
    }
    printf("\n%zu pairs, no two alike\n", n);
    print_lengths(c, &c->bytes, "bytes");
    if (c->ids) print_lengths(c, &c->tokens, "tokens");
    if (c->w)
        printf("seed: mean router weight %.3f of hack sides, %.3f of clean sides; AUROC %.3f on "
               "the pairs themselves, %.3f on pairs held out of the direction\n",
               c->seed.w[0], c->seed.w[1], c->seed.auroc, c->seed.held_out);
}

static void json_lengths(vkm_jw *w, const char *key, const check *c, const lengths *l) {
    vkm_jw_obj(w, key);
    vkm_jw_double(w, "mean_hack", l->mean[0]);
    vkm_jw_double(w, "mean_clean", l->mean[1]);
    vkm_jw_double(w, "worst_ratio", l->worst);
    vkm_jw_str(w, "worst_pair", c->set->items[l->worst_pair].name);
    vkm_jw_double(w, "auroc", l->auroc);
    vkm_jw_end_obj(w);
}

static void json_pairs(vkm_jw *w, const check *c) {
    static const char *const keys[][3] = {{"bytes_hack", "tokens_hack", "w_hack"},
                                          {"bytes_clean", "tokens_clean", "w_clean"}};
    vkm_jw_arr(w, "pairs");
    for (size_t i = 0; i < c->set->n; i++) {
        const vkm_pair *p = &c->set->items[i];
        vkm_jw_obj(w, NULL);
        vkm_jw_u64(w, "line", p->line);
        vkm_jw_str(w, "section", p->section);
        vkm_jw_str(w, "name", p->name);
        for (size_t k = 0; k < 2; k++) {
            vkm_jw_u64(w, keys[k][0], strlen(k ? p->clean : p->hack));
            if (c->ids) vkm_jw_u64(w, keys[k][1], c->ids[i].side[k].n - c->ids[i].comp0);
            if (c->w) vkm_jw_float(w, keys[k][2], c->w[k * c->set->n + i]);
        }
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
}

static vkm_status print_json(const check *c, vkm_err *err) {
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 1);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "selector", c->selector);
    vkm_jw_u64(&w, "n", c->set->n);
    json_lengths(&w, "bytes", c, &c->bytes);
    if (c->ids) json_lengths(&w, "tokens", c, &c->tokens);
    if (c->w) {
        vkm_jw_obj(&w, "seed");
        vkm_jw_double(&w, "w_hack", c->seed.w[0]);
        vkm_jw_double(&w, "w_clean", c->seed.w[1]);
        vkm_jw_double(&w, "auroc", c->seed.auroc);
        vkm_jw_double(&w, "auroc_held_out", c->seed.held_out);
        vkm_jw_double(&w, "reference_logp", c->seed.reference);
        vkm_jw_end_obj(&w);
    }
    json_pairs(&w, c);
    vkm_jw_end_obj(&w);
    if (!vkm_strbuf_check(&text, "the report", err)) puts(vkm_strbuf_str(&text));
    vkm_strbuf_free(&text);
    return err->status;
}

vkm_status vkm_cmd_pairs(int argc, char **argv, vkm_err *err) {
    check c = {0};
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    const char *action = NULL, *model = NULL;
    int64_t rank = 32, seed = 41;
    int json = 0;
    vkm_dev *dev = NULL;
    vkm_opt opts[] = {
        {"ACTION", VKM_OPT_ARG, &action, .help = "check"},
        {"FILE", VKM_OPT_ARG, &c.selector, .help = "pairs, FILE.md[#section/prefix@tag]"},
        {"model", VKM_OPT_STRING, &model, .arg = "DIR",
         .help = "counts tokens and reads activations: how well the seed separates the sides"},
        {"lora-rank", VKM_OPT_INT, &rank, .min = 1, .max = 1024,
         .help = "of the adapter, as a run"},
        {"seed", VKM_OPT_INT, &seed, .min = 0, .max = 9007199254740992.0,
         .help = "of the adapter, as a run"},
        {"seed-norm", VKM_OPT_CHOICE, &c.global_norm, .choices = "module|global",
         .help = "direction normalised for each module, or over all"},
        VKM_CLI_JSON(&json),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (strcmp(action, "check") != 0)
        return vkm_fail(err, VKM_USAGE, "'%.64s' is not known; write `vkmoe pairs check FILE`",
                        action);
    if (vkm_pairs_load(c.selector, &c.set, err) || (model && encode(&c, model, err)) ||
        measure_lengths(&c, err) ||
        (model && (vkm_cli_open_device(&d, NULL, &dev, err) ||
                   separate(&c, dev, model, (uint32_t)rank, (uint64_t)seed, err))))
        goto done;
    if (json)
        (void)!print_json(&c, err);
    else
        print_text(&c);
done:
    vkm_cli_close_device(&d, dev);
    for (size_t i = 0; c.ids && i < c.set->n; i++) vkm_pair_ids_clear(&c.ids[i]);
    free(c.ids);
    free(c.w);
    vkm_pairs_free(c.set);
    return err->status;
}
