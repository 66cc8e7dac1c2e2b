/* Owns encoding and decoding: added tokens, NFC, splits, merges. */
#include "model/unicode.h"
#include "model/tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct symbol {
    uint32_t id;
    int32_t prev, next; /* -1 ends; a symbol merged into its left has id VKM_NO_ID */
} symbol;

typedef struct candidate {
    uint32_t rank, id;
    int32_t at;
} candidate;

/* What one call works with; the tokenizer itself stays read-only. */
typedef struct encoder {
    const vkm_tokenizer *t;
    vkm_ids *out;
    vkm_err *err;
    symbol *symbols;
    candidate *heap;
    size_t cap, n_heap;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    vkm_strbuf scratch;
} encoder;

static vkm_status push_id(encoder *e, uint32_t id) {
    vkm_ids *o = e->out;
    if (o->n == o->cap) {
        size_t cap = o->cap ? 2 * o->cap : 64;
        uint32_t *p = realloc(o->id, cap * sizeof *p);
        if (!p) return vkm_fail(e->err, VKM_FAILED, "out of host memory for %zu token ids", cap);
        o->id = p;
        o->cap = cap;
    }
    o->id[o->n++] = id;
    return VKM_OK;
}

/* ---- merges ------------------------------------------------------------------------------------
 */

static bool before(const candidate *a, const candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(encoder *e, candidate c) {
    size_t i = e->n_heap++;
    for (; i && before(&c, &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = c;
}

static candidate heap_pop(encoder *e) {
    candidate top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->n_heap; i = child) {
        if (child + 1 < e->n_heap && before(&e->heap[child + 1], &e->heap[child])) child++;
        if (!before(&e->heap[child], &last)) break;
        e->heap[i] = e->heap[child];
    }
    e->heap[i] = last;
    return top;
}

static void consider(encoder *e, int32_t at) {
    symbol *s = e->symbols;
    if (at < 0 || s[at].next < 0) return;
    const vkm_tok_merge *m = vkm_tok_merge_slot(e->t, s[at].id, s[s[at].next].id);
    if (m->left != VKM_NO_ID) heap_push(e, (candidate){m->rank, m->id, at});
}

/* Each merge leaves one symbol less and adds at most two candidates: 3 n places are enough. */
static vkm_status reserve(encoder *e, size_t n) {
    if (n <= e->cap) return VKM_OK;
    free(e->symbols);
    free(e->heap);
    e->cap = n < 256 ? 256 : n;
    e->symbols = malloc(e->cap * sizeof *e->symbols);
    e->heap = malloc(3 * e->cap * sizeof *e->heap);
    if (e->symbols && e->heap) return VKM_OK;
    e->cap = 0;
    return vkm_fail(e->err, VKM_FAILED, "out of host memory for a word of %zu bytes", n);
}

/* The merge of lowest rank first, the leftmost of equal ones. */
static vkm_status encode_word(encoder *e, const char *word, size_t n) {
    const vkm_tokenizer *t = e->t;
    if (n > INT32_MAX / 4)
        return vkm_fail(e->err, VKM_FAILED, "a word of %zu bytes is too long", n);
    if (t->ignore_merges) { /* a word that is a token is that token */
        vkm_strbuf_clear(&e->scratch);
        for (size_t i = 0; i < n; i++) {
            const vkm_tok_entry *b = &t->entries[t->byte_id[(unsigned char)word[i]]];
            vkm_strbuf_add(&e->scratch, t->arena.data + b->name_at, b->name_n);
        }
        vkm_status st = vkm_strbuf_check(&e->scratch, "a word", e->err);
        if (st) return st;
        uint32_t id = vkm_tok_find(t, e->scratch.data, e->scratch.n);
        if (id != VKM_NO_ID) return push_id(e, id);
    }
    vkm_status st = reserve(e, n);
    if (st) return st;
    symbol *s = e->symbols;
    for (size_t i = 0; i < n; i++)
        s[i] = (symbol){t->byte_id[(unsigned char)word[i]], (int32_t)i - 1,
                        i + 1 < n ? (int32_t)i + 1 : -1};
    e->n_heap = 0;
    for (size_t i = 0; i + 1 < n; i++) consider(e, (int32_t)i);
    while (e->n_heap) {
        candidate c = heap_pop(e);
        if (s[c.at].id == VKM_NO_ID || s[c.at].next < 0) continue;
        int32_t right = s[c.at].next;
        const vkm_tok_merge *m = vkm_tok_merge_slot(t, s[c.at].id, s[right].id);
        if (m->left == VKM_NO_ID || m->rank != c.rank) continue; /* an outdated candidate */
        s[c.at].id = c.id;
        s[c.at].next = s[right].next;
        if (s[right].next >= 0) s[s[right].next].prev = c.at;
        s[right].id = VKM_NO_ID;
        consider(e, s[c.at].prev);
        consider(e, c.at);
    }
    for (int32_t i = 0; i >= 0 && !st; i = s[i].next) st = push_id(e, s[i].id);
    return st;
}

/* ---- splits ------------------------------------------------------------------------------------
 */

/* Cuts text by pattern k (its matches and what is between them), each piece by the patterns after
 * it, and encodes what comes out as words. */
static vkm_status split(encoder *e, const char *text, size_t n, int k) {
    if (!n) return VKM_OK;
    if (k == e->t->n_splits) return encode_word(e, text, n);
    vkm_status st = VKM_OK;
    size_t done = 0, from = 0;
    while (from < n && !st) {
        int rc = pcre2_match(e->t->split[k], (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK,
                             e->match, e->context);
        if (rc == PCRE2_ERROR_NOMATCH) break;
        if (rc < 0) {
            PCRE2_UCHAR message[200];
            pcre2_get_error_message(rc, message, sizeof message);
            return vkm_fail(e->err, VKM_FAILED, "tokenizer pattern %d failed at byte %zu: %s", k,
                            from, (char *)message);
        }
        const PCRE2_SIZE *at = pcre2_get_ovector_pointer(e->match);
        size_t begin = at[0], end = at[1];
        if (end <= begin || begin < from) { /* an empty match cuts nothing */
            from += vkm_utf8_len(text + from, n - from);
            continue;
        }
        st = split(e, text + done, begin - done, k + 1);
        if (!st) st = split(e, text + begin, end - begin, k + 1);
        done = from = end;
    }
    return st ? st : split(e, text + done, n - done, k + 1);
}

/* ---- added tokens and NFC ----------------------------------------------------------------------
 */

static const vkm_tok_added *added_at(const vkm_tokenizer *t, const char *p, const char *end,
                                     bool normalized) {
    for (int32_t i = t->added_first[(unsigned char)*p]; i >= 0; i = t->added[i].next) {
        const vkm_tok_added *a = &t->added[i];
        if (a->normalized == normalized && a->n <= (size_t)(end - p) &&
            !memcmp(p, t->arena.data + a->at, a->n))
            return a;
    }
    return NULL;
}

static vkm_status encode_plain(encoder *e, const char *text, size_t n);

/* Added tokens of one kind become ids (leftmost, longest); `rest` takes the text between them. */
static vkm_status cut_added(encoder *e, const char *text, size_t n, bool normalized,
                            vkm_status (*rest)(encoder *, const char *, size_t)) {
    const char *end = text + n, *done = text;
    vkm_status st = VKM_OK;
    for (const char *p = text; p < end && !st;) {
        const vkm_tok_added *a = added_at(e->t, p, end, normalized);
        const char *from = p, *to = p + (a ? a->n : 1);
        p = to;
        if (!a || (a->single_word && (vkm_word_before(text, from) || vkm_word_at(to, end))))
            continue;
        if (a->lstrip) from = vkm_spaces_before(done, from);
        if (a->rstrip) to = vkm_spaces_at(to, end);
        st = rest(e, done, (size_t)(from - done));
        if (!st) st = push_id(e, a->id);
        done = p = to;
    }
    return st ? st : rest(e, done, (size_t)(end - done));
}

static vkm_status split_all(encoder *e, const char *text, size_t n) {
    return split(e, text, n, 0);
}

static vkm_status encode_normalized(encoder *e, const char *text, size_t n) {
    return e->t->any_normalized ? cut_added(e, text, n, true, split_all) : split_all(e, text, n);
}

static vkm_status encode_plain(encoder *e, const char *text, size_t n) {
    bool ascii = true;
    for (size_t i = 0; i < n && ascii; i++) ascii = (unsigned char)text[i] < 0x80;
    if (ascii || !e->t->nfc) return encode_normalized(e, text, n);
    vkm_strbuf nfc = {0};
    vkm_status st = vkm_nfc(text, n, &nfc, e->err);
    if (!st) st = encode_normalized(e, vkm_strbuf_str(&nfc), nfc.n);
    vkm_strbuf_free(&nfc);
    return st;
}

vkm_status vkm_tokenizer_encode(const vkm_tokenizer *t, const char *text, size_t n, vkm_ids *out,
                                vkm_err *err) {
    for (size_t i = 0; i < n;) {
        size_t len = vkm_utf8_len(text + i, n - i);
        if (!len)
            return vkm_fail(err, VKM_FAILED,
                            "byte %zu of the text to tokenize is not UTF-8; convert the text", i);
        i += len;
    }
    encoder e = {.t = t, .out = out, .err = err};
    vkm_status st = VKM_OK;
    e.match = pcre2_match_data_create(1, NULL);
    e.context = pcre2_match_context_create(NULL);
    e.stack = pcre2_jit_stack_create((size_t)32 << 10, (size_t)8 << 20, NULL);
    if (!e.match || !e.context || !e.stack)
        st = vkm_fail(err, VKM_FAILED, "out of host memory for a regular expression");
    if (!st) {
        pcre2_jit_stack_assign(e.context, NULL, e.stack);
        st = cut_added(&e, text, n, false, encode_plain);
    }
    pcre2_jit_stack_free(e.stack);
    pcre2_match_context_free(e.context);
    pcre2_match_data_free(e.match);
    vkm_strbuf_free(&e.scratch);
    free(e.symbols);
    free(e.heap);
    return st;
}

static void add_bytes(const vkm_tokenizer *t, const uint32_t *ids, size_t n, bool skip_special,
                      vkm_strbuf *out) {
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *bytes = vkm_tokenizer_bytes(t, ids[i], &len);
        if (!skip_special || !vkm_tokenizer_is_special(t, ids[i])) vkm_strbuf_add(out, bytes, len);
    }
}

void vkm_tokenizer_decode(const vkm_tokenizer *t, const uint32_t *ids, size_t n, bool skip_special,
                          vkm_strbuf *out) {
    size_t from = out->n;
    add_bytes(t, ids, n, skip_special, out);
    vkm_utf8_repair(out, from);
}

/* Bytes at the end of s (n) that begin a character whose rest may still come. */
static size_t unfinished(const char *s, size_t n) {
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        unsigned char c = (unsigned char)s[n - k];
        if ((c & 0xC0) == 0x80) continue; /* goes on */
        size_t whole = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC2 ? 2 : 1;
        return k < whole ? k : 0;
    }
    return 0;
}

void vkm_decoder_add(vkm_decoder *d, const uint32_t *ids, size_t n, vkm_strbuf *out) {
    size_t from = out->n;
    vkm_strbuf_add(out, d->held, d->n_held);
    add_bytes(d->t, ids, n, d->skip_special, out);
    d->n_held = 0;
    if (out->failed || out->n == from) return;
    d->n_held = unfinished(out->data + from, out->n - from);
    out->n -= d->n_held;
    memcpy(d->held, out->data + out->n, d->n_held);
    out->data[out->n] = 0;
    vkm_utf8_repair(out, from);
}

void vkm_decoder_end(vkm_decoder *d, vkm_strbuf *out) {
    size_t from = out->n;
    vkm_strbuf_add(out, d->held, d->n_held);
    d->n_held = 0;
    vkm_utf8_repair(out, from);
}
