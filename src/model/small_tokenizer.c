/* Owns the tokenizer that init-model writes when none is given: 256 bytes, the merges of
 * bpe_merges.def and three special tokens, in Qwen3's form and with its pattern. */
#include "base/file.h"
#include "base/json.h"
#include "model/chat.h"
#include "model/init_model.h"
#include "model/tokenizer_impl.h"

#include <string.h>

static const struct {
    const char *left, *right;
} merges[] = {
#define MERGE(left, right) {left, right},
#include "model/bpe_merges.def"
#undef MERGE
};

static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};

/* Qwen3's split pattern, as its tokenizer.json has it. */
static const char pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                              "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                              "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Bytes in the ByteLevel alphabet. */
static void add_name(vkm_strbuf *b, const char *bytes) {
    for (; *bytes; bytes++) {
        uint32_t c = vkm_tok_byte_char((unsigned char)*bytes);
        if (c >= 0x80) vkm_strbuf_putc(b, (char)(0xC0 | c >> 6));
        vkm_strbuf_putc(b, (char)(c >= 0x80 ? 0x80 | (c & 0x3F) : c));
    }
}

static void write_byte_level(vkm_jw *w, const char *key) {
    vkm_jw_obj(w, key);
    vkm_jw_str(w, "type", "ByteLevel");
    vkm_jw_bool(w, "add_prefix_space", false);
    vkm_jw_bool(w, "trim_offsets", false);
    vkm_jw_bool(w, "use_regex", false);
    vkm_jw_end_obj(w);
}

static void write_added_tokens(vkm_jw *w) {
    vkm_jw_arr(w, "added_tokens");
    for (size_t i = 0; i < VKM_COUNTOF(specials); i++) {
        vkm_jw_obj(w, NULL);
        vkm_jw_i64(w, "id", (int64_t)(256 + VKM_COUNTOF(merges) + i));
        vkm_jw_str(w, "content", specials[i]);
        vkm_jw_bool(w, "single_word", false);
        vkm_jw_bool(w, "lstrip", false);
        vkm_jw_bool(w, "rstrip", false);
        vkm_jw_bool(w, "normalized", false);
        vkm_jw_bool(w, "special", true);
        vkm_jw_end_obj(w);
    }
    vkm_jw_end_arr(w);
}

static void write_splits(vkm_jw *w) {
    vkm_jw_obj(w, "pre_tokenizer");
    vkm_jw_str(w, "type", "Sequence");
    vkm_jw_arr(w, "pretokenizers");
    vkm_jw_obj(w, NULL);
    vkm_jw_str(w, "type", "Split");
    vkm_jw_obj(w, "pattern");
    vkm_jw_str(w, "Regex", pattern);
    vkm_jw_end_obj(w);
    vkm_jw_str(w, "behavior", "Isolated");
    vkm_jw_bool(w, "invert", false);
    vkm_jw_end_obj(w);
    write_byte_level(w, NULL);
    vkm_jw_end_arr(w);
    vkm_jw_end_obj(w);
}

static void write_model(vkm_jw *w) {
    vkm_strbuf name = {0};
    vkm_jw_obj(w, "model");
    vkm_jw_str(w, "type", "BPE");
    vkm_jw_null(w, "dropout");
    vkm_jw_null(w, "unk_token");
    vkm_jw_str(w, "continuing_subword_prefix", "");
    vkm_jw_str(w, "end_of_word_suffix", "");
    vkm_jw_bool(w, "fuse_unk", false);
    vkm_jw_bool(w, "byte_fallback", false);
    vkm_jw_obj(w, "vocab");
    for (unsigned b = 0; b < 256; b++) {
        uint32_t c = vkm_tok_byte_char(b);
        char text[3] = {(char)(c < 0x80 ? c : 0xC0 | c >> 6),
                        (char)(c < 0x80 ? 0 : 0x80 | (c & 0x3F))};
        vkm_jw_i64(w, text, b);
    }
    for (size_t i = 0; i < VKM_COUNTOF(merges); i++) {
        vkm_strbuf_clear(&name);
        add_name(&name, merges[i].left);
        add_name(&name, merges[i].right);
        vkm_jw_i64(w, vkm_strbuf_str(&name), (int64_t)(256 + i));
    }
    vkm_jw_end_obj(w);
    vkm_jw_arr(w, "merges");
    for (size_t i = 0; i < VKM_COUNTOF(merges); i++) {
        vkm_strbuf_clear(&name);
        add_name(&name, merges[i].left);
        vkm_strbuf_putc(&name, ' ');
        add_name(&name, merges[i].right);
        vkm_jw_str(w, NULL, vkm_strbuf_str(&name));
    }
    vkm_jw_end_arr(w);
    vkm_jw_end_obj(w);
    w->out->failed |= name.failed;
    vkm_strbuf_free(&name);
}

static vkm_status save(vkm_strbuf *b, const char *folder, const char *name, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf_putc(b, '\n');
    vkm_status st = vkm_strbuf_check(b, name, err);
    if (!st) st = vkm_path_join(path, folder, name, err);
    if (!st) st = vkm_file_save(path, b->data, b->n, err);
    vkm_strbuf_clear(b);
    return st;
}

vkm_status vkm_small_tokenizer_save(const char *folder, vkm_err *err) {
    vkm_strbuf b = {0};
    vkm_jw w = vkm_jw_begin(&b, 1);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "version", "1.0");
    vkm_jw_null(&w, "truncation");
    vkm_jw_null(&w, "padding");
    write_added_tokens(&w);
    vkm_jw_obj(&w, "normalizer");
    vkm_jw_str(&w, "type", "NFC");
    vkm_jw_end_obj(&w);
    write_splits(&w);
    write_byte_level(&w, "post_processor");
    write_byte_level(&w, "decoder");
    write_model(&w);
    vkm_jw_end_obj(&w);
    vkm_status st = save(&b, folder, "tokenizer.json", err);
    w = vkm_jw_begin(&b, 2);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "tokenizer_class", "PreTrainedTokenizerFast");
    vkm_jw_str(&w, "eos_token", specials[2]);
    vkm_jw_str(&w, "pad_token", specials[0]);
    vkm_jw_bool(&w, "clean_up_tokenization_spaces", false);
    vkm_jw_bool(&w, "add_prefix_space", false);
    vkm_jw_str(&w, "chat_template", vkm_chat_plain_template);
    vkm_jw_end_obj(&w);
    if (!st) st = save(&b, folder, "tokenizer_config.json", err);
    vkm_strbuf_free(&b);
    return st;
}
