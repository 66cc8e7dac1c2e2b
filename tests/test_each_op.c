/* Each operation of real passes beside its double: generation, GRPO steps and full-parameter
 * fine-tuning of the trained tiny model run on the CPU reference, and every kernel's inputs, as
 * they lie there, go into the same kernel in double precision. What differs is that one kernel's
 * own rounding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "env/modes.h"
#include "ops/kernels.h"
#include "ops/numerics.h"
#include "rl/run.h"
#include "rl/sft.h"
#include "tmpdir.h"
#include "vk/backend.h"

#define TINY VKM_SOURCE_DIR "/data/tiny/"

enum { PROMPTS = 2, EACH = 2, N = PROMPTS * EACH, NEW = 12 };

/* What an output's error is measured by, and the largest there is in units of 2^-24 of that; of
 * bf16 outputs, and fp32 ones that hold rounded values, half a unit of the last place (2^-8 of the
 * value) comes on top. What is measured is printed beside the
 * bounds: at most four fifths of them, a fourth for most. */
typedef enum {
    OF_LARGEST, /* the tensor's largest value: kernels of a few roundings, and short sums */
    OF_TERMS,   /* the same kernel's output of absolute inputs: sums of products */
    OF_ONE /* 1, or the largest value: log-probabilities near 0 are differences of numbers near 1 */
} measure;
typedef struct bound {
    const char *kernel;
    measure of;
    double units;
    int rounded;
} bound;
/* What fp32 loses below its smallest normal number, some times. */
#define UNDERFLOW 0x1p-120
/* Of what is rounded to bf16 inside (rule 6 of docs/numerics.md): P, and dS. */
#define INSIDE 65536
static const bound plain = {"", OF_LARGEST, 64, 0};
static const bound bounds[] = {
    {"round_bf16", OF_LARGEST, 0, 1},
    {"gemm", OF_TERMS, 256, 0}, /* K = 768: small terms are lost beside the target's large one */
    {"linear", OF_TERMS, 16, 0},
    {"linear_bf16", OF_TERMS, 16, 0},
    {"gemm_seg", OF_TERMS, 16, 0},
    {"norm_dgain", OF_TERMS, 16, 0},
    {"add_rows", OF_TERMS, 16, 0},
    {"embed_bwd", OF_TERMS, 16, 0},
    {"seq_sum", OF_TERMS, 16, 0},
    {"attn_fwd", OF_LARGEST, INSIDE, 0},
    {"attn_decode", OF_LARGEST, INSIDE, 0},
    {"attn_bwd_dq", OF_LARGEST, 2 * INSIDE, 0}, /* rows of dS sum to 0: what is left is smaller */
    {"attn_bwd_dkv", OF_LARGEST, 2 * INSIDE, 0},
    {"lse_combine", OF_ONE, 64, 0},
    {"sample", OF_ONE, 64, 0},
};
/* Kernels that no pass here runs: their cases are in `vkmoe verify`. */
static const char *const elsewhere[] = {"fma_chains", "softmath_probe", "arith_probe"};

static const bound *bound_of(const vkm_kernel *k) {
    for (size_t i = 0; i < VKM_COUNTOF(bounds); i++)
        if (!strcmp(bounds[i].kernel, k->name)) return &bounds[i];
    return &plain;
}

/* ---- a backend that looks at every node -------------------------------------------------------
 */

/* A node's arguments with float tensors copied as doubles, in memory of their own. */
typedef struct shadow {
    double *x[VKM_MAX_PARAMS]; /* NULL where the parameter is no tensor */
    _Alignas(8) unsigned char args[VKM_MAX_ARGS];
} shadow;

static const vkm_backend *real_backend;
static double worst[VKM_N_KERNELS][VKM_MAX_PARAMS];
static uint64_t seen[VKM_N_KERNELS];

static vkm_tensor tensor_of(const vkm_node *node, uint32_t param) {
    vkm_tensor t;
    uint32_t at = 0, o = 0;
    for (uint32_t p = 0; p <= param; p++) o = vkm_param_offset(&at, node->kernel->params[p].kind);
    memcpy(&t, node->args + o, sizeof t);
    return t;
}

static double element(vkm_tensor t, vkm_param_type type, uint64_t i) {
    if (type == VKM_PT_f32) return ((const float *)(uintptr_t)t.addr)[i];
    return vkm_from_bits((uint32_t)((const uint16_t *)(uintptr_t)t.addr)[i] << 16);
}

static void shadow_run(shadow *s, const vkm_node *node, int absolute) {
    memcpy(s->args, node->args, VKM_MAX_ARGS);
    for (uint32_t p = 0, at = 0; p < node->kernel->n_params; p++) {
        const vkm_param *param = &node->kernel->params[p];
        uint32_t o = vkm_param_offset(&at, param->kind);
        s->x[p] = NULL;
        if (!vkm_param_is_pointer(param->kind)) continue;
        vkm_tensor t = tensor_of(node, p);
        uint64_t bytes = t.n * (param->type == VKM_PT_u32 ? 4 : 8);
        s->x[p] = malloc(bytes + 8);
        assert_non_null(s->x[p]);
        if (param->type == VKM_PT_u32)
            memcpy(s->x[p], (const void *)(uintptr_t)t.addr, bytes);
        else
            for (uint64_t i = 0; i < t.n; i++) {
                double x = element(t, param->type, i);
                s->x[p][i] = absolute ? fabs(x) : x;
            }
        t.addr = (uint64_t)(uintptr_t)s->x[p];
        memcpy(s->args + o, &t, sizeof t);
    }
    node->kernel->ref64(s->args, (vkm_part){0, 1});
}

/* terms: of OF_TERMS. */
static void compare(const vkm_node *node, uint32_t p, const double *want, const double *terms) {
    const vkm_kernel *k = node->kernel;
    const bound *b = bound_of(k);
    vkm_tensor t = tensor_of(node, p);
    double half_ulp = b->rounded || k->params[p].type != VKM_PT_f32 ? 0x1p-8 : 0;
    double largest = b->of == OF_ONE, *most = &worst[k - vkm_kernels][p];
    for (uint64_t i = 0; i < t.n; i++) largest = fmax(largest, fabs(want[i]));
    for (uint64_t i = 0; i < t.n; i++) {
        double d = fabs(element(t, k->params[p].type, i) - want[i]) - half_ulp * fabs(want[i]);
        d -= UNDERFLOW;
        double units = d / ((b->of == OF_TERMS ? terms[i] : largest) * 0x1p-24);
        if (!(d <= 0) && !(units <= *most)) *most = units;
    }
}

static vkm_status watched_run(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err) {
    static shadow s, terms;
    for (uint32_t i = 0; i < nodes->n && !err->status; i++) {
        vkm_node *node = &nodes->v[i];
        const vkm_kernel *k = node->kernel;
        int sums = bound_of(k)->of == OF_TERMS;
        shadow_run(&s, node, 0);
        if (sums) shadow_run(&terms, node, 1);
        (void)!real_backend->run(dev, &(vkm_nodes){node, 1, 1}, err);
        for (uint32_t p = 0; p < k->n_params; p++) {
            if (!s.x[p]) continue;
            if (k->params[p].kind != VKM_P_IN && k->params[p].type != VKM_PT_u32)
                compare(node, p, s.x[p], sums ? terms.x[p] : NULL);
            free(s.x[p]);
            if (sums) free(terms.x[p]);
        }
        seen[k - vkm_kernels]++;
    }
    return err->status;
}

static vkm_status watched_run_compiled(vkm_dev *dev, const vkm_nodes *nodes, void *impl,
                                       uint32_t times, vkm_err *err) {
    (void)impl;
    while (times-- && !err->status) (void)!watched_run(dev, nodes, err);
    return err->status;
}

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

static vkm_dev *watched_dev(void) {
    static vkm_backend watched;
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    check(vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 1}, &dev, &err), &err);
    real_backend = dev->backend;
    watched = *dev->backend;
    watched.run = watched_run;
    watched.run_compiled = watched_run_compiled;
    dev->backend = &watched;
    return dev;
}

/* ---- what is run ------------------------------------------------------------------------------
 */

static void set(vkm_config *c, const char *const (*keys)[2], size_t n) {
    vkm_err err = {0};
    vkm_config_default(c);
    for (size_t i = 0; i < n; i++) check(vkm_config_set(c, keys[i][0], keys[i][1], &err), &err);
    check(vkm_config_set(c, "output_dir", in_dir("run"), &err), &err);
}

static vkm_status keep(void *user, uint32_t row, const uint32_t *tokens, const float *logp,
                       uint32_t n, vkm_err *err) {
    vkm_rollout *x = (vkm_rollout *)user + row;
    (void)err;
    memcpy(x->ids.id + x->ids.n, tokens, n * sizeof *tokens);
    memcpy(x->logp, logp, n * sizeof *logp);
    x->ids.n += n;
    return VKM_OK;
}

static void grpo_steps(const char *arm, const char *adam_v) {
    static const char *const keys[][2] = {{"model", TINY "warm1"},
                                          {"data", TINY "problems_valid.jsonl.gz"},
                                          {"pairs", TINY "pairs.md#self-test"},
                                          {"num_prompts", "2"},
                                          {"num_generations", "2"},
                                          {"max_prompt_length", "128"},
                                          {"max_completion_length", "12"},
                                          {"learning_rate", "1e-2"},
                                          {"warmup_steps", "0"},
                                          {"lora_rank", "4"},
                                          {"refresh_every", "1"},
                                          {"beta", "0.1"},
                                          {"micro_batch_tokens", "1024"},
                                          {"grade_workers", "1"},
                                          {"log_level", "quiet"}};
    static vkm_config c;
    vkm_err err = {0};
    vkm_run *r = NULL;
    vkm_dev *dev = watched_dev();
    vkm_ids prompts[PROMPTS] = {0};
    vkm_rollout x[N];
    vkm_gen_row rows[N];
    vkm_step_result result;
    set(&c, keys, VKM_COUNTOF(keys));
    check(vkm_config_set(&c, "arm", arm, &err), &err);
    check(vkm_config_set(&c, "adam_v", adam_v, &err), &err);
    check(vkm_run_open(&c, VKM_RUN_TRAINS, dev, NULL, &r, &err), &err);
    for (uint32_t i = 0; i < N; i++) {
        const vkm_problem *problem = r->train[i / EACH];
        vkm_ids *prompt = &prompts[i / EACH];
        if (i % EACH == 0)
            check(vkm_run_prompt(r, problem, vkm_run_mode(r, problem), prompt, &err), &err);
        x[i] = (vkm_rollout){.problem = problem,
                             .mode = vkm_run_mode(r, problem),
                             .group = i / EACH,
                             .id = i,
                             .prompt = prompt,
                             .live = 1,
                             .advantage = i % 2 ? 1.5f : -1.5f,
                             .ids = {.n = prompt->n, .cap = prompt->n + NEW},
                             .logp = calloc(NEW, sizeof(float)),
                             .logp_ref = calloc(NEW, sizeof(float))};
        x[i].ids.id = calloc(x[i].ids.cap, sizeof *x[i].ids.id);
        assert_true(x[i].ids.id && x[i].logp && x[i].logp_ref);
        memcpy(x[i].ids.id, prompt->id, prompt->n * sizeof *prompt->id);
        rows[i] = (vkm_gen_row){.prompt = prompt->id,
                                .prompt_len = prompt->n,
                                .id = i,
                                .f = {1, i % 3 == 1 ? 0.5f : 0}};
    }
    const uint32_t eos[1] = {0};
    const vkm_gen_options how = {.dist = {.temperature = 1, .top_p = 1}, .seed = 3, .eos = eos};
    check(vkm_generate(r->policy->gen, rows, N, &how, keep, x, &err), &err);
    for (int step = 0; step < 2; step++) {
        check(vkm_run_refresh(r, &err), &err);
        check(vkm_run_learn(r, x, N, &result, &err), &err);
        assert_true(result.updated);
        r->state.step++;
    }
    vkm_rollouts_clear(x, N);
    for (int i = 0; i < PROMPTS; i++) free(prompts[i].id);
    vkm_run_close(r);
    vkm_dev_close(dev);
}

static void fine_tuning(void) {
    static const char *const keys[][2] = {{"model", TINY "warm1"},
                                          {"data", TINY "sft.jsonl.gz"},
                                          {"per_device_train_batch_size", "4"},
                                          {"max_steps", "1"},
                                          {"max_length", "128"},
                                          {"learning_rate", "1e-3"},
                                          {"warmup_steps", "0"},
                                          {"sft_train", "weights"},
                                          {"log_level", "quiet"}};
    static vkm_config c;
    vkm_err err = {0};
    vkm_dev *dev = watched_dev();
    set(&c, keys, VKM_COUNTOF(keys));
    check(vkm_sft_run(&c, dev, &err), &err);
    vkm_dev_close(dev);
}

/* ---- the test ---------------------------------------------------------------------------------
 */

static int is_elsewhere(const char *kernel) {
    for (size_t i = 0; i < VKM_COUNTOF(elsewhere); i++)
        if (!strcmp(elsewhere[i], kernel)) return 1;
    return 0;
}

static void each_operation_is_within_its_bound(void **state) {
    (void)state;
    int failed = 0;
    grpo_steps("moe", "coordinate");
    grpo_steps("routeV", "tensor");
    fine_tuning();
    for (int k = 0; k < VKM_N_KERNELS; k++) {
        const vkm_kernel *kernel = &vkm_kernels[k];
        if (is_elsewhere(kernel->name) != (seen[k] == 0))
            fail_msg("%s: run %llu times", kernel->name, (unsigned long long)seen[k]);
        for (uint32_t p = 0; seen[k] && p < kernel->n_params; p++) {
            const vkm_param *param = &kernel->params[p];
            if (!vkm_param_is_pointer(param->kind) || param->kind == VKM_P_IN ||
                param->type == VKM_PT_u32)
                continue;
            int ok = worst[k][p] <= bound_of(kernel)->units;
            print_message("%-20s %-8s %6llu runs, off by %9.2f units, at most %6.0f%s\n",
                          kernel->name, param->name, (unsigned long long)seen[k], worst[k][p],
                          bound_of(kernel)->units, ok ? "" : "  TOO FAR");
            failed += !ok;
        }
    }
    assert_int_equal(failed, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_operation_is_within_its_bound)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
