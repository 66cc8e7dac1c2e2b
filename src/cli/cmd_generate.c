/* `vkmoe generate`: completions of prompts, on the terminal as they come or as JSON lines. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/inference_opts.h"
#include "model/chat_json.h"

enum { MOST_STOPS = 16, MOST_ROWS = 1 << 24 };

/* One completion. */
typedef struct answer {
    vkm_ids ids;
    float *logp;
    bool done, stopped; /* stopped: by an end token or a stop string, not by the length */
} answer;

typedef struct generation {
    vkm_inference x;
    vkm_ids *prompts;
    size_t n_prompts, cap;
    uint32_t longest;
    /* options */
    const char *stop[MOST_STOPS];
    size_t n_stop;
    double temperature, top_p, min_p; /* NaN: the model's own */
    int64_t top_k;                    /* -1: the model's own */
    int64_t max_new, samples, batch, seed;
    int json;
    /* under way */
    answer *answers; /* (n_prompts * samples) */
    uint32_t n, n_done, n_printed;
    vkm_decoder shown; /* of the only completion, on a terminal */
    vkm_strbuf text;   /* what came of it */
    uint32_t n_shown;  /* its tokens that were looked at */
    size_t n_printed_bytes;
    vkm_progress bar;
} generation;

/* ---- prompts --------------------------------------------------------------------------------- */

static vkm_ids *new_prompt(generation *g, vkm_err *err) {
    if (g->n_prompts == g->cap) {
        size_t cap = 2 * g->cap + 16;
        vkm_ids *more = realloc(g->prompts, cap * sizeof *more);
        if (!more) {
            vkm_fail(err, VKM_FAILED, "out of host memory for %zu prompts", cap);
            return NULL;
        }
        g->prompts = more;
        g->cap = cap;
    }
    g->prompts[g->n_prompts] = (vkm_ids){0};
    return &g->prompts[g->n_prompts++];
}

/* {"prompt": text or messages}, {"messages": [...]} or {"prompt_ids": [...]}. */
static vkm_status read_line(vkm_jv line, void *ctx, vkm_err *err) {
    generation *g = ctx;
    vkm_jv ids = vkm_json_find(line, "prompt_ids"), prompt = vkm_json_find(line, "prompt");
    vkm_jv messages = vkm_json_find(line, "messages");
    if ((ids.v != NULL) + (prompt.v != NULL) + (messages.v != NULL) != 1)
        return vkm_json_fail(line, err, "one of 'prompt', 'messages' and 'prompt_ids' is needed");
    vkm_ids *out = new_prompt(g, err);
    if (!out) return err->status;
    if (ids.v) {
        if (vkm_ids_read(ids, g->x.hf.V, out, err)) return err->status;
    } else if (vkm_chat_prompt_ids(g->x.tokenizer, prompt.v ? prompt : messages, out, err)) {
        return err->status;
    }
    return out->n ? VKM_OK : vkm_json_fail(line, err, "the prompt has no token");
}

static vkm_status read_file(generation *g, const char *path, vkm_err *err) {
    if (vkm_jsonl_each(path, NULL, read_line, g, err)) return err->status;
    return g->n_prompts ? VKM_OK : vkm_fail(err, VKM_FAILED, "%s: no lines", path);
}

/* A text as it is, or as a user's turn, whose answer is sampled. */
static vkm_status take_text(generation *g, const char *prompt, const char *message,
                            const char *system, vkm_err *err) {
    vkm_ids *out = new_prompt(g, err);
    vkm_strbuf text = {0};
    if (!out) return err->status;
    const vkm_chat_turn turns[] = {{"system", system}, {"user", message}};
    size_t skip = system[0] ? 0 : 1;
    if (prompt[0])
        vkm_strbuf_puts(&text, prompt);
    else
        (void)!vkm_chat_render(turns + skip, 2 - skip, vkm_chat_style_of(g->x.tokenizer), true,
                               &text, err);
    if (!err->status && !vkm_strbuf_check(&text, "the prompt", err))
        (void)!vkm_tokenizer_encode(g->x.tokenizer, text.data, text.n, out, err);
    vkm_strbuf_free(&text);
    return err->status;
}

static vkm_status check_lengths(generation *g, vkm_err *err) {
    for (size_t i = 0; i < g->n_prompts; i++)
        if (g->prompts[i].n > g->longest) g->longest = (uint32_t)g->prompts[i].n;
    if (g->longest + (uint64_t)g->max_new > g->x.hf.max_pos)
        return vkm_fail(err, VKM_USAGE,
                        "max_new_tokens: the longest prompt has %u tokens, with %lld new ones that "
                        "is more than the model's %u positions; lower it",
                        g->longest, (long long)g->max_new, g->x.hf.max_pos);
    if ((uint64_t)g->n_prompts * (uint64_t)g->samples > MOST_ROWS)
        return vkm_fail(err, VKM_USAGE,
                        "num_return_sequences: %lld of %zu prompts are more than %d "
                        "completions; take less at once",
                        (long long)g->samples, g->n_prompts, MOST_ROWS);
    g->n = (uint32_t)(g->n_prompts * (size_t)g->samples);
    g->answers = vkm_calloc(g->n, sizeof *g->answers, "completions", err);
    return err->status;
}

/* ---- printing -------------------------------------------------------------------------------- */

/* The first byte of a stop string in a text, or its length. */
static size_t stop_at(const generation *g, const char *text, size_t n) {
    for (size_t i = 0; i < g->n_stop; i++) {
        const char *at = strstr(text, g->stop[i]);
        if (at && (size_t)(at - text) < n) n = (size_t)(at - text);
    }
    return n;
}

/* A completion's text up to a stop string. */
static void text_of(const generation *g, const answer *a, vkm_strbuf *out) {
    vkm_tokenizer_decode(g->x.tokenizer, a->ids.id, a->ids.n, true, out);
    if (out->failed || !out->n) return;
    out->n = stop_at(g, out->data, out->n);
    out->data[out->n] = 0;
}

static void print_json(const generation *g, uint32_t i, vkm_strbuf *b) {
    const answer *a = &g->answers[i];
    vkm_strbuf text = {0};
    text_of(g, a, &text);
    vkm_jw w = vkm_jw_begin(b, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_u64(&w, "prompt", i / (uint32_t)g->samples);
    vkm_jw_u64(&w, "sample", i % (uint32_t)g->samples);
    vkm_jw_strn(&w, "text", vkm_strbuf_str(&text), text.n);
    vkm_jw_str(&w, "finish_reason", a->stopped ? "stop" : "length");
    vkm_jw_arr(&w, "ids");
    for (size_t j = 0; j < a->ids.n; j++) vkm_jw_u64(&w, NULL, a->ids.id[j]);
    vkm_jw_end_arr(&w);
    vkm_jw_arr(&w, "logprobs");
    for (size_t j = 0; j < a->ids.n; j++) vkm_jw_float(&w, NULL, a->logp[j]);
    vkm_jw_end_arr(&w);
    vkm_jw_end_obj(&w);
    vkm_strbuf_free(&text);
}

static int streams(const generation *g) {
    return !g->json && g->n == 1;
}

static vkm_status print_answer(generation *g, uint32_t i, vkm_err *err) {
    vkm_strbuf b = {0};
    if (g->json)
        print_json(g, i, &b);
    else
        text_of(g, &g->answers[i], &b);
    if (!vkm_strbuf_check(&b, "a completion", err)) {
        if (!g->json && g->n > 1)
            printf("--- prompt %u, sample %u\n", i / (uint32_t)g->samples,
                   i % (uint32_t)g->samples);
        fwrite(vkm_strbuf_str(&b), 1, b.n, stdout);
        putchar('\n');
        fflush(stdout);
    }
    vkm_strbuf_free(&b);
    return err->status;
}

/* ---- sampling -------------------------------------------------------------------------------- */

/* Bytes at the end of a text that a stop string may begin with. */
static size_t may_stop(const generation *g, const char *text, size_t n) {
    size_t most = 0;
    for (size_t i = 0; i < g->n_stop; i++) {
        size_t k = strlen(g->stop[i]) - 1;
        if (k > n) k = n;
        while (k > most && memcmp(text + n - k, g->stop[i], k) != 0) k--;
        if (k > most) most = k;
    }
    return most;
}

/* Shows what has come of the only completion, but not what may be part of a stop string. */
static void show(generation *g, const uint32_t *tokens, uint32_t n, bool ended) {
    if (n > g->n_shown) { /* an end may come before what was looked at */
        vkm_decoder_add(&g->shown, tokens + g->n_shown, n - g->n_shown, &g->text);
        g->n_shown = n;
    }
    if (ended) vkm_decoder_end(&g->shown, &g->text);
    const char *text = vkm_strbuf_str(&g->text);
    size_t to = stop_at(g, text, g->text.n);
    if (to == g->text.n && !ended) to -= may_stop(g, text, to);
    if (to > g->n_printed_bytes) {
        fwrite(text + g->n_printed_bytes, 1, to - g->n_printed_bytes, stdout);
        g->n_printed_bytes = to;
    }
    if (ended) putchar('\n');
    fflush(stdout);
}

/* The fewest tokens whose text has a stop string, or UINT32_MAX. */
static uint32_t find_stop(const generation *g, const uint32_t *tokens, uint32_t n) {
    vkm_strbuf text = {0};
    uint32_t found = UINT32_MAX;
    vkm_tokenizer_decode(g->x.tokenizer, tokens, n, true, &text);
    int there = text.n && stop_at(g, text.data, text.n) < text.n;
    for (uint32_t k = 1; there && k <= n && found == UINT32_MAX; k++) {
        vkm_strbuf_clear(&text);
        vkm_tokenizer_decode(g->x.tokenizer, tokens, k, true, &text);
        if (text.n && stop_at(g, text.data, text.n) < text.n) found = k;
    }
    vkm_strbuf_free(&text);
    return found;
}

static uint32_t look(void *user, uint32_t row, const uint32_t *tokens, uint32_t n) {
    generation *g = user;
    uint32_t cut = g->n_stop ? find_stop(g, tokens, n) : UINT32_MAX;
    if (cut != UINT32_MAX) g->answers[row].stopped = true;
    if (streams(g)) show(g, tokens, n, false);
    return cut;
}

static vkm_status finished(void *user, uint32_t row, const uint32_t *tokens, const float *logp,
                           uint32_t n, vkm_err *err) {
    generation *g = user;
    answer *a = &g->answers[row];
    a->ids.id = vkm_calloc(n, sizeof *a->ids.id, "a completion", err);
    a->logp = vkm_calloc(n, sizeof *a->logp, "a completion", err);
    if (!a->ids.id || !a->logp) return err->status;
    memcpy(a->ids.id, tokens, n * sizeof *tokens);
    memcpy(a->logp, logp, n * sizeof *logp);
    a->ids.n = a->ids.cap = n;
    a->done = true;
    for (uint32_t i = 0; i < g->x.hf.n_eos && n; i++) a->stopped |= tokens[n - 1] == g->x.hf.eos[i];
    g->n_done++;
    if (streams(g)) {
        show(g, tokens, n, true);
        return vkm_strbuf_check(&g->text, "a completion", err);
    }
    vkm_progress_at(&g->bar, g->n_done, "completions");
    while (g->n_printed < g->n && g->answers[g->n_printed].done)
        if (print_answer(g, g->n_printed++, err)) return err->status;
    return VKM_OK;
}

static vkm_status generate(generation *g, vkm_dev *dev, vkm_err *err) {
    const vkm_model_config *hf = &g->x.hf;
    uint32_t batch = g->n < g->batch ? g->n : (uint32_t)g->batch;
    const vkm_inference_limits max = {.max_prompt = g->longest,
                                      .max_new = (uint32_t)g->max_new,
                                      .rollouts = batch,
                                      .prompts = batch,
                                      .ids = g->n,
                                      .micro_rows = 2048};
    vkm_gen_row *rows = vkm_calloc(g->n, sizeof *rows, "completions", err);
    if (!rows || vkm_inference_load(&g->x, dev, &max, NULL, err)) goto done;
    for (uint32_t i = 0; i < g->n; i++) {
        const vkm_ids *p = &g->prompts[i / (uint32_t)g->samples];
        rows[i] = (vkm_gen_row){.prompt = p->id, .prompt_len = (uint32_t)p->n, .id = i};
        memcpy(rows[i].f, g->x.f, sizeof rows[i].f);
    }
    const vkm_gen_options how = {
        .dist = {.temperature = isnan(g->temperature) ? hf->temperature : g->temperature,
                 .top_p = isnan(g->top_p) ? hf->top_p : g->top_p,
                 .min_p = isnan(g->min_p) ? 0 : g->min_p,
                 .top_k = g->top_k < 0 ? hf->top_k : (uint32_t)g->top_k},
        .seed = (uint64_t)g->seed,
        .eos = hf->eos,
        .n_eos = hf->n_eos,
        .look = g->n_stop || streams(g) ? look : NULL};
    g->shown = (vkm_decoder){.t = g->x.tokenizer, .skip_special = true};
    vkm_progress_begin(&g->bar, "completions", 0, g->n);
    (void)!vkm_generate(g->x.policy->gen, rows, g->n, &how, finished, g, err);
    vkm_progress_end(&g->bar);
done:
    free(rows);
    return err->status;
}

/* ---- the command ----------------------------------------------------------------------------- */

static vkm_status add_stop(void *value, const char *name, const char *text, vkm_err *err) {
    generation *g = value;
    if (g->n_stop == MOST_STOPS || !text[0])
        return vkm_fail(err, VKM_USAGE, "--%s: %s", name,
                        text[0] ? "too many of them" : "an empty text would stop everything");
    g->stop[g->n_stop++] = text;
    return VKM_OK;
}

static void generation_free(generation *g) {
    for (size_t i = 0; i < g->n_prompts; i++) free(g->prompts[i].id);
    for (uint32_t i = 0; g->answers && i < g->n; i++)
        free(g->answers[i].ids.id), free(g->answers[i].logp);
    free(g->prompts), free(g->answers);
    vkm_strbuf_free(&g->text);
    vkm_inference_close(&g->x);
}

vkm_status vkm_cmd_generate(int argc, char **argv, vkm_err *err) {
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    vkm_cli_inference given = VKM_CLI_INFERENCE_DEFAULTS;
    vkm_dev *dev = NULL;
    generation g = {.temperature = NAN,
                    .top_p = NAN,
                    .min_p = NAN,
                    .top_k = -1,
                    .max_new = 256,
                    .samples = 1,
                    .batch = 64};
    const char *prompt = "", *message = "", *system = "", *data = "";
    vkm_opt opts[] = {
        VKM_CLI_INFERENCE_OPTS(&given),
        {"prompt", VKM_OPT_STRING, &prompt, .arg = "TEXT", .help = "a text to go on with"},
        {"message", VKM_OPT_STRING, &message, .arg = "TEXT",
         .help = "a user's message, which the assistant answers"},
        {"system", VKM_OPT_STRING, &system, .arg = "TEXT", .help = "a system message before it"},
        {"data", VKM_OPT_STRING, &data, .arg = "FILE",
         .help = "JSON lines of prompt (text or messages), messages or prompt_ids; prints JSON"},
        {"max_new_tokens", VKM_OPT_INT, &g.max_new, .min = 1, .max = 1 << 20,
         .help = "tokens of a completion"},
        {"num_return_sequences", VKM_OPT_INT, &g.samples, .min = 1, .max = 1 << 20,
         .help = "completions of each prompt"},
        {"temperature", VKM_OPT_FLOAT, &g.temperature, .min = NAN, .max = 100,
         .help = "0: the likeliest token; nan: as the model's generation_config.json says"},
        {"top_p", VKM_OPT_FLOAT, &g.top_p, .min = NAN, .max = 1, .help = "likewise; 1: off"},
        {"top_k", VKM_OPT_INT, &g.top_k, .min = -1, .max = 1e6, .help = "likewise (-1); 0: off"},
        {"min_p", VKM_OPT_FLOAT, &g.min_p, .min = NAN, .max = 1,
         .help = "least probability relative to the likeliest token; nan: off"},
        {"seed", VKM_OPT_INT, &g.seed, .min = 0, .max = 9007199254740992., .help = "of the draws"},
        {"stop", VKM_OPT_EACH, &g, .each = add_stop, .arg = "TEXT",
         .help = "ends a completion before this text; may be given several times"},
        {"batch_size", VKM_OPT_INT, &g.batch, .min = 1, .max = 65535,
         .help = "completions at one time; no bit depends on it"},
        {"json", VKM_OPT_FLAG, &g.json, .help = "print JSON lines: text, ids, log-probabilities"},
        VKM_CLI_NUMERICS(&d),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if ((prompt[0] != 0) + (message[0] != 0) + (data[0] != 0) != 1)
        return vkm_fail(err, VKM_USAGE, "one of --prompt, --message and --data is needed");
    if (system[0] && !message[0]) return vkm_fail(err, VKM_USAGE, "--system goes with --message");
    g.json |= data[0] != 0;
    if (!vkm_cli_open_inference(&given, &g.x, err) &&
        !(data[0] ? read_file(&g, data, err) : take_text(&g, prompt, message, system, err)) &&
        !check_lengths(&g, err) && !vkm_cli_open_device(&d, NULL, &dev, err))
        (void)!generate(&g, dev, err);
    generation_free(&g);
    vkm_cli_close_device(&d, dev);
    return err->status;
}
