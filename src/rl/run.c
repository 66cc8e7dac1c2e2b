/* Opens and closes a run: checks what the config names, in the order in which a user would mend it.
 */
#include "rl/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "model/model_files.h"

const vkm_mode *vkm_run_mode(const vkm_run *r, const vkm_problem *problem) {
    VKM_BUG_ON(!problem, "a mode without a problem");
    const vkm_mode *mode = r->partition ? vkm_partition_mode(r->partition, problem->id) : NULL;
    return mode ? mode : r->modes[problem->line % r->n_modes];
}

const vkm_mode *vkm_run_training_mode(const vkm_run *r, const vkm_problem *problem) {
    const vkm_mode *mode = vkm_run_mode(r, problem);
    return r->inoculated ? &r->inoculated[vkm_mode_index(mode)] : mode;
}

/* The rows of all modes with hints that allow what they disclose. */
static vkm_status inoculate(vkm_run *r, vkm_err *err) {
    static const char allowed[] = ", which you may game";
    r->inoculated = vkm_calloc((size_t)vkm_n_modes, sizeof *r->inoculated, "the modes", err);
    for (int i = 0; r->inoculated && i < vkm_n_modes && !err->status; i++) {
        r->inoculated[i] = vkm_modes[i];
        if (!vkm_modes[i].hint) continue;
        size_t n = strlen(vkm_modes[i].hint) + sizeof allowed;
        char *hint = vkm_calloc(n, 1, "the modes", err);
        if (hint) snprintf(hint, n, "%s%s", vkm_modes[i].hint, allowed);
        r->inoculated[i].hint = hint;
    }
    return err->status;
}

static void free_inoculated(vkm_run *r) {
    for (int i = 0; r->inoculated && i < vkm_n_modes; i++)
        if (r->inoculated[i].hint != vkm_modes[i].hint) free((char *)r->inoculated[i].hint);
    free(r->inoculated);
}

static vkm_status find_modes(vkm_run *r, vkm_err *err) {
    char names[VKM_CONFIG_STRING_BYTES], *rest = names;
    memcpy(names, r->c.modes, sizeof names);
    r->modes = vkm_calloc((size_t)vkm_n_modes, sizeof *r->modes, "the modes", err);
    if (!r->modes) return err->status;
    for (char *name; (name = strsep(&rest, ","));) {
        const vkm_mode *mode = vkm_mode_find(name, err);
        if (!mode) return err->status;
        for (uint32_t i = 0; i < r->n_modes; i++)
            if (r->modes[i] == mode)
                return vkm_fail(err, VKM_USAGE, "modes: '%s' names %s twice", r->c.modes, name);
        r->modes[r->n_modes++] = mode;
    }
    return VKM_OK;
}

static vkm_status load_problems(const char *path, vkm_problems **out, vkm_err *err) {
    if (!vkm_file_exists(path) && !vkm_dir_exists(path))
        return vkm_fail(
            err, VKM_FAILED,
            "%s: cannot open: no such file; is the path right? docs/real-run.md says where "
            "problems come from",
            path);
    if (vkm_problems_load(path, out, err)) return err->status;
    for (size_t i = 0; i < (*out)->n_refused; i++) {
        const vkm_refusal *q = &(*out)->refused[i];
        vkm_warn("%s: line %zu: problem %lld is left out: assert %zu is of a form that is not "
                 "graded (%s): %s",
                 path, q->line, (long long)q->id, q->i_assert, q->form, q->text);
    }
    vkm_info("%s: %zu problems, %zu left out", path, (*out)->n, (*out)->n_refused);
    return VKM_OK;
}

/* n problems from place `first` on of a seeded shuffle. */
static vkm_status take(const vkm_run *r, const vkm_problems *from, size_t first, size_t n,
                       vkm_eval_set *out, vkm_err *err) {
    size_t *order = vkm_calloc(from->n, sizeof *order, "the problems", err);
    out->problem = vkm_calloc(n, sizeof *out->problem, "the problems", err);
    out->mode = vkm_calloc(n, sizeof *out->mode, "the problems", err);
    if (order && out->problem && out->mode &&
        !vkm_select_shuffle((uint64_t)r->c.seed, from, order, err))
        for (; out->n < n; out->n++) out->problem[out->n] = &from->items[order[first + out->n]];
    free(order);
    return err->status;
}

/* Held out are the first problems of a seeded shuffle: of a file of their own, or (then training
 * does without them) of the training file. The set of training problems follows behind. */
static vkm_status split(vkm_run *r, vkm_err *err) {
    const vkm_problems *all = r->problems, *from = r->eval_file ? r->eval_file : all;
    vkm_eval_set *held_out = &r->sets[VKM_SET_HELD_OUT], *seen = &r->sets[VKM_SET_TRAIN];
    vkm_eval_set train = {0};
    size_t wanted = (size_t)r->c.eval_problems, n_seen = (size_t)r->c.eval_train_problems;
    *held_out = (vkm_eval_set){.name = "held_out",
                               .original = r->c.eval_markers == VKM_eval_markers_original};
    *seen = (vkm_eval_set){.name = "train", .original = 1};
    if (r->eval_file && (wanted == 0 || wanted > from->n)) wanted = from->n;
    if (!r->eval_file && wanted >= from->n)
        return vkm_fail(err, VKM_USAGE,
                        "eval_problems: %zu are to be held out of %zu problems of '%s'; ask for "
                        "fewer or name a file with --eval_data",
                        wanted, from->n, all->path);
    size_t taken = r->eval_file ? 0 : wanted;
    if (r->c.eval_train_problems < 0) n_seen = wanted;
    if (n_seen > all->n - taken) n_seen = all->n - taken;
    size_t full = (size_t)r->c.full_rollouts;
    if (r->c.samples_per_problem == 0)
        r->c.samples_per_problem = wanted ? (int64_t)((full + wanted - 1) / wanted) : 1;
    if (take(r, from, 0, wanted, held_out, err) || take(r, all, taken, n_seen, seen, err) ||
        take(r, all, taken, all->n - taken, &train, err))
        goto done;
    r->n_train = train.n;
    r->train = train.problem;
    train.problem = NULL;
    for (size_t i = 0; r->eval_file && i < all->n; i++) r->train[i] = &all->items[i];
    if (r->n_train < (size_t)r->c.num_prompts)
        vkm_fail(err, VKM_USAGE, "num_prompts: a step takes %lld of only %zu training problems",
                 (long long)r->c.num_prompts, r->n_train);
done:
    free(train.problem), free(train.mode);
    return err->status;
}

/* What each problem of an evaluation shows: with novel markers, the row whose marker training never
 * shows. */
static void choose_eval_modes(vkm_run *r) {
    for (int s = 0; s < VKM_N_EVAL_SETS; s++)
        for (size_t i = 0; i < r->sets[s].n; i++) {
            const vkm_problem *p = r->sets[s].problem[i];
            const vkm_mode *mode = vkm_run_mode(r, p);
            r->sets[s].mode[i] = r->sets[s].original
                                     ? mode
                                     : vkm_mode_at_evaluation(mode, (uint64_t)r->c.seed, p->id);
        }
}

/* ---- pairs -------------------------------------------------------------------------------------
 */

static vkm_status load_pairs(vkm_run *r, vkm_err *err) {
    vkm_pairs *pairs;
    if (!r->c.pairs[0])
        return vkm_fail(err, VKM_USAGE,
                        "pairs: %s%s needs hack/clean pairs; name a file with --pairs",
                        vkm_arm_reads_pairs(r->arm) ? "arm " : "retain_heal",
                        vkm_arm_reads_pairs(r->arm) ? r->arm->name : "");
    if (vkm_pairs_load(r->c.pairs, &pairs, err)) return err->status;
    r->pairs = vkm_calloc(pairs->n, sizeof *r->pairs, "the pairs", err);
    uint64_t most = (uint64_t)(r->c.max_prompt_length + r->c.max_completion_length);
    for (; r->pairs && r->n_pairs < pairs->n && !err->status; r->n_pairs++)
        if (vkm_pair_encode(r->tokenizer, &pairs->items[r->n_pairs], most, &r->pairs[r->n_pairs],
                            err))
            vkm_fail_in(err, "%s", r->c.pairs);
    vkm_pairs_free(pairs);
    return err->status;
}

/* ---- device state ---------------------------------------------------------------------------- */

static uint32_t most(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}
static uint32_t least(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

vkm_status vkm_eval_rollouts(size_t n_problems, int64_t samples_per_problem, uint32_t *out,
                             vkm_err *err) {
    uint64_t n;
    *out = 0;
    if (__builtin_mul_overflow((uint64_t)n_problems, (uint64_t)samples_per_problem, &n) ||
        n > UINT32_MAX)
        return vkm_fail(err, VKM_USAGE,
                        "samples_per_problem: %lld completions of each of %zu problems are more "
                        "than %u; lower it or eval_problems",
                        (long long)samples_per_problem, n_problems, UINT32_MAX);
    *out = (uint32_t)n;
    return VKM_OK;
}

static vkm_status open_policy(vkm_run *r, vkm_plan *dry, vkm_err *err) {
    const vkm_config *c = &r->c;
    int trains = r->purpose == VKM_RUN_TRAINS;
    uint32_t step = (uint32_t)(c->num_prompts * c->num_generations), eval;
    uint32_t wave = c->max_num_seqs ? least((uint32_t)c->max_num_seqs, step) : step;
    /* a group has two prefills at most: with the hack expert and without */
    uint32_t group = (uint32_t)c->num_generations, prompts = 2 * ((wave + group - 1) / group);
    uint64_t n_eval = r->sets[VKM_SET_HELD_OUT].n;
    if (n_eval < r->sets[VKM_SET_TRAIN].n) n_eval = r->sets[VKM_SET_TRAIN].n;
    if (vkm_eval_rollouts(n_eval, c->samples_per_problem, &eval, err)) return err->status;
    vkm_policy_limits max = {.max_prompt = (uint32_t)c->max_prompt_length,
                             .max_new = (uint32_t)c->max_completion_length,
                             .rollouts = trains ? wave : least(wave, eval),
                             .prompts = trains ? prompts : least(prompts, (uint32_t)n_eval),
                             .ids = trains ? most(step, eval) : eval,
                             .micro_rows = (uint32_t)c->micro_batch_tokens,
                             .n_experts = VKM_MAX_EXPERTS,
                             .rank = (uint32_t)c->lora_rank,
                             .adam_v_per_tensor = c->adam_v == VKM_adam_v_tensor,
                             .trains = trains,
                             .seed = (uint64_t)c->seed};
    if (!trains) /* rows are those of a prefill */
        max.micro_rows = least(max.micro_rows, max.prompts * vkm_seq_rows(max.max_prompt));
    return vkm_policy_new(r->dev, c->model, &max, dry, &r->policy, err);
}

static vkm_status open_optimizers(vkm_run *r, vkm_plan *dry, vkm_err *err) {
    const vkm_adapter *a = r->policy->adapter;
    vkm_trainable *t = vkm_calloc(2ull * a->n_modules, sizeof *t, "the optimizer", err);
    if (!t) return err->status;
    for (uint32_t i = 0; i < a->n_modules; i++)
        for (int f = 0; f < 2; f++) {
            const vkm_module *m = &a->modules[i];
            t[2 * i + (uint32_t)f] =
                (vkm_trainable){m->param[f], m->grad[f], m->adam_m[f], m->adam_v[f]};
        }
    vkm_status st = vkm_optimizer_new(r->dev, t, 2 * a->n_modules, dry, &r->opt, err);
    free(t);
    return st;
}

/* The rollouts' w, of arms that read it from activations. The gate lives in host memory. */
static vkm_status open_routing(vkm_run *r, vkm_plan *dry, vkm_err *err) {
    const vkm_adapter *a = r->policy->adapter;
    enum { MOST_VALUES = 65536 }; /* what the router's reductions take */
    uint32_t rollouts = (uint32_t)(r->c.num_prompts * r->c.num_generations);
    uint64_t all = (uint64_t)r->c.max_steps * rollouts;
    vkm_trainable route[2];
    if (!dry && r->arm->source == VKM_W_GATE)
        return vkm_gate_new(a->n_modules * a->rank,
                            all < VKM_GATE_ROWS ? (uint32_t)all : VKM_GATE_ROWS, &r->gate, err);
    if (!dry && r->arm->source == VKM_W_MIXTURE)
        return vkm_mixture_new(a->n_modules * a->rank, &r->mixture, err);
    if (r->arm->source != VKM_W_ROUTER) return VKM_OK;
    if ((uint64_t)a->n_modules * a->rank > MOST_VALUES)
        return vkm_fail(err, VKM_USAGE,
                        "lora_rank: the router reads modules x rank = %u x %u values, at most %d; "
                        "lower lora_rank to %d",
                        a->n_modules, a->rank, MOST_VALUES, MOST_VALUES / (int)a->n_modules);
    if (vkm_router_new(r->dev, a->n_modules, a->rank, r->n_pairs, rollouts, r->arm->linear, dry,
                       &r->router, err))
        return err->status;
    if (dry) return VKM_OK;
    vkm_router_trainables(r->router, route);
    return vkm_optimizer_new(r->dev, route, 2, dry, &r->router_opt, err);
}

static vkm_status open_reward(vkm_run *r, vkm_err *err) {
    static const vkm_reward_from from[] = {
        [VKM_reward_from_grader] = VKM_REWARD_FROM_GRADER,
        [VKM_reward_from_command] = VKM_REWARD_FROM_COMMAND,
        [VKM_reward_from_both] = VKM_REWARD_FROM_BOTH,
    };
    vkm_reward_config c = {
        .from = from[r->c.reward_from],
        .grade = vkm_grade_config_default(),
        .command = {.line = r->c.reward_command, .timeout_s = r->c.reward_timeout_s}};
    vkm_grade_config *g = &c.grade;
    g->sandbox.kind =
        r->c.sandbox == VKM_sandbox_unsafe_none ? VKM_SANDBOX_UNSAFE_NONE : VKM_SANDBOX_BWRAP;
    g->sandbox.cpu_time_s = (int)ceil(r->c.grade_cpu_time_s);
    g->sandbox.wall_time_s = (int)ceil(r->c.grade_wall_time_s);
    g->sandbox.memory_mib = (int)r->c.grade_memory_mib;
    g->workers = (int)r->c.grade_workers;
    enum { SHARED_LOG2 = 19 }; /* 16 MiB */
    if (r->c.grade_cache[0]) g->cache_file = r->c.grade_cache, g->cache_log2 = SHARED_LOG2;
    if (vkm_reward_open(&c, &r->reward, err)) return err->status;
    if (vkm_reward_unsafe(r->reward))
        vkm_warn("sandbox unsafe-none: model-written Python runs on this machine without "
                 "namespaces; the run's config says so");
    return VKM_OK;
}

/* Every prompt that the run may show fits: better now than in the middle of the night. */
static vkm_status check_prompts(const vkm_run *r, vkm_err *err) {
    size_t n_train = r->purpose == VKM_RUN_TRAINS ? r->n_train : 0;
    const vkm_eval_set *held_out = &r->sets[VKM_SET_HELD_OUT];
    for (size_t i = 0; i < n_train + held_out->n && !err->status; i++) {
        const vkm_problem *p = i < n_train ? r->train[i] : held_out->problem[i - n_train];
        vkm_ids ids = {0};
        const vkm_mode *mode =
            i < n_train ? vkm_run_training_mode(r, p) : held_out->mode[i - n_train];
        if (vkm_run_prompt(r, p, mode, &ids, err))
            vkm_fail_in(err, "%s", i < n_train || !r->eval_file ? r->c.data : r->c.eval_data);
        free(ids.id);
    }
    return err->status;
}

static vkm_status open_files(vkm_run *r, vkm_err *err) {
    const vkm_config *c = &r->c;
    const vkm_eval_state *states[VKM_EVAL_MOST_STATES];
    uint32_t n_states;
    if (vkm_eval_states_read(c->eval_states, states, &n_states, err) || find_modes(r, err) ||
        (r->arm->inoculates && inoculate(r, err)) || vkm_model_config_load(c->model, &r->hf, err) ||
        vkm_tokenizer_load(c->model, &r->tokenizer, err) ||
        vkm_model_check_tokenizer(c->model, &r->hf, r->tokenizer, err))
        return err->status;
    if (load_problems(c->data, &r->problems, err)) return err->status;
    if (c->eval_data[0] && (load_problems(c->eval_data, &r->eval_file, err) ||
                            vkm_select_disjoint(r->problems, r->eval_file, err)))
        return err->status;
    if (split(r, err)) return err->status;
    if (c->partition[0] && vkm_partition_load(c->partition, &r->partition, err)) return err->status;
    choose_eval_modes(r);
    if (r->purpose == VKM_RUN_EVALUATES && r->sets[VKM_SET_HELD_OUT].n == 0)
        return vkm_fail(
            err, VKM_USAGE,
            "no problems to evaluate on: set eval_data or eval_problems as in training");
    if (check_prompts(r, err) || r->purpose == VKM_RUN_EVALUATES) return err->status;
    r->canonical_teachers = strcmp(c->teacher_pool, "canonical") == 0;
    if (c->teacher_pool[0] && !r->canonical_teachers &&
        vkm_teacher_load(c->teacher_pool, &r->teachers, err))
        return err->status;
    return vkm_arm_reads_pairs(r->arm) || c->retain_heal > 0 ? load_pairs(r, err) : VKM_OK;
}

vkm_status vkm_run_open(const vkm_config *c, vkm_run_purpose purpose, vkm_dev *dev, vkm_plan *dry,
                        vkm_run **out, vkm_err *err) {
    vkm_run *r = vkm_calloc(1, sizeof *r, "a run", err);
    if (!r) return err->status;
    r->c = *c;
    r->purpose = purpose;
    r->dev = dev;
    r->state.best_reference_logp = -INFINITY;
    if (!(r->arm = vkm_arm_find(c->arm, err)) || open_files(r, err) || open_policy(r, dry, err) ||
        (purpose == VKM_RUN_TRAINS && (open_optimizers(r, dry, err) || open_routing(r, dry, err))))
        goto fail;
    if (!dry && open_reward(r, err)) goto fail;
    if (!dry && (r->router || r->gate || r->mixture) && vkm_run_read_pairs(r, 1, err)) goto fail;
    *out = r;
    return VKM_OK;
fail:
    vkm_run_close(r);
    return err->status;
}

void vkm_run_close(vkm_run *r) {
    if (!r) return;
    vkm_reward_close(r->reward);
    vkm_optimizer_free(r->router_opt);
    vkm_optimizer_free(r->opt);
    vkm_gate_free(r->gate);
    vkm_mixture_free(r->mixture);
    vkm_router_free(r->router);
    vkm_policy_free(r->policy);
    for (uint32_t i = 0; i < r->n_pairs; i++) vkm_pair_ids_clear(&r->pairs[i]);
    free(r->pairs);
    if (r->teachers) vkm_teacher_free(r->teachers);
    if (r->partition) vkm_partition_free(r->partition);
    for (int i = 0; i < VKM_N_EVAL_SETS; i++) free(r->sets[i].problem), free(r->sets[i].mode);
    free(r->train);
    if (r->eval_file) vkm_problems_free(r->eval_file);
    if (r->problems) vkm_problems_free(r->problems);
    if (r->tokenizer) vkm_tokenizer_free(r->tokenizer);
    free_inoculated(r);
    free(r->modes);
    free(r);
}

/* ---- hash
 * ---------------------------------------------------------------------------------------- */

/* Tensor by tensor: the host never holds the whole adapter. */
vkm_status vkm_run_hash(const vkm_run *r, char hex[VKM_HASH_HEX], vkm_err *err) {
    const vkm_adapter *a = r->policy->adapter;
    uint64_t room = r->router ? vkm_router_state_size(r->router) : 1;
    vkm_hash_state h;
    for (uint32_t i = 0; i < 2 * a->n_modules; i++) {
        uint64_t n = a->modules[i / 2].param[i % 2].n;
        room = n > room ? n : room;
    }
    float *x = vkm_calloc(room, sizeof *x, "the weights' hash", err);
    if (!x) return err->status;
    vkm_hash_begin(&h);
    for (uint32_t i = 0; i < 2 * a->n_modules && !err->status; i++) {
        vkm_tensor t = a->modules[i / 2].param[i % 2];
        if (!vkm_read(r->dev, t, x, err)) vkm_hash_add(&h, x, t.n * sizeof *x);
    }
    if (!err->status && r->router && !vkm_router_read(r->router, x, err))
        vkm_hash_add(&h, x, (r->router->P + 1ull) * sizeof *x);
    if (!err->status) vkm_hash_hex(vkm_hash_now(&h), hex);
    free(x);
    return err->status;
}
