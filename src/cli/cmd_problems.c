/* `vkmoe problems check FILE`: all that a run would trip over, before the run. Lines are read as
 * training reads them, canonical solutions are graded, prompts are counted in tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cli.h"
#include "rl/run.h"

typedef struct row {
    const vkm_mode *mode; /* the one that a run would show */
    const char *solution; /* what the grade of the canonical solution says */
    double cpu_s;         /* of its slowest mode */
    uint32_t tokens;      /* of the longest prompt over the modes; 0: not counted */
    bool held_out;
} row;

typedef struct check {
    const char *path;
    vkm_problems *set;
    row *rows;        /* (set->n) */
    vkm_run run;      /* only what vkm_run_mode reads */
    vkm_strbuf wrong; /* lines: one for each thing that is wrong */
    size_t n_wrong;
    double slowest_s;
    size_t n_correct;
    uint32_t shortest, longest; /* prompts, tokens */
    bool graded, counted;
} check;

/* what: a format for one line. */
static void wrong(check *c, const char *fmt, ...) VKM_PRINTF(2, 3);
static void wrong(check *c, const char *fmt, ...) {
    char text[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    vkm_strbuf_puts(&c->wrong, text);
    vkm_strbuf_putc(&c->wrong, '\n');
    c->n_wrong++;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

/* Reads all lines; those that break the schema are counted and passed over. */
static vkm_status read_file(check *c, vkm_err *err) {
    vkm_jsonl *file = NULL;
    if (vkm_problems_new(c->path, &c->set, err) || vkm_jsonl_open(c->path, NULL, &file, err))
        return err->status;
    for (;;) {
        vkm_json *doc = NULL;
        vkm_err bad = {0};
        bool failed =
            vkm_jsonl_next(file, &doc, &bad) ||
            (doc && vkm_problems_add(c->set, vkm_json_root(doc), vkm_jsonl_line(file), &bad));
        bool end = !failed && !doc;
        if (failed) wrong(c, "%s", bad.msg);
        vkm_json_free(doc);
        if (end) break;
    }
    vkm_jsonl_free(file);
    for (size_t i = 0; i < c->set->n_refused; i++) {
        const vkm_refusal *q = &c->set->refused[i];
        wrong(
            c,
            "%s:%zu: problem %lld is refused: assert %zu is of a form that is not graded (%s): %s",
            c->path, q->line, (long long)q->id, q->i_assert, q->form, q->text);
    }
    if (!c->set->n && !c->n_wrong) wrong(c, "%s: no problems in it", c->path);
    c->rows = vkm_calloc(c->set->n, sizeof *c->rows, "the problems", err);
    return err->status;
}

/* ---- modes and split ---------------------------------------------------------------------------
 */

static vkm_status find_modes(check *c, const char *list, vkm_err *err) {
    char names[1024], *rest = names;
    snprintf(names, sizeof names, "%s", list);
    c->run.modes = vkm_calloc((size_t)vkm_n_modes, sizeof *c->run.modes, "the modes", err);
    if (!c->run.modes) return err->status;
    for (char *name; (name = strsep(&rest, ","));) {
        const vkm_mode *mode = vkm_mode_find(name, err);
        if (!mode) return err->status;
        for (uint32_t i = 0; i < c->run.n_modes; i++)
            if (c->run.modes[i] == mode)
                return vkm_fail(err, VKM_USAGE, "modes: '%s' names %s twice", list, name);
        c->run.modes[c->run.n_modes++] = mode;
    }
    return VKM_OK;
}

static vkm_status assign_modes(check *c, const char *partition, vkm_err *err) {
    if (partition && vkm_partition_load(partition, &c->run.partition, err)) return err->status;
    for (size_t i = 0; i < c->set->n; i++)
        c->rows[i].mode = vkm_run_mode(&c->run, &c->set->items[i]);
    for (size_t i = 0; c->run.partition && i < c->run.partition->n; i++) {
        int64_t id = c->run.partition->rows[i].id;
        if (!vkm_problems_find(c->set, id))
            wrong(c, "%s: problem %lld is not among the problems that can be graded", partition,
                  (long long)id);
    }
    return VKM_OK;
}

static vkm_status split(check *c, size_t held_out, uint64_t seed, const char *other, vkm_err *err) {
    size_t *order = vkm_calloc(c->set->n, sizeof *order, "the problems", err);
    vkm_problems *eval = NULL;
    vkm_err same = {0};
    if (!order || vkm_select_shuffle(seed, c->set, order, err)) goto done;
    if (held_out && held_out >= c->set->n)
        wrong(c, "%s: %zu problems are to be held out of %zu", c->path, held_out, c->set->n);
    for (size_t i = 0; i < held_out && i < c->set->n; i++) c->rows[order[i]].held_out = true;
    if (other && !vkm_problems_load(other, &eval, err) && vkm_select_disjoint(c->set, eval, &same))
        wrong(c, "%s", same.msg);
    vkm_problems_free(eval);
done:
    free(order);
    return err->status;
}

/* ---- prompts -----------------------------------------------------------------------------------
 */

static vkm_status count_tokens(check *c, const char *model, uint32_t limit, vkm_err *err) {
    vkm_tokenizer *t = NULL;
    if (vkm_tokenizer_load(model, &t, err)) return err->status;
    for (size_t i = 0; i < c->set->n && !err->status; i++) {
        const vkm_problem *p = &c->set->items[i];
        row *r = &c->rows[i];
        for (uint32_t m = 0; m < c->run.n_modes && !err->status; m++) {
            vkm_ids ids = {0};
            if (!vkm_prompt_ids(t, p, c->run.modes[m], &ids, err) && ids.n > r->tokens)
                r->tokens = (uint32_t)ids.n;
            free(ids.id);
        }
        if (r->tokens > limit)
            wrong(c, "%s:%zu: problem %lld has a prompt of %u tokens, the limit is %u", c->path,
                  p->line, (long long)p->id, r->tokens, limit);
        if (i == 0 || r->tokens < c->shortest) c->shortest = r->tokens;
        if (r->tokens > c->longest) c->longest = r->tokens;
    }
    vkm_tokenizer_free(t);
    c->counted = true;
    return err->status;
}

/* ---- canonical solutions -----------------------------------------------------------------------
 */

static const char *verdict(const vkm_grade *g) {
    return g->infra_error             ? "not graded"
           : g->evidence.gt_correct   ? "correct"
           : g->cpu_limited           ? "CPU limit"
           : g->wall_limited          ? "wall limit"
           : !g->evidence.format_ok   ? "not one block"
           : !g->evidence.can_compile ? "no compile"
                                      : "wrong";
}

static void note(check *c, size_t i, const vkm_mode *mode, const vkm_grade *g) {
    const vkm_problem *p = &c->set->items[i];
    row *r = &c->rows[i];
    if (g->cpu_s > r->cpu_s) r->cpu_s = g->cpu_s;
    if (g->cpu_s > c->slowest_s) c->slowest_s = g->cpu_s;
    if (!r->solution || g->infra_error || !g->evidence.gt_correct) r->solution = verdict(g);
    if (g->infra_error || !g->evidence.gt_correct)
        wrong(c, "%s:%zu: problem %lld: its canonical solution in mode %s: %s%s%s", c->path,
              p->line, (long long)p->id, mode->name, verdict(g), *g->reason ? ": " : "", g->reason);
}

static vkm_status submit_all(check *c, vkm_grader *grader, vkm_err *err) {
    vkm_strbuf text = {0};
    for (size_t i = 0; i < c->set->n && !err->status; i++) {
        uint64_t ticket;
        vkm_strbuf_clear(&text);
        vkm_strbuf_printf(&text, "```python\n%s\n```", c->set->items[i].canonical_solution);
        if (vkm_strbuf_check(&text, "a solution", err)) break;
        for (uint32_t m = 0; m < c->run.n_modes && !err->status; m++)
            (void)!vkm_grader_submit(grader, &c->set->items[i], c->run.modes[m], text.data, text.n,
                                     &ticket, err);
    }
    vkm_strbuf_free(&text);
    return err->status;
}

static vkm_status grade_solutions(check *c, const vkm_grade_config *config, vkm_err *err) {
    vkm_grader *grader;
    vkm_progress bar;
    vkm_grade g;
    uint64_t ticket, first = 0, n = 0;
    if (vkm_grader_open(config, &grader, err)) return err->status;
    vkm_progress_begin(&bar, "solutions", 0, c->set->n * c->run.n_modes);
    if (!submit_all(c, grader, err))
        while (vkm_grader_next(grader, true, &ticket, &g)) {
            if (!n++) first = ticket;
            size_t at = (size_t)(ticket - first);
            note(c, at / c->run.n_modes, c->run.modes[at % c->run.n_modes], &g);
            vkm_progress_at(&bar, n, "graded");
        }
    vkm_progress_end(&bar);
    vkm_grader_close(grader);
    for (size_t i = 0; i < c->set->n; i++)
        c->n_correct += c->rows[i].solution && !strcmp(c->rows[i].solution, "correct");
    c->graded = true;
    return err->status;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static size_t count_mode(const check *c, const vkm_mode *mode) {
    size_t n = 0;
    for (size_t i = 0; i < c->set->n; i++) n += c->rows[i].mode == mode;
    return n;
}

static size_t count_held_out(const check *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->set->n; i++) n += c->rows[i].held_out;
    return n;
}

static size_t count_asserts(const check *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->set->n; i++) n += c->set->items[i].n_asserts;
    return n;
}

static void print_rows(const check *c) {
    printf("%6s %8s %-10s %7s %7s  %-13s %-8s %-13s %6s\n", "line", "id", "difficulty", "asserts",
           "tokens", "mode", "split", "solution", "CPU s");
    for (size_t i = 0; i < c->set->n; i++) {
        const vkm_problem *p = &c->set->items[i];
        const row *r = &c->rows[i];
        char tokens[16] = "-", cpu[16] = "-";
        if (c->counted) snprintf(tokens, sizeof tokens, "%u", r->tokens);
        if (c->graded) snprintf(cpu, sizeof cpu, "%.2f", r->cpu_s);
        printf("%6zu %8lld %-10.10s %7zu %7s  %-13s %-8s %-13s %6s\n", p->line, (long long)p->id,
               p->difficulty, p->n_asserts, tokens, r->mode->name,
               r->held_out ? "held out" : "train", r->solution ? r->solution : "-", cpu);
    }
}

static void print_text(const check *c, uint32_t limit) {
    size_t held_out = count_held_out(c);
    print_rows(c);
    printf("\n%zu problems, %zu asserts; %zu refused for the form of an assert\n", c->set->n,
           count_asserts(c), c->set->n_refused);
    printf("split: %zu train, %zu held out; modes:", c->set->n - held_out, held_out);
    for (int m = 0; m < vkm_n_modes; m++)
        if (count_mode(c, &vkm_modes[m]))
            printf(" %s %zu", vkm_modes[m].name, count_mode(c, &vkm_modes[m]));
    putchar('\n');
    if (c->counted) printf("prompts: %u to %u tokens, limit %u\n", c->shortest, c->longest, limit);
    if (c->graded)
        printf("canonical solutions: %zu of %zu correct in every mode asked for, at most %.2f s of "
               "CPU\n",
               c->n_correct, c->set->n, c->slowest_s);
    if (c->n_wrong) printf("\n%zu wrong:\n%s", c->n_wrong, vkm_strbuf_str(&c->wrong));
}

static void json_rows(const check *c, vkm_jw *w) {
    vkm_jw_arr(w, "problems");
    for (size_t i = 0; i < c->set->n; i++) {
        const vkm_problem *p = &c->set->items[i];
        const row *r = &c->rows[i];
        vkm_jw_obj(w, NULL);
        vkm_jw_u64(w, "line", p->line);
        vkm_jw_i64(w, "id", p->id);
        vkm_jw_str(w, "difficulty", p->difficulty);
        vkm_jw_u64(w, "asserts", p->n_asserts);
        if (c->counted) vkm_jw_u64(w, "tokens", r->tokens);
        vkm_jw_str(w, "mode", r->mode->name);
        vkm_jw_bool(w, "held_out", r->held_out);
        if (c->graded) {
            vkm_jw_str(w, "solution", r->solution);
            vkm_jw_double(w, "cpu_s", r->cpu_s);
        }
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
}

static void json_refused(const check *c, vkm_jw *w) {
    vkm_jw_arr(w, "refused");
    for (size_t i = 0; i < c->set->n_refused; i++) {
        const vkm_refusal *q = &c->set->refused[i];
        vkm_jw_obj(w, NULL);
        vkm_jw_u64(w, "line", q->line);
        vkm_jw_i64(w, "id", q->id);
        vkm_jw_u64(w, "assert", q->i_assert);
        vkm_jw_str(w, "form", q->form);
        vkm_jw_str(w, "text", q->text);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
}

static vkm_status print_json(const check *c, vkm_err *err) {
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 1);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "path", c->path);
    vkm_jw_bool(&w, "ok", c->n_wrong == 0);
    vkm_jw_arr(&w, "wrong");
    for (const char *at = vkm_strbuf_str(&c->wrong), *end; (end = strchr(at, '\n')); at = end + 1)
        vkm_jw_strn(&w, NULL, at, (size_t)(end - at));
    vkm_jw_end_arr(&w);
    vkm_jw_obj(&w, "modes");
    for (int m = 0; m < vkm_n_modes; m++)
        vkm_jw_u64(&w, vkm_modes[m].name, count_mode(c, &vkm_modes[m]));
    vkm_jw_end_obj(&w);
    json_refused(c, &w);
    json_rows(c, &w);
    vkm_jw_end_obj(&w);
    if (!vkm_strbuf_check(&text, "the report", err)) puts(vkm_strbuf_str(&text));
    vkm_strbuf_free(&text);
    return err->status;
}

vkm_status vkm_cmd_problems(int argc, char **argv, vkm_err *err) {
    static check c;
    const char *action = NULL, *model = NULL, *partition = NULL, *modes = "run_tests";
    const char *eval_data = NULL;
    vkm_grade_config grade = vkm_grade_config_default();
    int64_t held_out = 0, seed = 41, limit = 1536, jobs = 0;
    int json = 0, no_grade = 0, sandbox = 0;
    double cpu_s = grade.sandbox.cpu_time_s;
    vkm_opt opts[] = {
        {"ACTION", VKM_OPT_ARG, &action, .help = "check"},
        {"FILE", VKM_OPT_ARG, &c.path, .help = "problems, JSONL"},
        {"modes", VKM_OPT_STRING, &modes, .arg = "A,B",
         .help = "modes that a run would show; solutions are graded in each"},
        {"partition", VKM_OPT_STRING, &partition, .arg = "FILE",
         .help = "JSON file {problem id: mode}; else the modes take turns"},
        {"eval-problems", VKM_OPT_INT, &held_out, .min = 0, .max = 1000000,
         .help = "problems that a run would hold out"},
        {"seed", VKM_OPT_INT, &seed, .min = 0, .max = 9007199254740992.0, .help = "of that split"},
        {"eval-data", VKM_OPT_STRING, &eval_data, .arg = "FILE",
         .help = "held-out problems, which must not be among these"},
        {"model", VKM_OPT_STRING, &model, .arg = "DIR", .help = "counts prompts in its tokens"},
        {"max-prompt-length", VKM_OPT_INT, &limit, .min = 1, .max = 131072, .help = "tokens"},
        {"no-grade", VKM_OPT_FLAG, &no_grade, .help = "do not run the canonical solutions"},
        {"jobs", VKM_OPT_INT, &jobs, .min = 0, .max = 256,
         .help = "solutions graded at one time, 0 for one a core"},
        {"cpu-time", VKM_OPT_FLOAT, &cpu_s, .min = 1, .max = 3600, .arg = "S",
         .help = "CPU seconds of one job"},
        {"sandbox", VKM_OPT_CHOICE, &sandbox, .choices = "bwrap|unsafe_none",
         .help = "a bubblewrap box for the solutions, or (unsafe) none"},
        VKM_CLI_JSON(&json),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (strcmp(action, "check") != 0)
        return vkm_fail(err, VKM_USAGE, "'%.64s' is not known; write `vkmoe problems check FILE`",
                        action);
    grade.workers = (int)jobs;
    grade.sandbox.cpu_time_s = (int)(cpu_s + 0.999);
    grade.sandbox.kind = sandbox ? VKM_SANDBOX_UNSAFE_NONE : VKM_SANDBOX_BWRAP;
    if (find_modes(&c, modes, err) || read_file(&c, err) || assign_modes(&c, partition, err) ||
        split(&c, (size_t)held_out, (uint64_t)seed, eval_data, err) ||
        (model && count_tokens(&c, model, (uint32_t)limit, err)) ||
        (!no_grade && c.set->n && grade_solutions(&c, &grade, err)))
        goto done;
    if (json)
        (void)!print_json(&c, err);
    else
        print_text(&c, (uint32_t)limit);
    if (c.n_wrong && !err->status) vkm_fail(err, VKM_FAILED, "%s: %zu wrong", c.path, c.n_wrong);
done:
    vkm_partition_free(c.run.partition);
    free(c.run.modes);
    free(c.rows);
    vkm_problems_free(c.set);
    vkm_strbuf_free(&c.wrong);
    return err->status;
}
