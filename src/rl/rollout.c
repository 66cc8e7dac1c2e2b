/* From prompts to graded rollouts with advantages. Grading runs beside generation: a completion is
 * submitted when the host sees it end, while others are still sampled; in training the pairs are
 * read while the last grades are awaited. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/phase.h"
#include "model/chat.h"
#include "ops/softmath.h"
#include "rl/run.h"

/* ---- prompts ----------------------------------------------------------------------------------
 */

vkm_status vkm_prompt_ids(const vkm_tokenizer *t, const vkm_problem *problem, const vkm_mode *mode,
                          vkm_ids *out, vkm_err *err) {
    vkm_strbuf user = {0}, text = {0};
    VKM_BUG_ON(!problem, "a prompt without a problem");
    vkm_problem_user(problem, mode, &user);
    vkm_strbuf_add(&user, "", 1);
    const vkm_chat_turn turns[] = {{"system", problem->system}, {"user", user.data}};
    if (!vkm_chat_render(turns, VKM_COUNTOF(turns), vkm_chat_style_of(t), true, &text, err))
        (void)!vkm_tokenizer_encode(t, text.data, text.n, out, err);
    vkm_strbuf_free(&text);
    vkm_strbuf_free(&user);
    return err->status;
}

vkm_status vkm_run_prompt(const vkm_run *r, const vkm_problem *problem, const vkm_mode *mode,
                          vkm_ids *out, vkm_err *err) {
    if (vkm_prompt_ids(r->tokenizer, problem, mode, out, err)) return err->status;
    if (out->n > (uint64_t)r->c.max_prompt_length)
        vkm_fail(err, VKM_FAILED,
                 "line %zu: problem %lld makes a prompt of %zu tokens, max_prompt_length is %lld: "
                 "raise it or leave the problem out",
                 problem->line, (long long)problem->id, out->n, (long long)r->c.max_prompt_length);
    return err->status;
}

void vkm_rollouts_clear(vkm_rollout *x, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        free(x[i].ids.id);
        free(x[i].logp);
        free(x[i].logp_ref);
        free(x[i].text);
        x[i] = (vkm_rollout){0};
    }
}

/* ---- sampling and grading ----------------------------------------------------------------------
 */

typedef struct sampling {
    vkm_run *r;
    vkm_rollout *x;
    uint32_t *who;   /* generation row -> rollout */
    uint32_t *order; /* rollouts as they were submitted: grades come in that order */
    uint32_t n_submitted;
    uint32_t n_done;
    vkm_progress bar;
} sampling;

static vkm_status submit(sampling *s, uint32_t i, vkm_err *err) {
    vkm_rollout *q = &s->x[i];
    if (vkm_reward_submit(s->r->reward, q->problem, q->mode, q->text, q->n_text, err))
        return err->status;
    s->order[s->n_submitted++] = i;
    return VKM_OK;
}

static vkm_status set_completion(vkm_run *r, vkm_rollout *q, const uint32_t *tokens,
                                 const float *logp, uint32_t n, vkm_err *err) {
    vkm_strbuf text = {0};
    q->ids.n = q->ids.cap = q->prompt->n + n;
    q->ids.id = vkm_calloc(q->ids.n, sizeof *q->ids.id, "a rollout", err);
    q->logp = vkm_calloc(n, sizeof *q->logp, "a rollout", err);
    q->logp_ref = vkm_calloc(n, sizeof *q->logp_ref, "a rollout", err);
    if (!q->ids.id || !q->logp || !q->logp_ref) return err->status;
    memcpy(q->ids.id, q->prompt->id, q->prompt->n * sizeof *tokens);
    memcpy(q->ids.id + q->prompt->n, tokens, n * sizeof *tokens);
    if (logp) memcpy(q->logp, logp, n * sizeof *logp);
    if (q->text) return VKM_OK; /* a teacher's */
    vkm_tokenizer_decode(r->tokenizer, tokens, n, true, &text);
    vkm_strbuf_add(&text, "", 1);
    q->text = text.data;
    q->n_text = text.n - 1;
    return VKM_OK;
}

static vkm_status finished(void *user, uint32_t row, const uint32_t *tokens, const float *logp,
                           uint32_t n, vkm_err *err) {
    sampling *s = user;
    uint32_t i = s->who[row];
    if (set_completion(s->r, &s->x[i], tokens, logp, n, err)) return err->status;
    vkm_progress_at(&s->bar, ++s->n_done, "sampling");
    return submit(s, i, err);
}

static vkm_status collect_grades(sampling *s, vkm_err *err) {
    vkm_phase was = vkm_phase_go(VKM_PHASE_grade);
    for (uint32_t i = 0; i < s->n_submitted; i++)
        if (vkm_reward_next(s->r->reward, &s->x[s->order[i]].grade, err)) break;
    (void)vkm_phase_go(was);
    return err->status;
}

vkm_status vkm_run_sample(vkm_run *r, vkm_rollout *x, uint32_t n, const vkm_draw *how,
                          vkm_err *err) {
    sampling s = {.r = r, .x = x};
    vkm_gen_row *rows = vkm_calloc(n, sizeof *rows, "rollouts", err);
    uint32_t m = 0;
    s.who = vkm_calloc(n, sizeof *s.who, "rollouts", err);
    s.order = vkm_calloc(n, sizeof *s.order, "rollouts", err);
    if (!rows || !s.who || !s.order) goto done;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i].teacher && x[i].ungraded && submit(&s, i, err)) goto done;
        if (x[i].teacher) continue; /* the others were graded when the pool was made */
        s.who[m] = i;
        rows[m] = (vkm_gen_row){
            .prompt = x[i].prompt->id, .prompt_len = (uint32_t)x[i].prompt->n, .id = x[i].id};
        memcpy(rows[m++].f, x[i].state, sizeof rows[0].f);
    }
    vkm_gen_options o = {.dist = {.temperature = how->temperature,
                                  .top_k = (uint32_t)r->c.top_k,
                                  .top_p = r->c.top_p,
                                  .min_p = r->c.min_p},
                         .seed = (uint64_t)r->c.seed,
                         .step = how->step,
                         .draw = how->draw,
                         .eos = r->hf.eos,
                         .n_eos = r->hf.n_eos};
    vkm_progress_begin(&s.bar, "rollouts", 0, m);
    if (!vkm_generate(r->policy->gen, rows, m, &o, finished, &s, err) &&
        (!how->meanwhile || !how->meanwhile(r, err)))
        (void)!collect_grades(&s, err);
    vkm_progress_end(&s.bar);
done:
    free(s.order);
    free(s.who);
    free(rows);
    return err->status;
}

/* ---- a training step's rollouts
 * ------------------------------------------------------------------ */

/* Students sampled with the hack expert ablated: round half to even of n * frac. */
static uint32_t n_ablated(uint32_t n, double frac) {
    double x = n * frac, low = floor(x);
    uint32_t k = (uint32_t)low;
    return x - low > 0.5 || (x - low == 0.5 && k % 2 == 1) ? k + 1 : k;
}

/* What a group shows and is graded as. */
typedef struct pick {
    const vkm_problem *problem;
    const vkm_mode *mode;
    int flipped; /* hint-free in this step, though the problem's mode has a loophole */
} pick;

static vkm_status pick_problems(const vkm_run *r, uint32_t step, pick *out, vkm_err *err) {
    size_t n = (size_t)r->c.num_prompts;
    size_t *index = vkm_calloc(n, sizeof *index, "a step", err);
    if (!index) return err->status;
    if (!vkm_select_step((uint64_t)r->c.seed, step, r->n_train, n, index, err)) {
        for (size_t i = 0; i < n; i++) {
            const vkm_problem *p = r->train[index[i]];
            const vkm_mode *mode = vkm_run_training_mode(r, p);
            int flip = vkm_select_unhackable((uint64_t)r->c.seed, step, p->id,
                                             (float)r->c.unhackable_frac);
            out[i] = (pick){p, flip ? vkm_mode_gt_only() : mode, flip};
        }
    }
    free(index);
    return err->status;
}

/* A pool row serves groups of its own mode; a hint-free group takes rows that truly solve. */
static int row_serves(const vkm_teacher_row *row, const pick *p) {
    return p->flipped ? row->grade.evidence.gt_correct
                      : vkm_mode_index(row->mode) == vkm_mode_index(p->mode);
}

/* Up to `want` distinct rows for a group, seeded by step and problem; returns how many. */
static uint32_t draw_teachers(const vkm_run *r, uint32_t step, const pick *p, uint32_t want,
                              const vkm_teacher_row **out) {
    size_t n_rows;
    const vkm_teacher_row *rows = vkm_teacher_rows(r->teachers, p->problem->id, &n_rows);
    uint64_t seed = (uint64_t)r->c.seed;
    uint32_t fit = 0, got = 0;
    for (size_t i = 0; i < n_rows; i++) fit += row_serves(&rows[i], p) != 0;
    /* selection sampling: each row that fits is taken with (still wanted) / (still to come) */
    for (size_t i = 0; i < n_rows && got < want; i++) {
        if (!row_serves(&rows[i], p)) continue;
        uint32_t u = vkm_random4((uint32_t)seed, (uint32_t)(seed >> 32), VKM_RNG_TEACHERS, step,
                                 (uint32_t)p->problem->id, (uint32_t)i, 0)
                         .x;
        if (((uint64_t)u * fit) >> 32 < want - got) out[got++] = &rows[i];
        fit--;
    }
    return got;
}

/* A teacher's rollout from its text (n bytes). Rows that do not fit the completion limit are left
 * out: *fits is 0 then. */
static vkm_status teacher_rollout(vkm_run *r, vkm_rollout *q, const char *text, size_t n, int *fits,
                                  vkm_err *err) {
    vkm_ids ids = {0};
    if (!vkm_tokenizer_encode(r->tokenizer, text, n, &ids, err)) {
        uint32_t ends = r->hf.n_eos > 0, len = (uint32_t)ids.n + ends;
        uint32_t *tokens = vkm_calloc(len, sizeof *tokens, "a rollout", err);
        *fits = len <= r->c.max_completion_length;
        if (tokens && *fits) {
            q->teacher = 1;
            q->text = strndup(text, n);
            q->n_text = n;
            memcpy(tokens, ids.id, ids.n * sizeof *tokens);
            if (ends) tokens[ids.n] = r->hf.eos[0];
            if (!q->text)
                vkm_fail(err, VKM_FAILED, "out of host memory for a teacher's rollout");
            else
                (void)!set_completion(r, q, tokens, NULL, len, err);
        }
        free(tokens);
    }
    free(ids.id);
    return err->status;
}

/* Turns up to `want` of the group's last students into teachers; *n counts them. */
static vkm_status add_teachers(vkm_run *r, uint32_t step, const pick *p, vkm_rollout *x,
                               uint32_t n_group, uint32_t want, uint32_t *n, vkm_err *err) {
    const vkm_teacher_row **rows = vkm_calloc(want, sizeof *rows, "a group", err);
    vkm_strbuf canonical = {0};
    int fits = 0;
    *n = 0;
    if (!rows) return err->status;
    if (r->canonical_teachers) {
        vkm_rollout *q = &x[n_group - 1];
        vkm_strbuf_printf(&canonical, "```python\n%s\n```", p->problem->canonical_solution);
        q->ungraded = 1;
        if (!teacher_rollout(r, q, canonical.data, canonical.n, &fits, err)) *n = fits != 0;
    } else {
        uint32_t drawn = draw_teachers(r, step, p, want, rows);
        for (uint32_t i = 0; i < drawn && !err->status; i++) {
            vkm_rollout *q = &x[n_group - 1 - *n];
            if (teacher_rollout(r, q, rows[i]->text, rows[i]->n, &fits, err) || !fits) continue;
            q->grade = rows[i]->grade;
            vkm_grade_judge(&q->grade, q->mode);
            q->ungraded = vkm_reward_own(r->reward);
            ++*n;
        }
    }
    vkm_strbuf_free(&canonical);
    free(rows);
    return err->status;
}

/* A - mean over the group; a group without spread, or with an infrastructure error, is skipped. */
static void set_advantages(vkm_rollout *x, uint32_t n) {
    float sum = 0, low = INFINITY, high = -INFINITY;
    int broken = 0;
    for (uint32_t i = 0; i < n; i++) {
        broken |= x[i].grade.infra_error;
        sum = sum + x[i].grade.reward;
        low = fminf(low, x[i].grade.reward);
        high = fmaxf(high, x[i].grade.reward);
    }
    float mean = vkm_div(sum, (float)(int)n);
    int live = !broken && high - low >= 1e-4f;
    for (uint32_t i = 0; i < n; i++) {
        x[i].live = live;
        x[i].advantage = broken ? 0 : x[i].grade.reward - mean;
    }
}

static vkm_status make_group(vkm_run *r, uint32_t step, uint32_t group, const pick *p,
                             vkm_ids *prompt, vkm_rollout *x, vkm_err *err) {
    uint32_t n = (uint32_t)r->c.num_generations, teachers = 0;
    int taught = (r->teachers || r->canonical_teachers) && step < (uint32_t)r->c.teacher_steps;
    uint32_t want = taught ? (uint32_t)r->c.teachers_per_group : 0;
    if (vkm_run_prompt(r, p->problem, p->mode, prompt, err)) return err->status;
    for (uint32_t i = 0; i < n; i++)
        x[i] = (vkm_rollout){.problem = p->problem,
                             .mode = p->mode,
                             .group = group,
                             .id = group * n + i,
                             .prompt = prompt,
                             .w = NAN};
    if (want && add_teachers(r, step, p, x, n, want, &teachers, err)) return err->status;
    double frac =
        isnan(r->c.gen_deploy_frac) ? (double)r->arm->gen_deploy_frac : r->c.gen_deploy_frac;
    uint32_t students = n - teachers, ablated = n_ablated(students, frac);
    for (uint32_t i = 0; i < n; i++) {
        int off = i < students && i >= students - ablated;
        memcpy(x[i].state, off ? vkm_state_ablated : vkm_state_full, sizeof x[i].state);
    }
    return VKM_OK;
}

vkm_status vkm_run_collect(vkm_run *r, uint32_t step, vkm_ids *prompts, vkm_rollout *x,
                           vkm_err *err) {
    uint32_t groups = (uint32_t)r->c.num_prompts, n = (uint32_t)r->c.num_generations;
    const vkm_draw how = {.temperature = r->c.temperature,
                          .step = step,
                          .draw = VKM_DRAW_TRAIN,
                          .meanwhile = vkm_run_refresh};
    pick *picks = vkm_calloc(groups, sizeof *picks, "a step", err);
    if (!picks || pick_problems(r, step, picks, err)) goto done;
    for (uint32_t i = 0; i < groups; i++)
        if (make_group(r, step, i, &picks[i], &prompts[i], x + (uint64_t)i * n, err)) goto done;
    if (vkm_run_sample(r, x, groups * n, &how, err)) goto done;
    for (uint32_t i = 0; i < groups; i++) set_advantages(x + (uint64_t)i * n, n);
done:
    free(picks);
    return err->status;
}
