/* Bench rows of the whole policy on random models, each of a preset of its own:
 * decoding and training, in tokens a second.
 * Operations: 2 a weight and token for a forward pass, 4 for a training step (forward, and the
 * gradient with respect to x; the weights are frozen), of the head for completion tokens only.
 * Bytes: the weights once a decoded token for all rows together. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/bench.h"
#include "model/init_model.h"
#include "rl/arms.h"
#include "rl/policy.h"

enum { PROMPT, NEW, ROWS }; /* sizes of a row: prompt tokens, completion tokens, rollouts */
enum { GROUP = 4 };         /* rollouts of one prompt in a training step */

typedef struct setup {
    vkm_policy *policy;
    uint32_t *prompt, *sequence;
    double weights; /* parameters that a token goes through */
    double head;    /* those of the output head, one of which is the embedding where it is tied */
} setup;

static void setup_free(setup *s) {
    vkm_policy_free(s->policy);
    free(s->prompt);
    free(s->sequence);
}

static vkm_status setup_make(vkm_bench *b, const vkm_bench_row *row, const vkm_model_preset *preset,
                             setup *s, vkm_bench_result *out, vkm_err *err) {
    char folder[] = "/tmp/vkmoe-bench-XXXXXX";
    vkm_model_config made;
    uint32_t prompt = row->size[PROMPT], len = prompt + row->size[NEW], rows = row->size[ROWS];
    vkm_policy_limits max = {.max_prompt = prompt,
                             .max_new = row->size[NEW],
                             .rollouts = rows,
                             .prompts = rows,
                             .ids = rows,
                             .micro_rows = rows * (len + 15),
                             .n_experts = VKM_MAX_EXPERTS,
                             .rank = 8,
                             .trains = 1,
                             .seed = 1};
    s->prompt = vkm_calloc(prompt, sizeof *s->prompt, "a bench row", err);
    s->sequence = vkm_calloc(len, sizeof *s->sequence, "a bench row", err);
    if (!s->prompt || !s->sequence) return err->status;
    if (!mkdtemp(folder)) return vkm_fail(err, VKM_FAILED, "%s: cannot be made", folder);
    vkm_init_options o = {.config = preset->config, .output = folder, .seed = 1, .force = true};
    if (!vkm_init_model(&o, &made, err))
        (void)!vkm_policy_new(b->dev, folder, &max, NULL, &s->policy, err);
    vkm_err removing = {0};
    if (vkm_folder_remove(folder, &removing) && !err->status) *err = removing;
    if (err->status) return err->status;
    snprintf(out->shape, sizeof out->shape, "%u rows, %u + %u tokens", rows, prompt,
             row->size[NEW]);
    s->head = (double)made.V * made.C;
    s->weights = (double)vkm_model_config_n_params(&made) - (made.tied ? 0 : s->head);
    for (uint32_t i = 0; i < len; i++) {
        if (i < prompt) s->prompt[i] = i * 7 % 250;
        s->sequence[i] = i * 7 % 250;
    }
    return VKM_OK;
}

static vkm_status count(void *user, uint32_t row, const uint32_t *tokens, const float *logp,
                        uint32_t n, vkm_err *err) {
    (void)row, (void)tokens, (void)logp, (void)err;
    *(double *)user += n;
    return VKM_OK;
}

static vkm_status decode(vkm_bench *b, const vkm_bench_row *row, const vkm_model_preset *preset,
                         vkm_bench_result *out, vkm_err *err) {
    setup s = {0};
    uint32_t n = row->size[ROWS], none = 0;
    vkm_gen_options how = {.dist = {.temperature = 1, .top_p = 1}, .seed = 1, .eos = &none};
    vkm_gen_row *rows = vkm_calloc(n, sizeof *rows, "a bench row", err);
    if (!rows || setup_make(b, row, preset, &s, out, err)) goto done;
    for (uint32_t i = 0; i < n; i++)
        rows[i] = (vkm_gen_row){s.prompt, row->size[PROMPT], {1, 1}, i};
    for (uint32_t i = 0; i <= b->repeat && !err->status; i++) { /* the first warms up */
        double tokens = 0, start = vkm_now_s();
        if (vkm_generate(s.policy->gen, rows, n, &how, count, &tokens, err)) break;
        double took = vkm_now_s() - start;
        if (i && (out->seconds == 0 || took < out->seconds)) out->seconds = took;
        out->tokens = tokens;
    }
    out->flops = 2 * s.weights * out->tokens;
    out->bytes = 2 * s.weights * row->size[NEW];
done:
    setup_free(&s);
    free(rows);
    return err->status;
}

static vkm_status train(vkm_bench *b, const vkm_bench_row *row, const vkm_model_preset *preset,
                        vkm_bench_result *out, vkm_err *err) {
    setup s = {0};
    uint32_t n = row->size[ROWS], len = row->size[PROMPT] + row->size[NEW];
    const vkm_loss_options o = {.eps_low = 0.2f, .eps_high = 0.2f};
    vkm_example *x = vkm_calloc(n, sizeof *x, "a bench row", err);
    if (!x || setup_make(b, row, preset, &s, out, err)) goto done;
    for (uint32_t i = 0; i < n; i++)
        x[i] = (vkm_example){.seq = {s.sequence, len, row->size[PROMPT]},
                             .group = i / GROUP,
                             .f = {1, 0.5f},
                             .g = {0.5f, 0.5f},
                             .xs = {0.5f, 0.5f},
                             .advantage = 1,
                             .weight = 0.01f};
    for (uint32_t i = 0; i <= b->repeat && !err->status; i++) {
        double start = vkm_now_s();
        if (vkm_policy_zero_grad(s.policy, err) || vkm_policy_train(s.policy, x, n, &o, err)) break;
        double took = vkm_now_s() - start;
        if (i && (out->seconds == 0 || took < out->seconds)) out->seconds = took;
    }
    out->tokens = (double)n * len;
    out->flops = 4 * ((s.weights - s.head) * out->tokens + s.head * n * row->size[NEW]);
done:
    setup_free(&s);
    free(x);
    return err->status;
}

static const vkm_bench_row rows[] = {
    {"decode", decode, "tiny", {64, 64, 16}},
    {"train", train, "tiny", {64, 64, 16}},
    {"decode", decode, "qwen3-0.6b-4l", {64, 32, 32}},
    {"train", train, "qwen3-0.6b-4l", {64, 64, 8}},
};
const vkm_bench_group vkm_bench_policy = {rows, VKM_COUNTOF(rows)};
