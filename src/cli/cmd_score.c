/* `vkmoe score`: log-probabilities of completions, JSON lines in and out. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/inference_opts.h"
#include "model/chat_json.h"
#include "model/safetensors.h"

typedef struct row {
    vkm_ids ids;
    uint32_t comp0;
    float *logp;
} row;

typedef struct rows {
    const vkm_inference *x;
    row *of;
    size_t n, cap;
    uint32_t longest;
} rows;

static void rows_free(rows *r) {
    for (size_t i = 0; i < r->n; i++) free(r->of[i].ids.id), free(r->of[i].logp);
    free(r->of);
}

/* ---- reading --------------------------------------------------------------------------------- */

/* A side of a line: KEY_ids, a list of token ids, or KEY, a text (of a prompt also messages). */
static vkm_status read_side(const vkm_inference *x, vkm_jv line, const char *key, int messages,
                            vkm_ids *out, vkm_err *err) {
    char ids_key[32];
    snprintf(ids_key, sizeof ids_key, "%s_ids", key);
    vkm_jv ids = vkm_json_find(line, ids_key), text = vkm_json_find(line, key);
    size_t before = out->n;
    if (!ids.v == !text.v)
        return vkm_json_fail(line, err, "%s of '%s' and '%s' must be there",
                             ids.v ? "only one" : "one", key, ids_key);
    if (ids.v) {
        if (vkm_ids_read(ids, x->hf.V, out, err)) return err->status;
    } else {
        if (!messages && vkm_json_typeof(text) != VKM_JSON_STRING)
            return vkm_json_fail_type(text, "a string", err);
        if (vkm_chat_prompt_ids(x->tokenizer, text, out, err)) return err->status;
    }
    return out->n > before ? VKM_OK
                           : vkm_json_fail(ids.v ? ids : text, err, "no token: nothing %s",
                                           messages ? "comes before the completion" : "to score");
}

static vkm_status read_row(const vkm_inference *x, vkm_jv line, row *out, vkm_err *err) {
    if (vkm_json_typeof(line) != VKM_JSON_OBJECT) return vkm_json_fail_type(line, "an object", err);
    if (read_side(x, line, "prompt", 1, &out->ids, err)) return err->status;
    out->comp0 = (uint32_t)out->ids.n;
    if (read_side(x, line, "completion", 0, &out->ids, err)) return err->status;
    if (out->ids.n > x->hf.max_pos)
        return vkm_json_fail(line, err,
                             "%zu tokens; the model is made for %u (max_position_embeddings)",
                             out->ids.n, x->hf.max_pos);
    out->logp = vkm_calloc(out->ids.n - out->comp0, sizeof *out->logp, "log-probabilities", err);
    return err->status;
}

static vkm_status add_row(vkm_jv line, void *ctx, vkm_err *err) {
    rows *all = ctx;
    if (all->n == all->cap) {
        size_t cap = 2 * all->cap + 64;
        row *more = realloc(all->of, cap * sizeof *more);
        if (!more) return vkm_fail(err, VKM_FAILED, "out of host memory for %zu rows", cap);
        all->of = more;
        all->cap = cap;
    }
    row *r = &all->of[all->n++];
    *r = (row){0};
    if (read_row(all->x, line, r, err)) return err->status;
    if (r->ids.n > all->longest) all->longest = (uint32_t)r->ids.n;
    return VKM_OK;
}

static vkm_status read_rows(const vkm_inference *x, const char *path, rows *out, vkm_err *err) {
    out->x = x;
    if (vkm_jsonl_each(path, NULL, add_row, out, err)) return err->status;
    return out->n ? VKM_OK : vkm_fail(err, VKM_FAILED, "%s: no lines", path);
}

/* ---- scoring --------------------------------------------------------------------------------- */

static vkm_example example(const vkm_inference *x, const row *r) {
    vkm_example e = {.seq = {r->ids.id, (uint32_t)r->ids.n, r->comp0}, .logp = r->logp};
    memcpy(e.f, x->f, sizeof e.f);
    return e;
}

static vkm_status print_row(const row *r, vkm_strbuf *b, vkm_err *err) {
    vkm_jw w = vkm_jw_begin(b, 0);
    double sum = 0;
    vkm_strbuf_clear(b);
    vkm_jw_obj(&w, NULL);
    vkm_jw_arr(&w, "logprobs");
    for (size_t i = 0; i < r->ids.n - r->comp0; i++) {
        vkm_jw_float(&w, NULL, r->logp[i]);
        sum += (double)r->logp[i];
    }
    vkm_jw_end_arr(&w);
    vkm_jw_double(&w, "sum", sum);
    vkm_jw_end_obj(&w);
    if (!vkm_strbuf_check(b, "a line", err)) puts(b->data);
    return err->status;
}

/* Some rows at a time, so that lines come while others are computed. */
static vkm_status score(vkm_inference *x, const rows *all, vkm_err *err) {
    enum { AT_ONCE = 64 };
    vkm_strbuf line = {0};
    vkm_progress bar;
    vkm_progress_begin(&bar, "rows", 0, all->n);
    for (size_t first = 0; first < all->n && !err->status; first += AT_ONCE) {
        vkm_example e[AT_ONCE];
        uint32_t n = all->n - first < AT_ONCE ? (uint32_t)(all->n - first) : AT_ONCE;
        for (uint32_t i = 0; i < n; i++) e[i] = example(x, &all->of[first + i]);
        if (vkm_policy_read(x->policy, e, n, err)) break;
        for (uint32_t i = 0; i < n && !err->status; i++)
            (void)!print_row(&all->of[first + i], &line, err);
        vkm_progress_at(&bar, first + n, " ");
    }
    vkm_progress_end(&bar);
    vkm_strbuf_free(&line);
    return err->status;
}

/* ---- logits ---------------------------------------------------------------------------------- */

typedef struct dump {
    vkm_st_writer writer;
    uint32_t n_vocab;
} dump;

static vkm_status add_logits(void *user, const float *logits, uint32_t n, vkm_err *err) {
    dump *d = user;
    return vkm_st_writer_add(&d->writer, logits, (uint64_t)n * d->n_vocab * sizeof *logits, err);
}

/* Tensor "logits.I" of line I (from 0): (completion tokens, V) fp32, row j before token j. */
static vkm_status dump_logits(vkm_inference *x, const rows *all, const char *path, vkm_err *err) {
    dump d = {.writer = {.save.fd = -1}, .n_vocab = x->hf.V};
    vkm_st_entry *e = vkm_calloc(all->n, sizeof *e, "logits", err);
    char(*names)[32] = vkm_calloc(all->n, sizeof *names, "logits", err);
    if (!e || !names) goto done;
    for (size_t i = 0; i < all->n; i++) {
        snprintf(names[i], sizeof names[i], "logits.%zu", i);
        e[i] = (vkm_st_entry){.name = names[i],
                              .dtype = VKM_ST_F32,
                              .n_dims = 2,
                              .shape = {all->of[i].ids.n - all->of[i].comp0, x->hf.V}};
    }
    if (vkm_st_writer_begin(&d.writer, path, e, all->n, NULL, 0, err)) goto done;
    for (size_t i = 0; i < all->n && !err->status; i++) {
        vkm_example one = example(x, &all->of[i]);
        (void)!vkm_policy_logits(x->policy, &one, add_logits, &d, err);
    }
    if (!err->status && !vkm_st_writer_commit(&d.writer, err)) vkm_info("logits %s", path);
done:
    vkm_st_writer_abort(&d.writer);
    free(names), free(e);
    return err->status;
}

/* ---- the command ----------------------------------------------------------------------------- */

vkm_status vkm_cmd_score(int argc, char **argv, vkm_err *err) {
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    vkm_cli_inference given = VKM_CLI_INFERENCE_DEFAULTS;
    vkm_inference x = {0};
    vkm_dev *dev = NULL;
    rows all = {0};
    const char *data = "/dev/stdin", *logits = "";
    int64_t tokens = 4096;
    vkm_opt opts[] = {
        VKM_CLI_INFERENCE_OPTS(&given),
        {"data", VKM_OPT_STRING, &data, .arg = "FILE",
         .help =
             "JSON lines of prompt or prompt_ids, and completion or completion_ids; a prompt is "
             "a text, or a list of messages"},
        {"logits", VKM_OPT_STRING, &logits, .arg = "FILE",
         .help = "write the logits before each completion token (safetensors)"},
        {"micro_batch_tokens", VKM_OPT_INT, &tokens, .min = 1, .max = 1e9,
         .help = "tokens of one pass; no bit depends on it"},
        VKM_CLI_NUMERICS(&d),
        VKM_CLI_DEVICE_OPTS(&d),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err) ||
        vkm_cli_open_inference(&given, &x, err) || read_rows(&x, data, &all, err) ||
        vkm_cli_open_device(&d, NULL, &dev, err))
        goto done;
    const vkm_inference_limits max = {
        .max_prompt = all.longest, .rollouts = 1, .prompts = 1, .micro_rows = (uint32_t)tokens};
    if (!vkm_inference_load(&x, dev, &max, NULL, err) && !score(&x, &all, err) && logits[0])
        (void)!dump_logits(&x, &all, logits, err);
done:
    rows_free(&all);
    vkm_inference_close(&x);
    vkm_cli_close_device(&d, dev);
    return err->status;
}
