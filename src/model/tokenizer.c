/* Owns loading tokenizer.json: everything that would give other ids than the `tokenizers` library
 * is refused by name, nothing is ignored that matters. */
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "model/tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_MAX = 1 << 22, NAME_MAX_BYTES = 4096, ADDED_MAX = 1 << 13 };

/* What ByteLevel uses when it splits by itself: GPT-2's pattern, from its published tokenizer. */
static const char gpt2_pattern[] =
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- tables ------------------------------------------------------------------------------------
 */

uint32_t vkm_tok_byte_char(unsigned byte) {
    if ((byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173)) return byte;
    /* the other 68 follow from 256 on: 0 to 32, 127 to 160, 173 */
    return 256 + (byte <= 32 ? byte : byte <= 160 ? byte - 127 + 33 : 67);
}

static size_t put_utf8(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xC0 | c >> 6); /* the alphabet ends at U+0143 */
    out[1] = (char)(0x80 | (c & 0x3F));
    return 2;
}

/* Turns a name of the ByteLevel alphabet into bytes; false when it holds another character. */
static bool name_to_bytes(const int16_t of_char[0x144], const char *name, size_t n,
                          vkm_strbuf *out) {
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)name[i];
        uint32_t u = c < 0x80 ? c
                     : c < 0xE0 && vkm_utf8_len(name + i, n - i)
                         ? (c & 0x1Fu) << 6 | (name[i + 1] & 0x3F)
                         : 0x144;
        if (u >= 0x144 || of_char[u] < 0) return false;
        vkm_strbuf_putc(out, (char)of_char[u]);
        i += c < 0x80 ? 1 : 2;
    }
    return true;
}

static uint32_t name_slot(const vkm_tokenizer *t, const char *name, size_t n) {
    uint32_t i = (uint32_t)vkm_hash64(name, n, 0) & (t->n_names - 1);
    for (; t->names[i]; i = (i + 1) & (t->n_names - 1)) {
        const vkm_tok_entry *e = &t->entries[t->names[i] - 1];
        if (e->name_n == n && !memcmp(t->arena.data + e->name_at, name, n)) break;
    }
    return i;
}

uint32_t vkm_tok_find(const vkm_tokenizer *t, const char *name, size_t n) {
    return t->names[name_slot(t, name, n)] - 1; /* an empty slot's 0 becomes VKM_NO_ID */
}

vkm_tok_merge *vkm_tok_merge_slot(const vkm_tokenizer *t, uint32_t left, uint32_t right) {
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u;
    uint32_t i = (uint32_t)(h >> 32) & (t->n_merges - 1);
    while (t->merges[i].left != VKM_NO_ID &&
           (t->merges[i].left != left || t->merges[i].right != right))
        i = (i + 1) & (t->n_merges - 1);
    return &t->merges[i];
}

static uint32_t table_size(size_t n) {
    uint32_t size = 16;
    while (size < 2 * n + 2) size *= 2;
    return size;
}

/* ---- tokens ------------------------------------------------------------------------------------
 */

static vkm_status reserve_ids(vkm_tokenizer *t, uint32_t id, vkm_err *err) {
    if (id >= t->cap_ids) {
        uint32_t cap = t->cap_ids ? t->cap_ids : 1024;
        while (cap <= id) cap *= 2;
        vkm_tok_entry *p = realloc(t->entries, cap * sizeof *p);
        if (!p) return vkm_fail(err, VKM_FAILED, "out of host memory for %u tokens", cap);
        memset(p + t->cap_ids, 0, (cap - t->cap_ids) * sizeof *p);
        t->entries = p;
        t->cap_ids = cap;
    }
    if (id >= t->n_ids) t->n_ids = id + 1;
    return VKM_OK;
}

/* Gives a free id its name and bytes. */
static vkm_status add_token(vkm_tokenizer *t, const int16_t *of_char, vkm_jv at, const char *name,
                            uint32_t id, vkm_err *err) {
    size_t n = strlen(name);
    if (!n || n > NAME_MAX_BYTES)
        return vkm_json_fail(at, err, "a token must have 1 to %d bytes, has %zu", NAME_MAX_BYTES,
                             n);
    if (id < t->n_ids && t->entries[id].name_n)
        return vkm_json_fail(at, err, "id %u belongs to '%.*s' already", id,
                             (int)t->entries[id].name_n, t->arena.data + t->entries[id].name_at);
    vkm_status st = reserve_ids(t, id, err);
    if (st) return st;
    vkm_tok_entry *e = &t->entries[id];
    e->name_at = (uint32_t)t->arena.n;
    e->name_n = (uint32_t)n;
    vkm_strbuf_add(&t->arena, name, n);
    e->bytes_at = (uint32_t)t->arena.n;
    if (!name_to_bytes(of_char, name, n, &t->arena)) {
        t->arena.n = e->bytes_at;
        vkm_strbuf_add(&t->arena, name, n);
    }
    e->bytes_n = (uint32_t)t->arena.n - e->bytes_at;
    if (t->arena.n > UINT32_MAX / 2) return vkm_json_fail(at, err, "more than 2 GiB of tokens");
    return vkm_strbuf_check(&t->arena, "tokens", err);
}

static vkm_status load_vocab(vkm_tokenizer *t, const int16_t *of_char, vkm_jv model, size_t n_added,
                             vkm_err *err) {
    vkm_jv vocab = {0};
    vkm_status st = vkm_json_get_object(model, "vocab", VKM_JSON_REQ, &vocab, err);
    for (vkm_jv e = vkm_json_first(vocab); !st && e.v; e = vkm_json_next(e)) {
        int64_t id = 0;
        st = vkm_json_i64(e, 0, ID_MAX, &id, err);
        if (!st) st = add_token(t, of_char, e, vkm_json_key(e), (uint32_t)id, err);
    }
    if (st) return st;
    t->n_names = table_size(t->n_ids + n_added);
    t->names = vkm_calloc(t->n_names, sizeof *t->names, "token names", err);
    if (!t->names) return err->status;
    for (uint32_t id = 0; id < t->n_ids; id++) /* names are unique: the keys of one object */
        if (t->entries[id].name_n)
            t->names[name_slot(t, t->arena.data + t->entries[id].name_at, t->entries[id].name_n)] =
                id + 1;
    for (unsigned b = 0; b < 256; b++) {
        char name[4];
        t->byte_id[b] = vkm_tok_find(t, name, put_utf8(vkm_tok_byte_char(b), name));
        if (t->byte_id[b] == VKM_NO_ID)
            return vkm_json_fail(vocab, err,
                                 "lacks byte 0x%02X; is it a byte-level BPE vocabulary?", b);
    }
    return VKM_OK;
}

/* A merge is "a b" or ["a", "b"]. */
static vkm_status split_merge(vkm_jv e, const char **left, size_t *n_left, const char **right,
                              vkm_err *err) {
    if (vkm_json_typeof(e) == VKM_JSON_ARRAY) {
        vkm_jv first = vkm_json_first(e);
        if (vkm_json_count(e) != 2) return vkm_json_fail(e, err, "must be two tokens");
        vkm_status st = vkm_json_str(first, left, err);
        if (!st) *n_left = strlen(*left);
        return st ? st : vkm_json_str(vkm_json_next(first), right, err);
    }
    vkm_status st = vkm_json_str(e, left, err);
    if (st) return st;
    const char *space = strchr(*left, ' ');
    if (!space || strchr(space + 1, ' '))
        return vkm_json_fail(e, err, "must be two tokens with one space between them");
    *n_left = (size_t)(space - *left);
    *right = space + 1;
    return VKM_OK;
}

static vkm_status load_merges(vkm_tokenizer *t, vkm_jv model, vkm_err *err) {
    vkm_jv merges = {0};
    vkm_status st = vkm_json_get_array(model, "merges", VKM_JSON_REQ, &merges, err);
    if (st) return st;
    t->n_merges = table_size(vkm_json_count(merges));
    t->merges = vkm_calloc(t->n_merges, sizeof *t->merges, "merges", err);
    if (!t->merges) return err->status;
    for (uint32_t i = 0; i < t->n_merges; i++) t->merges[i].left = VKM_NO_ID;
    vkm_strbuf joined = {0};
    uint32_t rank = 0;
    for (vkm_jv e = vkm_json_first(merges); !st && e.v; e = vkm_json_next(e), rank++) {
        const char *left = "", *right = "";
        size_t n_left = 0;
        st = split_merge(e, &left, &n_left, &right, err);
        if (st) break;
        vkm_strbuf_clear(&joined);
        vkm_strbuf_add(&joined, left, n_left);
        vkm_strbuf_puts(&joined, right);
        if ((st = vkm_strbuf_check(&joined, "a merge", err))) break;
        uint32_t a = vkm_tok_find(t, left, n_left), b = vkm_tok_find(t, right, strlen(right));
        uint32_t id = vkm_tok_find(t, vkm_strbuf_str(&joined), joined.n);
        if (a == VKM_NO_ID || b == VKM_NO_ID || id == VKM_NO_ID)
            st = vkm_json_fail(e, err, "'%.100s' is not in the vocabulary",
                               a == VKM_NO_ID   ? left
                               : b == VKM_NO_ID ? right
                                                : vkm_strbuf_str(&joined));
        else
            *vkm_tok_merge_slot(t, a, b) = (vkm_tok_merge){a, b, rank, id};
    }
    vkm_strbuf_free(&joined);
    return st;
}

/* ---- added tokens ------------------------------------------------------------------------------
 */

static vkm_status load_added_token(vkm_tokenizer *t, const int16_t *of_char, vkm_jv e,
                                   vkm_err *err) {
    vkm_tok_added a = {.next = -1};
    const struct {
        const char *key;
        bool *on;
    } flags[] = {{"special", NULL},
                 {"normalized", &a.normalized},
                 {"single_word", &a.single_word},
                 {"lstrip", &a.lstrip},
                 {"rstrip", &a.rstrip}};
    const char *content = NULL;
    int64_t id = 0;
    bool special = false;
    vkm_status st = vkm_json_get_i64(e, "id", VKM_JSON_REQ, 0, ID_MAX, &id, err);
    if (!st) st = vkm_json_get_str(e, "content", VKM_JSON_REQ, &content, err);
    for (size_t i = 0; i < VKM_COUNTOF(flags) && !st; i++)
        st = vkm_json_get_bool(e, flags[i].key, VKM_JSON_OPT, flags[i].on ? flags[i].on : &special,
                               err);
    if (st) return st;
    size_t n = strlen(content);
    uint32_t known = vkm_tok_find(t, content, n);
    if (known == VKM_NO_ID) {
        st = add_token(t, of_char, e, content, (uint32_t)id, err);
        if (st) return st;
        t->names[name_slot(t, content, n)] = (uint32_t)id + 1;
    } else if (known != (uint32_t)id || !n) {
        return vkm_json_fail(e, err, "'%.100s' has id %u already", content, known);
    }
    for (uint32_t i = 0; i < t->n_added; i++)
        if (t->added[i].id == (uint32_t)id)
            return vkm_json_fail(e, err, "'%.100s' is added twice", content);
    a.id = (uint32_t)id;
    a.at = t->entries[id].name_at;
    a.n = (uint32_t)n;
    t->entries[id].special = special;
    t->any_normalized |= a.normalized;
    int32_t *link = &t->added_first[(unsigned char)content[0]];
    while (*link >= 0 && t->added[*link].n >= a.n) link = &t->added[*link].next;
    a.next = *link;
    *link = (int32_t)t->n_added;
    t->added[t->n_added++] = a;
    return VKM_OK;
}

static vkm_status load_added(vkm_tokenizer *t, const int16_t *of_char, vkm_jv list, vkm_err *err) {
    t->added = vkm_calloc(vkm_json_count(list), sizeof *t->added, "added tokens", err);
    if (!t->added) return err->status;
    memset(t->added_first, -1, sizeof t->added_first);
    vkm_status st = VKM_OK;
    for (vkm_jv e = vkm_json_first(list); !st && e.v; e = vkm_json_next(e))
        st = load_added_token(t, of_char, e, err);
    return st;
}

/* ---- normalizer and pre-tokenizer --------------------------------------------------------------
 */

/* Calls `row` for a {"type": ...} object, or for each of a Sequence's. */
static vkm_status each_type(vkm_tokenizer *t, vkm_jv v, const char *list_key,
                            vkm_status (*row)(vkm_tokenizer *t, vkm_jv v, const char *type,
                                              vkm_err *err),
                            vkm_err *err) {
    const char *type = NULL;
    if (vkm_json_typeof(v) <= VKM_JSON_NULL) return VKM_OK;
    vkm_status st = vkm_json_get_str(v, "type", VKM_JSON_REQ, &type, err);
    if (st || strcmp(type, "Sequence") != 0) return st ? st : row(t, v, type, err);
    vkm_jv list = {0};
    st = vkm_json_get_array(v, list_key, VKM_JSON_REQ, &list, err);
    for (vkm_jv e = vkm_json_first(list); !st && e.v; e = vkm_json_next(e)) {
        st = vkm_json_get_str(e, "type", VKM_JSON_REQ, &type, err);
        if (!st) st = row(t, e, type, err);
    }
    return st;
}

static vkm_status load_normalizer(vkm_tokenizer *t, vkm_jv v, const char *type, vkm_err *err) {
    if (strcmp(type, "NFC") != 0)
        return vkm_json_fail(v, err, "normalizer \"%.40s\" is not supported; supported: NFC", type);
    t->nfc = true;
    return VKM_OK;
}

/* PCRE2's \s takes U+180E, which is no white space for the regex engines of `tokenizers`: \s and
 * \S are written out. */
static void spell_out_spaces(const char *pattern, vkm_strbuf *out) {
    static const char spaces[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                                 "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
    bool in_class = false;
    for (const char *p = pattern; *p; p++) {
        if (*p == '\\' && (p[1] == 's' || (p[1] == 'S' && !in_class))) {
            if (!in_class) vkm_strbuf_puts(out, p[1] == 'S' ? "[^" : "[");
            vkm_strbuf_puts(out, spaces);
            if (!in_class) vkm_strbuf_putc(out, ']');
            p++;
        } else if (*p == '\\' && p[1]) {
            vkm_strbuf_add(out, p++, 2);
        } else {
            if (*p == '[') in_class = true;
            if (*p == ']') in_class = false;
            vkm_strbuf_putc(out, *p);
        }
    }
}

static vkm_status add_pattern(vkm_tokenizer *t, vkm_jv at, const char *pattern, vkm_err *err) {
    if (t->n_splits == VKM_TOK_SPLITS)
        return vkm_json_fail(at, err, "more than %d patterns are not supported", VKM_TOK_SPLITS);
    vkm_strbuf text = {0};
    spell_out_spaces(pattern, &text);
    vkm_status st = vkm_strbuf_check(&text, "a pattern", err);
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *re = NULL;
    if (!st)
        re = pcre2_compile((PCRE2_SPTR)vkm_strbuf_str(&text), text.n,
                           PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
    vkm_strbuf_free(&text);
    if (st) return st;
    if (!re) {
        PCRE2_UCHAR message[200];
        pcre2_get_error_message(code, message, sizeof message);
        return vkm_json_fail(at, err, "the pattern does not compile: %s", (char *)message);
    }
    pcre2_jit_compile(re, PCRE2_JIT_COMPLETE); /* without a JIT the interpreter gives the same */
    t->split[t->n_splits++] = re;
    return VKM_OK;
}

static vkm_status load_pre_tokenizer(vkm_tokenizer *t, vkm_jv v, const char *type, vkm_err *err) {
    if (!strcmp(type, "ByteLevel")) {
        bool prefix = false, use_regex = true;
        vkm_status st = vkm_json_get_bool(v, "add_prefix_space", VKM_JSON_OPT, &prefix, err);
        if (!st) st = vkm_json_get_bool(v, "use_regex", VKM_JSON_OPT, &use_regex, err);
        if (!st && prefix)
            st =
                vkm_json_fail(vkm_json_find(v, "add_prefix_space"), err, "only false is supported");
        return st || !use_regex ? st : add_pattern(t, v, gpt2_pattern, err);
    }
    if (strcmp(type, "Split") != 0)
        return vkm_json_fail(
            v, err, "pre-tokenizer \"%.40s\" is not supported; supported: Split, ByteLevel", type);
    const char *behavior = NULL, *pattern = NULL;
    bool invert = false;
    vkm_jv p = {0};
    vkm_status st = vkm_json_get_str(v, "behavior", VKM_JSON_REQ, &behavior, err);
    if (!st && strcmp(behavior, "Isolated") != 0)
        st = vkm_json_fail(vkm_json_find(v, "behavior"), err, "only \"Isolated\" is supported");
    if (!st) st = vkm_json_get_bool(v, "invert", VKM_JSON_OPT, &invert, err);
    if (!st && invert)
        st = vkm_json_fail(vkm_json_find(v, "invert"), err, "only false is supported");
    if (!st) st = vkm_json_get_object(v, "pattern", VKM_JSON_REQ, &p, err);
    if (!st) st = vkm_json_get_str(p, "Regex", VKM_JSON_REQ, &pattern, err);
    return st ? st : add_pattern(t, v, pattern, err);
}

/* ---- the whole ---------------------------------------------------------------------------------
 */

static vkm_status check_model(vkm_jv model, bool *ignore_merges, vkm_err *err) {
    static const char *const must_be_empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = "BPE";
    bool byte_fallback = false;
    vkm_status st = vkm_json_get_str(model, "type", VKM_JSON_OPT, &type, err);
    if (!st && strcmp(type, "BPE") != 0)
        st = vkm_json_fail(vkm_json_find(model, "type"), err,
                           "\"%.40s\" is not supported; supported: BPE", type);
    for (size_t i = 0; i < VKM_COUNTOF(must_be_empty) && !st; i++) {
        const char *text = "";
        st = vkm_json_get_str(model, must_be_empty[i], VKM_JSON_OPT, &text, err);
        if (!st && *text)
            st = vkm_json_fail(vkm_json_find(model, must_be_empty[i]), err, "is not supported");
    }
    double dropout = 0;
    if (!st) st = vkm_json_get_double(model, "dropout", VKM_JSON_OPT, 0, 1, &dropout, err);
    if (!st && dropout > 0)
        st =
            vkm_json_fail(vkm_json_find(model, "dropout"), err, "is not supported; set it to null");
    if (!st) st = vkm_json_get_bool(model, "byte_fallback", VKM_JSON_OPT, &byte_fallback, err);
    if (!st && byte_fallback)
        st = vkm_json_fail(vkm_json_find(model, "byte_fallback"), err, "only false is supported");
    return st ? st : vkm_json_get_bool(model, "ignore_merges", VKM_JSON_OPT, ignore_merges, err);
}

static vkm_status load_document(vkm_tokenizer *t, vkm_jv root, vkm_err *err) {
    int16_t of_char[0x144];
    memset(of_char, -1, sizeof of_char);
    for (unsigned b = 0; b < 256; b++) of_char[vkm_tok_byte_char(b)] = (int16_t)b;
    vkm_jv model = {0}, added = {0}, decoder = {0};
    vkm_status st = vkm_json_get_object(root, "model", VKM_JSON_REQ, &model, err);
    if (!st) st = vkm_json_get_array(root, "added_tokens", VKM_JSON_REQ, &added, err);
    if (!st && vkm_json_count(added) > ADDED_MAX)
        st = vkm_json_fail(added, err, "more than %d added tokens are not supported", ADDED_MAX);
    if (!st) st = check_model(model, &t->ignore_merges, err);
    if (!st)
        st = each_type(t, vkm_json_find(root, "normalizer"), "normalizers", load_normalizer, err);
    if (!st)
        st = each_type(t, vkm_json_find(root, "pre_tokenizer"), "pretokenizers", load_pre_tokenizer,
                       err);
    if (!st) st = vkm_json_get_object(root, "decoder", VKM_JSON_OPT, &decoder, err);
    if (!st && decoder.v) {
        const char *type = NULL;
        st = vkm_json_get_str(decoder, "type", VKM_JSON_REQ, &type, err);
        if (!st && strcmp(type, "ByteLevel") != 0)
            st = vkm_json_fail(decoder, err,
                               "decoder \"%.40s\" is not supported; supported: ByteLevel", type);
    }
    if (!st) st = load_vocab(t, of_char, model, vkm_json_count(added), err);
    if (!st) st = load_merges(t, model, err);
    return st ? st : load_added(t, of_char, added, err);
}

static const vkm_json_limits limits = {.max_bytes = (size_t)256 << 20, .max_depth = 16};

/* ---- loading --------------------------------------------------------------------------------- */

/* Takes the document over. */
static vkm_status build(vkm_json *doc, vkm_tokenizer **out, vkm_err *err) {
    vkm_tokenizer *t = vkm_calloc(1, sizeof *t, "a tokenizer", err);
    vkm_status st = t ? load_document(t, vkm_json_root(doc), err) : err->status;
    vkm_json_free(doc);
    if (st) {
        vkm_tokenizer_free(t);
        return st;
    }
    *out = t;
    return vkm_tok_find_style(t, NULL, err);
}

vkm_status vkm_tokenizer_parse(const char *text, size_t n, const char *name, vkm_tokenizer **out,
                               vkm_err *err) {
    vkm_json *doc = NULL;
    *out = NULL;
    vkm_status st = vkm_json_parse(text, n, name, &limits, &doc, err);
    return st ? st : build(doc, out, err);
}

vkm_status vkm_tokenizer_load(const char *path, vkm_tokenizer **out, vkm_err *err) {
    char file[VKM_PATH_MAX];
    vkm_json *doc = NULL;
    *out = NULL;
    vkm_status st = vkm_path_join(file, vkm_dir_exists(path) ? path : NULL,
                                  vkm_dir_exists(path) ? "tokenizer.json" : path, err);
    if (!st) st = vkm_json_load(file, &limits, &doc, err);
    if (!st) st = build(doc, out, err);
    if (st || !vkm_dir_exists(path) || !vkm_tok_find_style(*out, path, err)) return st;
    vkm_tokenizer_free(*out);
    *out = NULL;
    return err->status;
}

void vkm_tokenizer_free(vkm_tokenizer *t) {
    if (!t) return;
    for (int i = 0; i < t->n_splits; i++) pcre2_code_free(t->split[i]);
    vkm_strbuf_free(&t->arena);
    free(t->entries);
    free(t->names);
    free(t->merges);
    free(t->added);
    free(t);
}

uint32_t vkm_tokenizer_n_ids(const vkm_tokenizer *t) {
    return t->n_ids;
}

int64_t vkm_tokenizer_id(const vkm_tokenizer *t, const char *token) {
    uint32_t id = vkm_tok_find(t, token, strlen(token));
    return id == VKM_NO_ID ? -1 : (int64_t)id;
}

const char *vkm_tokenizer_bytes(const vkm_tokenizer *t, uint32_t id, size_t *n) {
    *n = id < t->n_ids ? t->entries[id].bytes_n : 0;
    return *n ? t->arena.data + t->entries[id].bytes_at : "";
}

bool vkm_tokenizer_is_special(const vkm_tokenizer *t, uint32_t id) {
    return id < t->n_ids && t->entries[id].special;
}
