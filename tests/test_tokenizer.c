/* The tokenizer and the chat format: equal to the `tokenizers` library on a small golden file and,
 * where the Qwen3 fixtures are, on all of them; and what is refused. */
#include "base/json.h"
#include "base/log.h"
#include "model/chat_json.h"
#include "model/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tmpdir.h"

#define GOLDEN VKM_SOURCE_DIR "/tests/golden/tokenizer"
#define QWEN3  VKM_SOURCE_DIR "/../shared/data/qwen3-tokenizer"

static void assert_ids(vkm_jv want, const vkm_ids *ids, const char *where, size_t line) {
    size_t i = 0;
    vkm_err err = {0};
    for (vkm_jv e = vkm_json_first(want); e.v; e = vkm_json_next(e), i++) {
        int64_t id = -1;
        assert_int_equal(vkm_json_i64(e, 0, UINT32_MAX, &id, &err), VKM_OK);
        if (i >= ids->n || ids->id[i] != (uint32_t)id)
            fail_msg("%s, line %zu: id %zu is %lld, want %lld", where, line, i,
                     i < ids->n ? (long long)ids->id[i] : -1, (long long)id);
    }
    if (i != ids->n) fail_msg("%s, line %zu: %zu ids, want %zu", where, line, ids->n, i);
}

static void equals_the_golden_file(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_tokenizer *t;
    vkm_jsonl *l;
    assert_int_equal(vkm_tokenizer_load(GOLDEN "/tokenizer.json", &t, &err), VKM_OK);
    assert_int_equal(vkm_jsonl_open(GOLDEN "/cases.jsonl", NULL, &l, &err), VKM_OK);
    size_t n_cases = 0;
    for (vkm_json *doc; vkm_jsonl_next(l, &doc, &err) == VKM_OK && doc; vkm_json_free(doc)) {
        vkm_jv row = vkm_json_root(doc), ids_want = {0};
        const char *text = NULL, *decoded = NULL, *plain = NULL;
        vkm_ids ids = {0};
        vkm_strbuf b = {0};
        assert_int_equal(vkm_json_get_array(row, "ids", VKM_JSON_REQ, &ids_want, &err), VKM_OK);
        assert_int_equal(vkm_json_get_str(row, "decoded", VKM_JSON_REQ, &decoded, &err), VKM_OK);
        assert_int_equal(vkm_json_get_str(row, "decoded_plain", VKM_JSON_REQ, &plain, &err),
                         VKM_OK);
        assert_int_equal(vkm_json_get_str(row, "text", VKM_JSON_OPT, &text, &err), VKM_OK);
        if (text) { /* rows without a text are only decoded */
            assert_int_equal(vkm_tokenizer_encode(t, text, strlen(text), &ids, &err), VKM_OK);
            assert_ids(ids_want, &ids, "cases.jsonl", vkm_jsonl_line(l));
        } else {
            ids.id = calloc(vkm_json_count(ids_want) + 1, sizeof *ids.id);
            for (vkm_jv e = vkm_json_first(ids_want); e.v; e = vkm_json_next(e)) {
                int64_t id = 0;
                assert_int_equal(vkm_json_i64(e, 0, UINT32_MAX, &id, &err), VKM_OK);
                ids.id[ids.n++] = (uint32_t)id;
            }
        }
        vkm_tokenizer_decode(t, ids.id, ids.n, false, &b);
        assert_string_equal(vkm_strbuf_str(&b), decoded);
        vkm_strbuf_clear(&b);
        vkm_tokenizer_decode(t, ids.id, ids.n, true, &b);
        assert_string_equal(vkm_strbuf_str(&b), plain);
        vkm_strbuf_free(&b);
        free(ids.id);
        n_cases++;
    }
    assert_int_equal(err.status, VKM_OK);
    assert_true(n_cases > 200);
    vkm_jsonl_free(l);
    vkm_tokenizer_free(t);
}

typedef struct fixture_counts {
    size_t rows, canonical, prompts, bytes;
} fixture_counts;

static void read_ids(vkm_jv list, vkm_ids *out) {
    vkm_err err = {0};
    out->n = 0;
    out->cap = vkm_json_count(list) + 1;
    out->id = realloc(out->id, out->cap * sizeof *out->id);
    for (vkm_jv e = vkm_json_first(list); e.v; e = vkm_json_next(e)) {
        int64_t id = 0;
        assert_int_equal(vkm_json_i64(e, 0, UINT32_MAX, &id, &err), VKM_OK);
        out->id[out->n++] = (uint32_t)id;
    }
}

/* A completion was sampled, so its ids need not be what its text encodes to; its prompt's are. */
static void check_fixture(const vkm_tokenizer *t, vkm_jv row, size_t line, vkm_strbuf *b,
                          fixture_counts *counts) {
    vkm_err err = {0};
    vkm_jv messages, want;
    vkm_ids ids = {0}, sampled = {0};
    const char *text = NULL, *prompt = NULL;
    assert_int_equal(vkm_json_get_str(row, "completion", VKM_JSON_REQ, &text, &err), VKM_OK);
    assert_int_equal(vkm_json_get_array(row, "completion_ids", VKM_JSON_REQ, &want, &err), VKM_OK);
    read_ids(want, &sampled);
    vkm_strbuf_clear(b);
    vkm_tokenizer_decode(t, sampled.id, sampled.n, true, b);
    assert_string_equal(vkm_strbuf_str(b), text);
    assert_int_equal(vkm_tokenizer_encode(t, text, strlen(text), &ids, &err), VKM_OK);
    counts->bytes += strlen(text);
    while (sampled.n && vkm_tokenizer_is_special(t, sampled.id[sampled.n - 1])) sampled.n--;
    counts->canonical += ids.n == sampled.n && !memcmp(ids.id, sampled.id, ids.n * sizeof *ids.id);
    vkm_strbuf_clear(b);
    vkm_tokenizer_decode(t, ids.id, ids.n, false, b);
    assert_string_equal(vkm_strbuf_str(b), text);
    free(sampled.id);
    assert_int_equal(vkm_json_get_array(row, "messages", VKM_JSON_OPT, &messages, &err), VKM_OK);
    if (messages.v) {
        vkm_chat_turn turns[4];
        size_t n_turns = 0;
        for (vkm_jv e = vkm_json_first(messages); e.v; e = vkm_json_next(e), n_turns++) {
            assert_true(n_turns < 4);
            assert_int_equal(vkm_json_get_str(e, "role", VKM_JSON_REQ, &turns[n_turns].role, &err),
                             VKM_OK);
            assert_int_equal(
                vkm_json_get_str(e, "content", VKM_JSON_REQ, &turns[n_turns].content, &err),
                VKM_OK);
        }
        assert_int_equal(vkm_json_get_str(row, "prompt", VKM_JSON_REQ, &prompt, &err), VKM_OK);
        vkm_strbuf_clear(b);
        assert_int_equal(vkm_chat_render(turns, n_turns, vkm_chat_style_of(t), true, b, &err),
                         VKM_OK);
        assert_string_equal(vkm_strbuf_str(b), prompt);
        ids.n = 0;
        assert_int_equal(vkm_tokenizer_encode(t, b->data, b->n, &ids, &err), VKM_OK);
        counts->bytes += b->n;
        counts->prompts++;
        assert_int_equal(vkm_json_get_array(row, "prompt_ids", VKM_JSON_REQ, &want, &err), VKM_OK);
        assert_ids(want, &ids, "prompt_ids", line);
    }
    free(ids.id);
}

static void equals_the_qwen3_fixtures(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_tokenizer *t;
    vkm_jsonl *l;
    if (!vkm_file_exists(QWEN3 "/tokenizer.json")) {
        print_message("SKIPPED: " QWEN3 " is not there: nothing was compared with Qwen3\n");
        skip();
    }
    double start = vkm_now_s();
    assert_int_equal(vkm_tokenizer_load(QWEN3, &t, &err), VKM_OK);
    double loaded = vkm_now_s();
    assert_int_equal(vkm_tokenizer_n_ids(t), 151669);
    assert_int_equal(vkm_jsonl_open(QWEN3 "/fixtures.jsonl.gz", NULL, &l, &err), VKM_OK);
    fixture_counts c = {0};
    vkm_strbuf b = {0};
    for (vkm_json *doc; vkm_jsonl_next(l, &doc, &err) == VKM_OK && doc;
         vkm_json_free(doc), c.rows++)
        check_fixture(t, vkm_json_root(doc), vkm_jsonl_line(l), &b, &c);
    assert_int_equal(err.status, VKM_OK);
    assert_int_equal(c.rows, 936);
    assert_int_equal(c.prompts, 117);
    assert_int_equal(c.canonical, 930); /* as the `tokenizers` library finds */
    print_message("loaded in %.0f ms; %zu rows, %.2f MB read and compared in %.0f ms\n",
                  1e3 * (loaded - start), c.rows, 1e-6 * (double)c.bytes,
                  1e3 * (vkm_now_s() - loaded));
    vkm_strbuf_free(&b);
    vkm_jsonl_free(l);
    vkm_tokenizer_free(t);
}

/* tests/golden/tokenizer/flags.jsonl: tokens that take spaces, or stand as words alone. */
static void added_tokens_have_flags(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_tokenizer *t = NULL;
    vkm_jsonl *l;
    char *text;
    size_t n, n_cases = 0;
    assert_int_equal(vkm_file_read(GOLDEN "/tokenizer.json", 1 << 20, &text, &n, &err), VKM_OK);
    assert_int_equal(vkm_jsonl_open(GOLDEN "/flags.jsonl", NULL, &l, &err), VKM_OK);
    for (vkm_json *doc; vkm_jsonl_next(l, &doc, &err) == VKM_OK && doc; vkm_json_free(doc)) {
        vkm_jv row = vkm_json_root(doc), added = vkm_json_find(row, "added"), want;
        if (added.v) {
            vkm_strbuf b = {0};
            char *at = strstr(text, "],\"normalizer\"");
            assert_non_null(at);
            vkm_strbuf_add(&b, text, (size_t)(at - text));
            for (vkm_jv e = vkm_json_first(added); e.v; e = vkm_json_next(e)) {
                static const char *const flags[] = {"special", "normalized", "single_word",
                                                    "lstrip", "rstrip"};
                int64_t id;
                const char *content;
                assert_int_equal(vkm_json_get_i64(e, "id", VKM_JSON_REQ, 0, 1000, &id, &err), 0);
                assert_int_equal(vkm_json_get_str(e, "content", VKM_JSON_REQ, &content, &err), 0);
                vkm_strbuf_puts(&b, ",");
                vkm_jw w = vkm_jw_begin(&b, 0);
                vkm_jw_obj(&w, NULL);
                vkm_jw_i64(&w, "id", id);
                vkm_jw_str(&w, "content", content);
                for (size_t i = 0; i < VKM_COUNTOF(flags); i++) {
                    bool on;
                    assert_int_equal(vkm_json_get_bool(e, flags[i], VKM_JSON_REQ, &on, &err), 0);
                    vkm_jw_bool(&w, flags[i], on);
                }
                vkm_jw_end_obj(&w);
            }
            vkm_strbuf_puts(&b, at);
            if (vkm_tokenizer_parse(b.data, b.n, "flags", &t, &err)) fail_msg("%s", err.msg);
            vkm_strbuf_free(&b);
            continue;
        }
        const char *s = NULL;
        vkm_ids ids = {0};
        assert_int_equal(vkm_json_get_str(row, "text", VKM_JSON_REQ, &s, &err), VKM_OK);
        assert_int_equal(vkm_json_get_array(row, "ids", VKM_JSON_REQ, &want, &err), VKM_OK);
        assert_int_equal(vkm_tokenizer_encode(t, s, strlen(s), &ids, &err), VKM_OK);
        assert_ids(want, &ids, "flags.jsonl", vkm_jsonl_line(l));
        free(ids.id);
        n_cases++;
    }
    assert_int_equal(n_cases, 300);
    vkm_jsonl_free(l);
    vkm_tokenizer_free(t);
    free(text);
}

/* Parts of any size make the text of the whole: characters, and bytes that are none. */
static void a_decoder_never_splits_a_character(void **state) {
    (void)state;
    static const char *const texts[] = {"h\xC3\xA9llo \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80!",
                                        "cut \xF0\x9F", "\xE4\xBD", "\xFF\xC3", "\xE4x\xBD\xA0"};
    vkm_err err = {0};
    vkm_tokenizer *t;
    assert_int_equal(vkm_tokenizer_load(GOLDEN, &t, &err), VKM_OK);
    uint32_t byte[256];
    for (uint32_t id = 0, n_ids = vkm_tokenizer_n_ids(t); id < n_ids; id++) {
        size_t n;
        const char *b = vkm_tokenizer_bytes(t, id, &n);
        if (n == 1) byte[(unsigned char)b[0]] = id;
    }
    for (size_t i = 0; i < VKM_COUNTOF(texts); i++)
        for (size_t step = 1; step <= 5; step++) {
            uint32_t ids[64];
            size_t n = strlen(texts[i]);
            vkm_strbuf whole = {0}, parts = {0};
            vkm_decoder d = {.t = t};
            for (size_t j = 0; j < n; j++) ids[j] = byte[(unsigned char)texts[i][j]];
            vkm_tokenizer_decode(t, ids, n, false, &whole);
            for (size_t j = 0; j < n; j += step) {
                size_t before = parts.n;
                vkm_decoder_add(&d, ids + j, n - j < step ? n - j : step, &parts);
                for (size_t at = before, len; at < parts.n; at += len) /* whole characters */
                    assert_true((len = vkm_utf8_len(parts.data + at, parts.n - at)) > 0);
            }
            vkm_decoder_end(&d, &parts);
            assert_string_equal(vkm_strbuf_str(&parts), vkm_strbuf_str(&whole));
            vkm_strbuf_free(&whole), vkm_strbuf_free(&parts);
        }
    vkm_tokenizer_free(t);
}

static void long_words_take_no_quadratic_time(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_tokenizer *t;
    assert_int_equal(vkm_tokenizer_load(GOLDEN, &t, &err), VKM_OK);
    size_t n = 1 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    static const char fill[] = "ae \n";
    for (size_t k = 0; k < 4; k++) {
        vkm_ids ids = {0};
        memset(text, fill[k], n);
        double start = vkm_now_s();
        assert_int_equal(vkm_tokenizer_encode(t, text, n, &ids, &err), VKM_OK);
        assert_true(vkm_now_s() - start < 20);
        vkm_strbuf b = {0};
        vkm_tokenizer_decode(t, ids.id, ids.n, false, &b);
        assert_int_equal(b.n, n);
        assert_memory_equal(b.data, text, n);
        vkm_strbuf_free(&b);
        free(ids.id);
    }
    vkm_ids ids = {0};
    assert_int_equal(vkm_tokenizer_encode(t, "ab\xff", 3, &ids, &err), VKM_FAILED);
    assert_has(err.msg, "byte 2 of the text to tokenize is not UTF-8");
    free(text);
    vkm_tokenizer_free(t);
}

/* The golden tokenizer with one piece of its text replaced. */
static void refuses_other_tokenizers(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"type\":\"NFC\"", "\"type\":\"NFKC\"",
         "normalizer: normalizer \"NFKC\" is not supported; supported: NFC"},
        {"\"type\":\"Split\"", "\"type\":\"Digits\"", "pre-tokenizer \"Digits\" is not supported"},
        {"\"behavior\":\"Isolated\"", "\"behavior\":\"Removed\"", "only \"Isolated\""},
        {"\"invert\":false", "\"invert\":true", "invert: only false"},
        {"\"Regex\":\"", "\"Regex\":\"(",
         "the pattern does not compile: missing closing parenthesis"},
        {"\"Regex\"", "\"String\"", "the key \"Regex\" is missing"},
        {"\"type\":\"BPE\"", "\"type\":\"Unigram\"", "model.type: \"Unigram\" is not supported"},
        {"\"dropout\":null", "\"dropout\":0.1", "model.dropout: is not supported"},
        {"\"byte_fallback\":false", "\"byte_fallback\":true", "only false"},
        {"\"content\":\"<|im_end|>\"", "\"content\":\"<|end|>\"",
         NULL}, /* but it has no chat style */
        {"\"content\":\"<|im_start|>\"", "\"content\":\"<|im_end|>\"", "already"},
        {"\"lstrip\":false", "\"lstrip\":1", "lstrip: must be true or false"},
        {"\"!\":0", "\"!!!\":0", "lacks byte 0x21"},
        {"\"!\":0", "\"!\":1", "id 1 belongs to"},
        {"\"!\":0", "\"!\":-1", "must be from 0"},
        {"\"!\":0", "\"!\":99999999", "must be from 0"},
        {"\"!\":0", "\"\":0", "a token must have 1 to"},
        {"\"merges\":[", "\"merges\":[\"ab\",", "must be two tokens with one space"},
        {"\"merges\":[", "\"merges\":[[\"a\"],", "must be two tokens"},
        {"\"merges\":[", "\"merges\":[\"zq zq\",", "'zq zq' is not in the vocabulary"},
        {"\"merges\":", "\"mergers\":", "the key \"merges\" is missing"},
        {"\"added_tokens\":", "\"added\":", "the key \"added_tokens\" is missing"},
        {"\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"WordPiece\"",
         "decoder: decoder \"WordPiece\" is not supported"},
        {"\"version\":\"1.0\"", "\"version\":\"2.0\"", NULL},
    };
    vkm_err err = {0};
    char *text;
    size_t n;
    assert_int_equal(vkm_file_read(GOLDEN "/tokenizer.json", 1 << 20, &text, &n, &err), VKM_OK);
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_tokenizer *t;
        vkm_strbuf b = {0};
        const char *at = strstr(text, cases[i].from);
        if (!at) fail_msg("the golden file has no %s", cases[i].from);
        vkm_strbuf_add(&b, text, (size_t)(at - text));
        vkm_strbuf_puts(&b, cases[i].to);
        vkm_strbuf_puts(&b, at + strlen(cases[i].from));
        err = (vkm_err){0};
        vkm_status st = vkm_tokenizer_load(put_file("tokenizer.json", b.data, b.n), &t, &err);
        if (cases[i].message) {
            if (st != VKM_FAILED) fail_msg("%s was taken", cases[i].to);
            assert_has(err.msg, cases[i].message);
        } else {
            assert_int_equal(st, VKM_OK);
        }
        vkm_tokenizer_free(t);
        vkm_strbuf_free(&b);
    }
    vkm_tokenizer *t;
    for (size_t cut = 0; cut < n; cut += 1 + n / 97) {
        err = (vkm_err){0};
        assert_int_equal(vkm_tokenizer_load(put_file("tokenizer.json", text, cut), &t, &err),
                         VKM_FAILED);
    }
    free(text);
}

/* tests/golden/chat.json: each template as a folder's, and what transformers renders by it. */
static void chat_equals_transformers(void **state) {
    (void)state;
    static const struct {
        const char *name;
        vkm_chat_style style;
    } styles[] = {{"plain", VKM_CHAT_PLAIN},
                  {"qwen2", VKM_CHAT_QWEN2},
                  {"qwen2.5", VKM_CHAT_QWEN2_5},
                  {"qwen3", VKM_CHAT_NO_THINK}};
    vkm_err err = {0};
    vkm_json *golden;
    size_t n = 0, cases = 0;
    char *text;
    assert_int_equal(vkm_json_load(VKM_SOURCE_DIR "/tests/golden/chat.json", NULL, &golden, &err),
                     VKM_OK);
    assert_int_equal(vkm_file_read(GOLDEN "/tokenizer.json", 1 << 20, &text, &n, &err), VKM_OK);
    put_file("tokenizer.json", text, n);
    free(text);
    for (size_t i = 0; i < VKM_COUNTOF(styles); i++) {
        const char *template;
        vkm_tokenizer *t;
        vkm_jv all = vkm_json_find(vkm_json_root(golden), "templates");
        assert_int_equal(vkm_json_get_str(all, styles[i].name, VKM_JSON_REQ, &template, &err),
                         VKM_OK);
        /* by a file of its own, and (escaped once more) by tokenizer_config.json */
        vkm_strbuf escaped = {0}, config = {0};
        for (const char *p = template; *p; p++)
            if (*p == '\n')
                vkm_strbuf_puts(&escaped, "\\n");
            else
                vkm_strbuf_putc(&escaped, *p);
        put_file("chat_template.jinja", escaped.data, escaped.n);
        assert_int_equal(vkm_tokenizer_load(tmpdir, &t, &err), VKM_OK);
        assert_int_equal(vkm_chat_style_of(t), styles[i].style);
        vkm_tokenizer_free(t);
        assert_int_equal(remove(in_dir("chat_template.jinja")), 0);
        vkm_jw w = vkm_jw_begin(&config, 0);
        vkm_jw_obj(&w, NULL);
        vkm_jw_str(&w, "chat_template", escaped.data);
        vkm_jw_end_obj(&w);
        put_file("tokenizer_config.json", config.data, config.n);
        assert_int_equal(vkm_tokenizer_load(tmpdir, &t, &err), VKM_OK);
        assert_int_equal(vkm_chat_style_of(t), styles[i].style);
        vkm_tokenizer_free(t);
        vkm_strbuf_free(&escaped), vkm_strbuf_free(&config);
        vkm_jv list = vkm_json_find(vkm_json_root(golden), "cases");
        for (vkm_jv c = vkm_json_first(list); c.v; c = vkm_json_next(c)) {
            const char *style, *want;
            vkm_chat_turn turns[8];
            size_t n_turns = 0;
            vkm_strbuf b = {0};
            assert_int_equal(vkm_json_get_str(c, "style", VKM_JSON_REQ, &style, &err), VKM_OK);
            if (strcmp(style, styles[i].name) != 0) continue;
            assert_int_equal(vkm_json_get_str(c, "text", VKM_JSON_REQ, &want, &err), VKM_OK);
            assert_int_equal(
                vkm_chat_read_turns(vkm_json_find(c, "messages"), turns, &n_turns, &err), VKM_OK);
            assert_int_equal(vkm_chat_render(turns, n_turns, styles[i].style, true, &b, &err),
                             VKM_OK);
            assert_string_equal(b.data, want);
            vkm_strbuf_free(&b);
            cases++;
        }
    }
    assert_int_equal(cases, 40);
    vkm_json_free(golden);
}

/* A template of another kind, or none with tokens of another kind: only messages are refused. */
static void other_chats_are_unknown(void **state) {
    (void)state;
    static const char llama[] = "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>' }}",
                      thinks[] = "{{ '<|im_start|>assistant\\n<think>\\n' }}";
    static const char *const templates[] = {llama, thinks};
    static const vkm_chat_turn hello = {"user", "hello"};
    vkm_tokenizer *t;
    vkm_err err = {0};
    for (size_t i = 0; i < VKM_COUNTOF(templates); i++) {
        vkm_strbuf b = {0};
        put_file("chat_template.jinja", templates[i], strlen(templates[i]));
        assert_int_equal(vkm_tokenizer_load(tmpdir, &t, &err), VKM_OK);
        assert_int_equal(vkm_chat_style_of(t), VKM_CHAT_UNKNOWN);
        assert_int_equal(vkm_chat_render(&hello, 1, vkm_chat_style_of(t), true, &b, &err),
                         VKM_FAILED);
        assert_has(err.msg, "known: ChatML, Qwen2's, Qwen2.5's and Qwen3's");
        err = (vkm_err){0};
        vkm_tokenizer_free(t);
        vkm_strbuf_free(&b);
    }
    assert_int_equal(remove(in_dir("chat_template.jinja")), 0);
}

static void chat_follows_the_template(void **state) {
    (void)state;
    static const vkm_chat_turn turns[] = {{"user", "a"},
                                          {"assistant", "<think>\nhm\n</think>\n\nb"},
                                          {"user", "c"},
                                          {"assistant", "d"}};
    static const struct {
        size_t n;
        vkm_chat_style style;
        bool prompt;
        const char *text;
    } cases[] = {
        {1, VKM_CHAT_PLAIN, true, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"},
        {1, VKM_CHAT_NO_THINK, true,
         "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"},
        {1, VKM_CHAT_THINK, true, "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"},
        {2, VKM_CHAT_THINK, false,
         "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\nhm\n</"
         "think>\n\nb<|im_end|>\n"},
        {4, VKM_CHAT_NO_THINK, false,
         "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
         "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n<think>\n\n</"
         "think>\n\nd<|im_end|>\n"},
        {0, VKM_CHAT_PLAIN, false, ""},
    };
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        vkm_strbuf b = {0};
        vkm_err err = {0};
        assert_int_equal(
            vkm_chat_render(turns, cases[i].n, cases[i].style, cases[i].prompt, &b, &err), VKM_OK);
        assert_string_equal(vkm_strbuf_str(&b), cases[i].text);
        vkm_strbuf_free(&b);
    }
    static const vkm_chat_turn bad[] = {{"tool", "x"}}, late[] = {{"user", "x"}, {"system", "y"}};
    vkm_strbuf b = {0};
    vkm_err err = {0};
    assert_int_equal(vkm_chat_render(bad, 1, VKM_CHAT_PLAIN, false, &b, &err), VKM_FAILED);
    assert_has(err.msg, "turn 0 has the role 'tool'; the roles are system, user, assistant");
    err = (vkm_err){0};
    vkm_strbuf_clear(&b);
    assert_int_equal(vkm_chat_render(late, 2, VKM_CHAT_PLAIN, false, &b, &err), VKM_OK);
    assert_string_equal(vkm_strbuf_str(&b),
                        "<|im_start|>user\nx<|im_end|>\n<|im_start|>system\ny<|im_end|>\n");
    vkm_strbuf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_golden_file),
        cmocka_unit_test(equals_the_qwen3_fixtures),
        cmocka_unit_test(added_tokens_have_flags),
        cmocka_unit_test(a_decoder_never_splits_a_character),
        cmocka_unit_test(long_words_take_no_quadratic_time),
        cmocka_unit_test(refuses_other_tokenizers),
        cmocka_unit_test(chat_equals_transformers),
        cmocka_unit_test(other_chats_are_unknown),
        cmocka_unit_test(chat_follows_the_template),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
