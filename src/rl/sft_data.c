/* Owns the reading of supervised rows and their shuffles. */
#include "rl/sft_data.h"

#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "model/chat_json.h"

typedef struct reader {
    const vkm_tokenizer *t;
    uint32_t eos, max_length;
    vkm_sft_data *out;
} reader;

/* ---- one line -------------------------------------------------------------------------------- */

static vkm_status encode(const reader *r, const char *text, size_t n, vkm_ids *out, vkm_err *err) {
    return vkm_tokenizer_encode(r->t, text, n, out, err);
}

static vkm_status push_id(vkm_ids *ids, uint32_t id, vkm_err *err) {
    if (ids->n == ids->cap) {
        size_t cap = 2 * ids->cap + 16;
        uint32_t *more = realloc(ids->id, cap * sizeof *more);
        if (!more) return vkm_fail(err, VKM_FAILED, "out of host memory for token ids");
        ids->id = more;
        ids->cap = cap;
    }
    ids->id[ids->n++] = id;
    return VKM_OK;
}

/* n turns of which the last is the answer. An answer that brings its own think block is not given
 * an empty one. */
static vkm_status encode_turns(const reader *r, vkm_jv at, const vkm_chat_turn *turns, size_t n,
                               vkm_ids *ids, uint32_t *comp0, vkm_err *err) {
    const vkm_chat_turn *answer = &turns[n - 1];
    vkm_chat_style style = vkm_chat_style_of(r->t);
    vkm_strbuf prompt = {0};
    VKM_BUG_ON(!answer->role, "messages without roles");
    if (strcmp(answer->role, "assistant") != 0)
        return vkm_json_fail(at, err,
                             "the last message is of '%.32s'; it must be the assistant's, which is "
                             "what is learnt",
                             answer->role);
    if (style == VKM_CHAT_NO_THINK && strstr(answer->content, "</think>")) style = VKM_CHAT_THINK;
    vkm_status st = vkm_chat_render(turns, n - 1, style, true, &prompt, err);
    if (!st) st = encode(r, prompt.data, prompt.n, ids, err);
    *comp0 = (uint32_t)ids->n;
    if (!st) st = encode(r, answer->content, strlen(answer->content), ids, err);
    if (!st) st = push_id(ids, (uint32_t)vkm_tokenizer_id(r->t, "<|im_end|>"), err);
    vkm_strbuf_free(&prompt);
    return st;
}

static vkm_status encode_lists(const reader *r, vkm_jv first, vkm_jv second, vkm_ids *ids,
                               uint32_t *comp0, vkm_err *err) {
    size_t n = 0, n_first = vkm_json_count(first), n_second = second.v ? vkm_json_count(second) : 0;
    if (second.v && n_second != 1)
        return vkm_json_fail(second, err, "%zu messages; a completion is one message", n_second);
    if (n_first + n_second == 0) return vkm_json_fail(first, err, "no messages");
    vkm_chat_turn *turns = vkm_calloc(n_first + n_second, sizeof *turns, "messages", err);
    if (!turns) return err->status;
    vkm_status st = vkm_chat_read_turns(first, turns, &n, err);
    if (!st && second.v) st = vkm_chat_read_turns(second, turns, &n, err);
    if (!st) st = encode_turns(r, second.v ? second : first, turns, n, ids, comp0, err);
    free(turns);
    return st;
}

static vkm_status encode_texts(const reader *r, vkm_jv line, vkm_ids *ids, uint32_t *comp0,
                               vkm_err *err) {
    const char *prompt, *completion;
    if (vkm_json_get_str(line, "prompt", VKM_JSON_REQ, &prompt, err) ||
        vkm_json_get_str(line, "completion", VKM_JSON_REQ, &completion, err) ||
        encode(r, prompt, strlen(prompt), ids, err))
        return err->status;
    *comp0 = (uint32_t)ids->n;
    if (!*comp0) return vkm_json_fail(line, err, "the prompt is empty: a completion follows one");
    if (encode(r, completion, strlen(completion), ids, err)) return err->status;
    return ids->n > *comp0 && ids->id[ids->n - 1] == r->eos ? VKM_OK : push_id(ids, r->eos, err);
}

static vkm_status read_row(const reader *r, vkm_jv line, vkm_ids *ids, uint32_t *comp0,
                           vkm_err *err) {
    vkm_jv messages = vkm_json_find(line, "messages"), prompt = vkm_json_find(line, "prompt");
    vkm_jv list, second = {0};
    if (vkm_json_typeof(line) != VKM_JSON_OBJECT || (!messages.v && !prompt.v))
        return vkm_json_fail(line, err, "neither 'messages' nor 'prompt' and 'completion'");
    if (messages.v) {
        if (vkm_json_get_array(line, "messages", VKM_JSON_REQ, &list, err)) return err->status;
        return encode_lists(r, list, second, ids, comp0, err);
    }
    if (vkm_json_typeof(prompt) != VKM_JSON_ARRAY) return encode_texts(r, line, ids, comp0, err);
    if (vkm_json_get_array(line, "completion", VKM_JSON_REQ, &second, err)) return err->status;
    return encode_lists(r, prompt, second, ids, comp0, err);
}

/* ---- the file -------------------------------------------------------------------------------- */

static vkm_status grow(vkm_sft_data *d, vkm_err *err) {
    if (d->n < d->cap) return VKM_OK;
    size_t cap = d->cap ? 2 * d->cap : 256;
    vkm_ids *ids = realloc(d->ids, cap * sizeof *ids);
    if (ids) d->ids = ids;
    uint32_t *comp0 = ids ? realloc(d->comp0, cap * sizeof *comp0) : NULL;
    if (!comp0) return vkm_fail(err, VKM_FAILED, "out of host memory for %zu rows", cap);
    d->comp0 = comp0;
    d->cap = cap;
    return VKM_OK;
}

static vkm_status add_row(vkm_jv line, void *ctx, vkm_err *err) {
    const reader *r = ctx;
    vkm_sft_data *d = r->out;
    if (grow(d, err)) return err->status;
    vkm_ids *ids = &d->ids[d->n];
    *ids = (vkm_ids){0};
    if (d->n == UINT32_MAX)
        return vkm_json_fail(line, err, "more than %u rows; take several files", UINT32_MAX);
    if (read_row(r, line, ids, &d->comp0[d->n], err)) goto fail;
    if (d->comp0[d->n] >= r->max_length) {
        (void)vkm_json_fail(line, err,
                            "the prompt has %u tokens and max_length is %u: no room for the "
                            "completion; raise max_length or leave the row out",
                            d->comp0[d->n], r->max_length);
        goto fail;
    }
    if (ids->n > r->max_length) {
        ids->n = r->max_length;
        d->n_cut++;
    }
    if (ids->n > d->longest) d->longest = (uint32_t)ids->n;
    d->n++;
    return VKM_OK;
fail:
    free(ids->id);
    return err->status;
}

vkm_status vkm_sft_data_load(const char *path, const vkm_tokenizer *t, uint32_t eos,
                             uint32_t max_length, vkm_sft_data *out, vkm_err *err) {
    reader r = {t, eos, max_length, out};
    *out = (vkm_sft_data){.epoch = UINT64_MAX};
    vkm_status st = vkm_jsonl_each(path, NULL, add_row, &r, err);
    if (!st && !out->n) st = vkm_fail(err, VKM_FAILED, "%s: no rows", path);
    if (!st) out->order = vkm_calloc(out->n, sizeof *out->order, "the rows", err);
    if (err->status) vkm_sft_data_free(out);
    return err->status;
}

void vkm_sft_data_free(vkm_sft_data *d) {
    for (size_t i = 0; i < d->n; i++) free(d->ids[i].id);
    free(d->ids);
    free(d->comp0);
    free(d->order);
    *d = (vkm_sft_data){0};
}

/* ---- order ----------------------------------------------------------------------------------- */

typedef struct keyed {
    uint64_t key;
    uint32_t row; /* breaks ties */
} keyed;

static int by_key(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static vkm_status shuffle(vkm_sft_data *d, uint64_t seed, uint64_t epoch, vkm_err *err) {
    if (epoch == d->epoch) return VKM_OK;
    keyed *k = vkm_calloc(d->n, sizeof *k, "a shuffle of the rows", err);
    if (!k) return err->status;
    for (uint32_t i = 0; i < d->n; i++) {
        vkm_u4 r = vkm_random4((uint32_t)seed, (uint32_t)(seed >> 32), VKM_RNG_SHUFFLE,
                               (uint32_t)epoch, i, 0, 0);
        k[i] = (keyed){(uint64_t)r.x << 32 | r.y, i};
    }
    qsort(k, d->n, sizeof *k, by_key);
    for (uint32_t i = 0; i < d->n; i++) d->order[i] = k[i].row;
    d->epoch = epoch;
    free(k);
    return VKM_OK;
}

vkm_status vkm_sft_data_batch(vkm_sft_data *d, uint64_t seed, uint64_t first, uint32_t n,
                              vkm_seq *out, vkm_err *err) {
    for (uint32_t i = 0; i < n; i++) {
        if (shuffle(d, seed, (first + i) / d->n, err)) return err->status;
        uint32_t row = d->order[(first + i) % d->n];
        out[i] = (vkm_seq){d->ids[row].id, (uint32_t)d->ids[row].n, d->comp0[row]};
    }
    return VKM_OK;
}
