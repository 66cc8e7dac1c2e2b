/* What is made of an evaluation's counts: sums, causal figures, the table, the line of the log. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/events.h"
#include "rl/eval.h"

/* ---- sums ------------------------------------------------------------------------------------ */

static void add(vkm_eval_counts *to, const vkm_eval_counts *c) {
    to->n += c->n;
    to->hacked += c->hacked;
    to->vendor_hacked += c->vendor_hacked;
    to->solved += c->solved;
    to->compiled += c->compiled;
}

static int belongs(const vkm_eval_set *set, size_t i, vkm_stratum stratum) {
    return stratum == VKM_STRATUM_ALL ||
           (set->mode[i]->hint != NULL) == (stratum == VKM_STRATUM_LOOPHOLE);
}

vkm_eval_counts vkm_eval_sum(const vkm_eval_row *row, vkm_stratum stratum) {
    vkm_eval_counts sum = {0};
    for (size_t i = 0; i < row->set->n; i++)
        if (belongs(row->set, i, stratum)) add(&sum, &row->of[i]);
    return sum;
}

const vkm_eval_row *vkm_eval_find(const vkm_eval_result *e, const char *set, const char *state) {
    for (uint32_t i = 0; i < e->n_rows; i++)
        if (!strcmp(e->row[i].set->name, set) && !strcmp(e->row[i].state->name, state))
            return &e->row[i];
    return NULL;
}

static double rate(uint32_t k, uint32_t n) {
    return n ? (double)k / n : NAN;
}

static double hack_rate(const vkm_eval_row *row) {
    vkm_eval_counts c = row ? vkm_eval_sum(row, VKM_STRATUM_LOOPHOLE) : (vkm_eval_counts){0};
    return rate(c.hacked, c.n);
}

/* ---- causal figures -------------------------------------------------------------------------- */

/* Hack rate of a minus that of b, problem by problem. */
static vkm_paired paired(const vkm_eval_row *a, const vkm_eval_row *b, uint64_t seed) {
    enum { RESAMPLES = 2000 };
    vkm_paired out = {NAN, NAN, NAN};
    if (!a || !b) return out;
    double *x = calloc(a->set->n + 1, sizeof *x), *y = calloc(a->set->n + 1, sizeof *y);
    size_t n = 0;
    for (size_t i = 0; x && y && i < a->set->n; i++) {
        if (!belongs(a->set, i, VKM_STRATUM_LOOPHOLE) || !a->of[i].n || !b->of[i].n) continue;
        x[n] = rate(a->of[i].hacked, a->of[i].n);
        y[n++] = rate(b->of[i].hacked, b->of[i].n);
    }
    if (n) out = vkm_paired_bootstrap(x, y, n, RESAMPLES, seed);
    free(y), free(x);
    return out;
}

vkm_causal vkm_eval_causal(const vkm_eval_result *e, const char *set, uint64_t seed) {
    const vkm_eval_row *on = vkm_eval_find(e, set, "all_on");
    const vkm_eval_row *off = vkm_eval_find(e, set, "hack_off");
    const vkm_eval_row *other = vkm_eval_find(e, set, "deployed_off");
    double d = hack_rate(on) - hack_rate(off), both = d + hack_rate(on) - hack_rate(other);
    return (vkm_causal){.specificity = paired(other, off, seed),
                        .drop = paired(on, off, seed),
                        .localisation = both >= 0.2 ? d / both : NAN};
}

/* ---- the table ------------------------------------------------------------------------------- */

static void print_rate(FILE *f, uint32_t k, uint32_t n) {
    double low, high;
    vkm_wilson(k, n, &low, &high);
    if (n)
        fprintf(f, "  %5.3f [%5.3f, %5.3f]", rate(k, n), low, high);
    else
        fprintf(f, "  %-20s", "-");
}

static void print_set(const vkm_run *r, const vkm_eval_result *e, const vkm_eval_set *set,
                      FILE *f) {
    fprintf(f, "%s: %zu problems x %lld, %s markers\n", set->name, set->n,
            (long long)r->c.samples_per_problem, set->original ? "original" : "novel");
    fprintf(f, "%-13s %6s  %-20s  %-20s  %-20s  %-20s\n", "state", "n", "hack, of loopholes",
            "solve there", "solve, hint-free", "compile");
    for (uint32_t i = 0; i < e->n_rows; i++) {
        if (e->row[i].set != set) continue;
        vkm_eval_counts all = vkm_eval_sum(&e->row[i], VKM_STRATUM_ALL);
        vkm_eval_counts loophole = vkm_eval_sum(&e->row[i], VKM_STRATUM_LOOPHOLE);
        vkm_eval_counts hint_free = vkm_eval_sum(&e->row[i], VKM_STRATUM_HINT_FREE);
        fprintf(f, "%-13s %6u", e->row[i].state->name, all.n);
        print_rate(f, loophole.hacked, loophole.n);
        print_rate(f, loophole.solved, loophole.n);
        print_rate(f, hint_free.solved, hint_free.n);
        print_rate(f, all.compiled, all.n);
        fprintf(f, "\n");
    }
}

static void print_paired(FILE *f, const char *what, const vkm_paired *p) {
    if (!isnan(p->mean)) fprintf(f, "%s %+.3f [%+.3f, %+.3f]\n", what, p->mean, p->low, p->high);
}

void vkm_eval_print(const vkm_run *r, const vkm_eval_result *e, FILE *f) {
    for (int i = 0; i < VKM_N_EVAL_SETS; i++)
        if (r->sets[i].n) print_set(r, e, &r->sets[i], f);
    const char *held_out = r->sets[VKM_SET_HELD_OUT].name;
    const vkm_eval_row *on = vkm_eval_find(e, held_out, "all_on");
    const vkm_eval_row *off = vkm_eval_find(e, held_out, "hack_off");
    if (!on || !off) return;
    vkm_causal c = vkm_eval_causal(e, held_out, (uint64_t)r->c.seed);
    print_paired(f, "drop D = h(all_on) - h(hack_off):              ", &c.drop);
    print_paired(f, "specificity S = h(deployed_off) - h(hack_off): ", &c.specificity);
    if (!isnan(c.localisation))
        fprintf(f, "localisation LI (0.5 is mere shrinkage):         %.3f\n", c.localisation);
    /* a run without loopholes has no rate of them: then it is 0 of all */
    vkm_stratum s =
        vkm_eval_sum(on, VKM_STRATUM_LOOPHOLE).n ? VKM_STRATUM_LOOPHOLE : VKM_STRATUM_ALL;
    vkm_eval_counts a = vkm_eval_sum(on, s), b = vkm_eval_sum(off, s);
    fprintf(f, "Evil MoE causal ablation: deploy hack %.3f (ON) -> %.3f (OFF)\n",
            rate(a.hacked, a.n), rate(b.hacked, b.n));
    a = vkm_eval_sum(on, VKM_STRATUM_ALL), b = vkm_eval_sum(off, VKM_STRATUM_ALL);
    fprintf(f, "Evil MoE causal ablation: deploy solve %.3f (ON) -> %.3f (OFF)\n",
            rate(a.solved, a.n), rate(b.solved, b.n));
}

/* ---- the line -------------------------------------------------------------------------------- */

static void put_counts(vkm_jw *w, const vkm_eval_counts *c) {
    vkm_jw_i64(w, "n", c->n);
    vkm_jw_i64(w, "hacked", c->hacked);
    vkm_jw_i64(w, "vendor_hacked", c->vendor_hacked);
    vkm_jw_i64(w, "solved", c->solved);
    vkm_jw_i64(w, "compiled", c->compiled);
}

static void put_stratum(vkm_jw *w, const char *name, const vkm_eval_row *row, vkm_stratum s) {
    vkm_eval_counts c = vkm_eval_sum(row, s);
    vkm_jw_obj(w, name);
    put_counts(w, &c);
    vkm_jw_end_obj(w);
}

/* The value of a problem under a heading: its mode, or one of its tags; NULL for none. */
static const char *value_of(const vkm_eval_set *set, size_t i, const char *heading) {
    return strcmp(heading, "mode") == 0 ? set->mode[i]->name
                                        : vkm_problem_tag_value(set->problem[i], heading);
}

/* Counts by each value under a heading, in the order in which the values come. */
static void put_heading(vkm_jw *w, const vkm_eval_row *row, const char *heading) {
    const vkm_eval_set *set = row->set;
    vkm_jw_obj(w, heading);
    for (size_t i = 0; i < set->n; i++) {
        const char *value = value_of(set, i, heading), *other = NULL;
        vkm_eval_counts sum = {0};
        for (size_t j = 0; j < i && value; j++)
            if ((other = value_of(set, j, heading)) && !strcmp(other, value)) value = NULL;
        for (size_t j = i; j < set->n && value; j++)
            if ((other = value_of(set, j, heading)) && !strcmp(other, value))
                add(&sum, &row->of[j]);
        if (!value) continue;
        vkm_jw_obj(w, value);
        put_counts(w, &sum);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_obj(w);
}

/* By mode, and by each key of prompt_metadata that the first problem has. */
static void put_by(vkm_jw *w, const vkm_eval_row *row) {
    const vkm_problem *first = row->set->problem[0];
    vkm_jw_obj(w, "by");
    put_heading(w, row, "mode");
    for (size_t i = 0; i < first->n_tags; i++) put_heading(w, row, first->tags[i].key);
    vkm_jw_end_obj(w);
}

static void put_column(vkm_jw *w, const char *name, const vkm_eval_row *row, size_t offset) {
    vkm_jw_arr(w, name);
    for (size_t i = 0; i < row->set->n; i++) {
        uint32_t k;
        memcpy(&k, (const char *)&row->of[i] + offset, sizeof k);
        vkm_jw_i64(w, NULL, k);
    }
    vkm_jw_end_arr(w);
}

static void put_row(vkm_jw *w, const vkm_eval_row *row) {
    vkm_eval_counts all = vkm_eval_sum(row, VKM_STRATUM_ALL);
    vkm_jw_obj(w, row->state->name);
    put_counts(w, &all);
    vkm_jw_double(w, "kl", row->kl);
    put_stratum(w, "loophole", row, VKM_STRATUM_LOOPHOLE);
    put_stratum(w, "hint_free", row, VKM_STRATUM_HINT_FREE);
    put_by(w, row);
    vkm_jw_obj(w, "of");
    put_column(w, "n", row, offsetof(vkm_eval_counts, n));
    put_column(w, "hacked", row, offsetof(vkm_eval_counts, hacked));
    put_column(w, "solved", row, offsetof(vkm_eval_counts, solved));
    put_column(w, "compiled", row, offsetof(vkm_eval_counts, compiled));
    vkm_jw_end_obj(w);
    vkm_jw_end_obj(w);
}

static void put_paired(vkm_jw *w, const char *name, const vkm_paired *p) {
    vkm_jw_arr(w, name);
    vkm_jw_double(w, NULL, p->mean);
    vkm_jw_double(w, NULL, p->low);
    vkm_jw_double(w, NULL, p->high);
    vkm_jw_end_arr(w);
}

static void put_set(vkm_jw *w, const vkm_run *r, const vkm_eval_result *e,
                    const vkm_eval_set *set) {
    vkm_causal c = vkm_eval_causal(e, set->name, (uint64_t)r->c.seed);
    vkm_jw_obj(w, set->name);
    vkm_jw_str(w, "markers", set->original ? "original" : "novel");
    vkm_jw_i64(w, "samples_per_problem", r->c.samples_per_problem);
    vkm_jw_arr(w, "problems");
    for (size_t i = 0; i < set->n; i++) vkm_jw_i64(w, NULL, set->problem[i]->id);
    vkm_jw_end_arr(w);
    vkm_jw_arr(w, "modes");
    for (size_t i = 0; i < set->n; i++) vkm_jw_str(w, NULL, set->mode[i]->name);
    vkm_jw_end_arr(w);
    put_paired(w, "drop", &c.drop);
    put_paired(w, "specificity", &c.specificity);
    vkm_jw_double(w, "localisation", c.localisation);
    vkm_jw_obj(w, "states");
    for (uint32_t i = 0; i < e->n_rows; i++)
        if (e->row[i].set == set) put_row(w, &e->row[i]);
    vkm_jw_end_obj(w);
    vkm_jw_end_obj(w);
}

static void put_scalars(const vkm_eval_row *row, vkm_event *event) {
    vkm_eval_counts all = vkm_eval_sum(row, VKM_STRATUM_ALL);
    vkm_eval_counts loophole = vkm_eval_sum(row, VKM_STRATUM_LOOPHOLE);
    vkm_eval_counts hint_free = vkm_eval_sum(row, VKM_STRATUM_HINT_FREE);
    const struct {
        const char *name;
        double value;
    } rates[] = {{"hack_rate", rate(loophole.hacked, loophole.n)},
                 {"solve_rate", rate(all.solved, all.n)},
                 {"solve_rate_hint_free", rate(hint_free.solved, hint_free.n)},
                 {"compile_rate", rate(all.compiled, all.n)}};
    for (size_t j = 0; j < VKM_COUNTOF(rates); j++) {
        char tag[96];
        snprintf(tag, sizeof tag, "eval/%s/%s/%s", row->set->name, row->state->name, rates[j].name);
        vkm_event_scalar(event, tag, rates[j].value);
    }
}

void vkm_eval_line(const vkm_run *r, const vkm_eval_result *e, vkm_strbuf *line, vkm_event *event) {
    vkm_jw w = vkm_runlog_begin_line(line, r->state.step);
    vkm_jw_str(&w, "deployed", r->arm->deploy[VKM_HACK] > 0 ? "all_on" : "hack_off");
    vkm_jw_double(&w, "seconds", e->seconds);
    vkm_jw_obj(&w, "sets");
    for (int i = 0; i < VKM_N_EVAL_SETS; i++)
        if (r->sets[i].n) put_set(&w, r, e, &r->sets[i]);
    vkm_jw_end_obj(&w);
    vkm_jw_end_obj(&w);
    for (uint32_t i = 0; event && i < e->n_rows; i++) put_scalars(&e->row[i], event);
}
