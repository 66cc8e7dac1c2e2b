/* Owns the arms table: rows, differences, and its three forms. */
#include "report/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/lines.h"

/* ---- rows ------------------------------------------------------------------------------------ */

static vkm_arm_row *add_row(vkm_table *t, const char *arm, vkm_err *err) {
    for (size_t i = 0; i < t->n_rows; i++)
        if (!strcmp(t->rows[i].arm, arm)) return &t->rows[i];
    vkm_arm_row *row = &t->rows[t->n_rows];
    *row = (vkm_arm_row){0};
    snprintf(row->arm, sizeof row->arm, "%s", arm);
    row->of = vkm_calloc(t->n_runs, sizeof *row->of, "the arms table", err);
    if (!row->of) return NULL;
    t->n_rows++;
    return row;
}

static int same_start(const vkm_outcome *a, const vkm_outcome *b) {
    return a->seed == b->seed && !strcmp(a->model, b->model);
}

static int has_run(const vkm_arm_row *row, const vkm_outcome *run) {
    for (size_t i = 0; i < row->n_runs; i++) {
        VKM_BUG_ON(!row->of[i].run, "run %zu of arm %s", i, row->arm);
        if (same_start(row->of[i].run, run)) return 1;
    }
    return 0;
}

static void add_run(vkm_arm_row *row, const vkm_outcome *run, const double *value) {
    VKM_BUG_ON(!row->of, "no room for a run of arm %s", row->arm);
    row->of[row->n_runs++] = (struct vkm_arm_run){run, value};
}

/* The model without an adapter, as the base state of an arm's full evaluation saw it. */
static void base_values(const double *of, double *v) {
    static const vkm_figure_id from[][2] = {{VKM_FIG_hack_on, VKM_FIG_hack_base},
                                            {VKM_FIG_hack_off, VKM_FIG_hack_base},
                                            {VKM_FIG_hack_base, VKM_FIG_hack_base},
                                            {VKM_FIG_solve_on, VKM_FIG_solve_base},
                                            {VKM_FIG_solve_off, VKM_FIG_solve_base},
                                            {VKM_FIG_solve_base, VKM_FIG_solve_base},
                                            {VKM_FIG_free_on, VKM_FIG_free_base},
                                            {VKM_FIG_free_off, VKM_FIG_free_base},
                                            {VKM_FIG_free_base, VKM_FIG_free_base},
                                            {VKM_FIG_hint_only_off, VKM_FIG_hint_only_base},
                                            {VKM_FIG_hint_only_base, VKM_FIG_hint_only_base},
                                            {VKM_FIG_compile_on, VKM_FIG_compile_base},
                                            {VKM_FIG_compile_off, VKM_FIG_compile_base},
                                            {VKM_FIG_compile_base, VKM_FIG_compile_base}};
    for (int i = 0; i < VKM_N_FIGURES; i++) v[i] = NAN;
    for (size_t i = 0; i < VKM_COUNTOF(from); i++) v[from[i][0]] = of[from[i][1]];
}

static vkm_status add_derived(vkm_table *t, vkm_err *err) {
    for (size_t i = 0; i < t->n_runs && !err->status; i++)
        if (t->runs[i].stops_early) {
            vkm_arm_row *row = add_row(t, "none-early-stop", err);
            if (row) add_run(row, &t->runs[i], t->runs[i].early);
        }
    size_t used = 0;
    for (size_t i = 0; i < t->n_runs && !err->status; i++) {
        if (isnan(t->runs[i].value[VKM_FIG_hack_base])) continue;
        vkm_arm_row *row = add_row(t, "base", err);
        if (!row || has_run(row, &t->runs[i])) continue;
        base_values(t->runs[i].value, t->derived + used * VKM_N_FIGURES);
        add_run(row, &t->runs[i], t->derived + used++ * VKM_N_FIGURES);
    }
    return err->status;
}

vkm_status vkm_table_make(const vkm_outcome *runs, size_t n, vkm_table *out, vkm_err *err) {
    *out = (vkm_table){.runs = runs, .n_runs = n};
    out->rows = vkm_calloc(n + 2, sizeof *out->rows, "the arms table", err);
    out->derived = vkm_calloc(n * VKM_N_FIGURES, sizeof *out->derived, "the arms table", err);
    if (!out->rows || !out->derived) goto fail;
    for (size_t i = 0; i < n; i++) {
        vkm_arm_row *row = add_row(out, runs[i].arm, err);
        if (!row) goto fail;
        if (has_run(row, &runs[i])) {
            vkm_fail(err, VKM_USAGE, "%s: a second run of arm %s, seed %lld on %s; name each once",
                     runs[i].dir, runs[i].arm, (long long)runs[i].seed, runs[i].model);
            goto fail;
        }
        add_run(row, &runs[i], runs[i].value);
    }
    if (add_derived(out, err)) goto fail;
    for (size_t i = 0; i < out->n_rows; i++)
        for (int f = 0; f < VKM_N_FIGURES; f++) {
            double *x = vkm_calloc(out->rows[i].n_runs, sizeof *x, "the arms table", err);
            if (!x) goto fail;
            for (size_t k = 0; k < out->rows[i].n_runs; k++) x[k] = out->rows[i].of[k].value[f];
            out->rows[i].mean[f] = vkm_mean_t(x, out->rows[i].n_runs);
            free(x);
        }
    return VKM_OK;
fail:
    vkm_table_free(out);
    return err->status;
}

vkm_status vkm_table_read(const char *const *dirs, size_t n, vkm_table *out, vkm_err *err) {
    vkm_outcome *runs = vkm_calloc(n, sizeof *runs, "the arms table", err);
    *out = (vkm_table){0};
    for (size_t i = 0; runs && i < n && !err->status; i++)
        (void)!vkm_outcome_read(dirs[i], &runs[i], err);
    if (err->status || vkm_table_make(runs, n, out, err))
        free(runs);
    else
        out->read = runs;
    return err->status;
}

void vkm_table_free(vkm_table *t) {
    for (size_t i = 0; i < t->n_rows; i++) free(t->rows[i].of);
    free(t->rows);
    free(t->derived);
    free(t->read);
    *t = (vkm_table){0};
}

const vkm_arm_row *vkm_table_find(const vkm_table *t, const char *arm) {
    for (size_t i = 0; i < t->n_rows; i++)
        if (!strcmp(t->rows[i].arm, arm)) return &t->rows[i];
    return NULL;
}

/* ---- differences ----------------------------------------------------------------------------- */

vkm_difference vkm_table_difference(const vkm_arm_row *a, const vkm_arm_row *b, vkm_figure_id f) {
    double *d = calloc(a->n_runs + 1, sizeof *d);
    const char **model = calloc(a->n_runs + 1, sizeof *model);
    vkm_difference out = {.mean = {NAN, NAN, 0}};
    size_t n = 0;
    for (size_t i = 0; d && model && i < a->n_runs; i++)
        for (size_t k = 0; k < b->n_runs; k++)
            if (same_start(a->of[i].run, b->of[k].run) &&
                !isnan(a->of[i].value[f] - b->of[k].value[f])) {
                model[n] = a->of[i].run->model;
                d[n++] = a->of[i].value[f] - b->of[k].value[f];
            }
    if (d && model) out.mean = vkm_mean_t(d, n);
    out.one_sign = n > 0;
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (size_t k = 0; k < n; k++)
            if (!strcmp(model[k], model[i])) sum += d[k];
        if (sum * out.mean.mean <= 0) out.one_sign = 0;
    }
    free(model), free(d);
    return out;
}

/* ---- the terminal ---------------------------------------------------------------------------- */

static const vkm_figure_id shown[] = {
    VKM_FIG_hack_on,      VKM_FIG_hack_off,  VKM_FIG_hack_deployed_off, VKM_FIG_specificity,
    VKM_FIG_localisation, VKM_FIG_solve_off, VKM_FIG_free_off,          VKM_FIG_compile_off};
enum { CELL = 15 };

static void cell(FILE *f, double mean, double half) {
    char text[32];
    if (isnan(mean))
        snprintf(text, sizeof text, "-");
    else if (isnan(half))
        snprintf(text, sizeof text, "%.3f", mean);
    else
        snprintf(text, sizeof text, "%.3f +- %.3f", mean, half);
    fprintf(f, "  %*s", CELL, text);
}

static vkm_jv recorded_arm(const vkm_json *recorded, const char *arm) {
    vkm_jv arms = vkm_json_find(vkm_json_root(recorded), "arms");
    for (vkm_jv a = vkm_json_first(arms); a.v; a = vkm_json_next(a)) {
        const char *name = vkm_text_of(a, "arm");
        if (name && !strcmp(name, arm)) return a;
    }
    return (vkm_jv){0};
}

static void print_recorded(const vkm_json *recorded, const char *arm, FILE *f) {
    vkm_jv a = recorded_arm(recorded, arm), means = vkm_json_find(a, "means");
    if (!a.v) return;
    fprintf(f, "%-16s %5.0f", "  recorded", vkm_number_of(a, "n"));
    for (size_t i = 0; i < VKM_COUNTOF(shown); i++) {
        vkm_jv m = vkm_json_first(vkm_json_find(means, vkm_figures[shown[i]].name));
        double mean = vkm_number(m), half = m.v ? vkm_number(vkm_json_next(m)) : NAN;
        cell(f, mean, half);
    }
    fprintf(f, "\n");
}

void vkm_table_print(const vkm_table *t, const vkm_json *recorded, FILE *f) {
    fprintf(f, "%-16s %5s", "arm", "seeds");
    for (size_t i = 0; i < VKM_COUNTOF(shown); i++)
        fprintf(f, "  %*s", CELL, vkm_figures[shown[i]].label);
    fprintf(f, "\n");
    for (size_t r = 0; r < t->n_rows; r++) {
        const vkm_arm_row *row = &t->rows[r];
        fprintf(f, "%-16s %5zu", row->arm, row->n_runs);
        for (size_t i = 0; i < VKM_COUNTOF(shown); i++)
            cell(f, row->mean[shown[i]].mean, row->mean[shown[i]].half);
        fprintf(f, "\n");
        if (recorded) print_recorded(recorded, row->arm, f);
    }
    fprintf(
        f,
        "Means over seeds with 95%% t intervals; held-out problems, the last fifth of training.\n"
        "hack: of prompts with a loophole. S = deployed off - hack off; LI 0.5: mere shrinkage.\n");
}

/* ---- Markdown -------------------------------------------------------------------------------- */

static void md_cell(vkm_strbuf *out, const vkm_mean *m) {
    if (isnan(m->mean))
        vkm_strbuf_puts(out, " |");
    else if (isnan(m->half))
        vkm_strbuf_printf(out, " %.3f |", m->mean);
    else
        vkm_strbuf_printf(out, " %.3f &plusmn; %.3f |", m->mean, m->half);
}

static void md_table(const vkm_table *t, const char *title, const vkm_figure_id *f, size_t n,
                     vkm_strbuf *out) {
    vkm_strbuf_printf(out, "### %s\n\n| arm | n |", title);
    for (size_t i = 0; i < n; i++) vkm_strbuf_printf(out, " %s |", vkm_figures[f[i]].label);
    vkm_strbuf_puts(out, "\n|---|---|");
    for (size_t i = 0; i < n; i++) vkm_strbuf_puts(out, "---|");
    for (size_t r = 0; r < t->n_rows; r++) {
        int any = 0;
        for (size_t i = 0; i < n; i++) any |= !isnan(t->rows[r].mean[f[i]].mean);
        if (!any) continue;
        vkm_strbuf_printf(out, "\n| %s | %zu |", t->rows[r].arm, t->rows[r].n_runs);
        for (size_t i = 0; i < n; i++) md_cell(out, &t->rows[r].mean[f[i]]);
    }
    vkm_strbuf_puts(out, "\n\n");
    for (size_t i = 0; i < n; i++)
        vkm_strbuf_printf(out, "%s: %s. ", vkm_figures[f[i]].label, vkm_figures[f[i]].meaning);
    vkm_strbuf_puts(out, "\n\n");
}

static const char *const references[] = {"absorb", "hint", "oracle", "bernoulli"};
static const vkm_figure_id compared[] = {VKM_FIG_hack_off, VKM_FIG_specificity,
                                         VKM_FIG_localisation, VKM_FIG_solve_off,
                                         VKM_FIG_hint_only_off};

static void md_differences(const vkm_table *t, const vkm_arm_row *reference, vkm_strbuf *out) {
    vkm_strbuf_printf(out, "### Differences from %s\n\n| arm | pairs |", reference->arm);
    for (size_t i = 0; i < VKM_COUNTOF(compared); i++)
        vkm_strbuf_printf(out, " %s |", vkm_figures[compared[i]].label);
    vkm_strbuf_puts(out, "\n|---|---|");
    for (size_t i = 0; i < VKM_COUNTOF(compared); i++) vkm_strbuf_puts(out, "---|");
    for (size_t r = 0; r < t->n_rows; r++) {
        const vkm_arm_row *row = &t->rows[r];
        vkm_difference d = vkm_table_difference(row, reference, VKM_FIG_hack_off);
        if (row == reference || !d.mean.n) continue;
        vkm_strbuf_printf(out, "\n| %s | %zu |", row->arm, d.mean.n);
        for (size_t i = 0; i < VKM_COUNTOF(compared); i++) {
            d = vkm_table_difference(row, reference, compared[i]);
            md_cell(out, &d.mean);
            if (!isnan(d.mean.mean) && !d.one_sign) {
                out->n -= 2; /* before the cell's end */
                vkm_strbuf_puts(out, " &dagger; |");
            }
        }
    }
    vkm_strbuf_puts(out,
                    "\n\nPaired by warm start and seed, with 95% t intervals; &dagger;: the warm "
                    "starts disagree in sign.\n\n");
}

void vkm_table_markdown(const vkm_table *t, vkm_strbuf *out) {
    static const vkm_figure_id causal[] = {VKM_FIG_hack_on,           VKM_FIG_hack_off,
                                           VKM_FIG_hack_deployed_off, VKM_FIG_hack_random_off,
                                           VKM_FIG_specificity,       VKM_FIG_localisation};
    static const vkm_figure_id solving[] = {
        VKM_FIG_solve_on,      VKM_FIG_solve_off,  VKM_FIG_free_on,    VKM_FIG_free_off,
        VKM_FIG_hint_only_off, VKM_FIG_compile_on, VKM_FIG_compile_off};
    static const vkm_figure_id more[] = {VKM_FIG_unseen_on, VKM_FIG_unseen_off,
                                         VKM_FIG_train_hack_on, VKM_FIG_train_hack_off,
                                         VKM_FIG_train_solve_off};
    static const vkm_figure_id router[] = {
        VKM_FIG_auroc,      VKM_FIG_auroc_positive, VKM_FIG_auroc_hinted,  VKM_FIG_auroc_family,
        VKM_FIG_auroc_hint, VKM_FIG_length_auroc,   VKM_FIG_keyword_auroc, VKM_FIG_w_hack,
        VKM_FIG_w_solve,    VKM_FIG_leak,           VKM_FIG_collateral};
    static const vkm_figure_id scales[] = {VKM_FIG_hack_off,    VKM_FIG_hack_25, VKM_FIG_hack_50,
                                           VKM_FIG_hack_75,     VKM_FIG_hack_on, VKM_FIG_kl_off,
                                           VKM_FIG_hack_same_kl};
    const struct {
        const char *title;
        const vkm_figure_id *f;
        size_t n;
    } parts[] = {{"Hacking", causal, VKM_COUNTOF(causal)},
                 {"Solving", solving, VKM_COUNTOF(solving)},
                 {"Transfer and training problems", more, VKM_COUNTOF(more)},
                 {"Routing", router, VKM_COUNTOF(router)},
                 {"Scaling", scales, VKM_COUNTOF(scales)}};
    for (size_t i = 0; i < VKM_COUNTOF(parts); i++)
        md_table(t, parts[i].title, parts[i].f, parts[i].n, out);
    for (size_t i = 0; i < VKM_COUNTOF(references); i++) {
        const vkm_arm_row *reference = vkm_table_find(t, references[i]);
        if (reference) md_differences(t, reference, out);
    }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void put_mean(vkm_jw *w, const char *key, const vkm_mean *m) {
    vkm_jw_arr(w, key);
    vkm_jw_double(w, NULL, m->mean);
    vkm_jw_double(w, NULL, m->half);
    vkm_jw_i64(w, NULL, (int64_t)m->n);
    vkm_jw_end_arr(w);
}

static void put_differences(const vkm_table *t, const vkm_arm_row *reference, vkm_jw *w) {
    vkm_jw_obj(w, reference->arm);
    for (size_t r = 0; r < t->n_rows; r++) {
        if (&t->rows[r] == reference) continue;
        vkm_jw_obj(w, t->rows[r].arm);
        for (size_t i = 0; i < VKM_COUNTOF(compared); i++) {
            vkm_difference d = vkm_table_difference(&t->rows[r], reference, compared[i]);
            if (!d.mean.n) continue;
            vkm_jw_arr(w, vkm_figures[compared[i]].name);
            vkm_jw_double(w, NULL, d.mean.mean);
            vkm_jw_double(w, NULL, d.mean.half);
            vkm_jw_i64(w, NULL, (int64_t)d.mean.n);
            vkm_jw_bool(w, NULL, d.one_sign);
            vkm_jw_end_arr(w);
        }
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_obj(w);
}

static void put_row(const vkm_arm_row *row, vkm_jw *w) {
    vkm_jw_obj(w, NULL);
    vkm_jw_str(w, "arm", row->arm);
    vkm_jw_i64(w, "n", (int64_t)row->n_runs);
    vkm_jw_obj(w, "means");
    for (int f = 0; f < VKM_N_FIGURES; f++)
        if (row->mean[f].n) put_mean(w, vkm_figures[f].name, &row->mean[f]);
    vkm_jw_end_obj(w);
    vkm_jw_arr(w, "runs");
    for (size_t i = 0; i < row->n_runs; i++) {
        vkm_jw_obj(w, NULL);
        vkm_jw_i64(w, "seed", row->of[i].run->seed);
        vkm_jw_str(w, "model", row->of[i].run->model);
        vkm_jw_obj(w, "values");
        for (int f = 0; f < VKM_N_FIGURES; f++)
            if (!isnan(row->of[i].value[f]))
                vkm_jw_double(w, vkm_figures[f].name, row->of[i].value[f]);
        vkm_jw_end_obj(w);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
    vkm_jw_end_obj(w);
}

void vkm_table_write(const vkm_table *t, vkm_jw *w) {
    vkm_jw_arr(w, "figures");
    for (int i = 0; i < VKM_N_FIGURES; i++) {
        vkm_jw_obj(w, NULL);
        vkm_jw_str(w, "name", vkm_figures[i].name);
        vkm_jw_str(w, "label", vkm_figures[i].label);
        vkm_jw_str(w, "meaning", vkm_figures[i].meaning);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
    vkm_jw_arr(w, "arms");
    for (size_t r = 0; r < t->n_rows; r++) put_row(&t->rows[r], w);
    vkm_jw_end_arr(w);
    vkm_jw_obj(w, "differences");
    for (size_t i = 0; i < VKM_COUNTOF(references); i++) {
        const vkm_arm_row *reference = vkm_table_find(t, references[i]);
        if (reference) put_differences(t, reference, w);
    }
    vkm_jw_end_obj(w);
}

void vkm_table_json(const vkm_table *t, vkm_strbuf *out) {
    vkm_jw w = vkm_jw_begin(out, 1);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "version", vkm_version());
    vkm_jw_str(&w, "commit", vkm_commit());
    vkm_table_write(t, &w);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(out, '\n');
}
