/* Malformed model folders: each file with one thing wrong, and the one line that says what, where
 * and how to mend it. The exit code is 1: the folder is at fault, not the command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/strbuf.h"
#include "model/init_model.h"
#include "tmpdir.h"
#include "program.h"

static int make_models(void **state) {
    static const char line[] = "{\"prompt_ids\": [1, 2], \"completion_ids\": [3]}\n";
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("whole"), .seed = 3};
    put_file("rows.jsonl", line, sizeof line - 1);
    return vkm_init_model(&o, NULL, &err) ||
           vkmoe("export --model '%s' --to model --max_shard_mb 0.1 --output '%s'", in_dir("whole"),
                 in_dir("shards"));
}

/* Replaces `from` in a file of the folder "bad"; a safetensors header gets its new length. NULL
 * `from`: the whole file; NULL `to`: no file. */
static void edit(const char *file, const char *from, const char *to) {
    char name[256], *text;
    size_t n;
    vkm_err err = {0};
    vkm_strbuf b = {0};
    snprintf(name, sizeof name, "bad/%s", file);
    if (!to) {
        assert_int_equal(remove(in_dir(name)), 0);
        return;
    }
    if (!from) {
        put_file(name, to, strlen(to));
        return;
    }
    assert_int_equal(vkm_file_read(in_dir(name), 1 << 24, &text, &n, &err), VKM_OK);
    size_t head = strstr(file, ".safetensors") && !strstr(file, ".json") ? 8 : 0;
    char *at = memmem(text + head, n - head, from, strlen(from));
    if (!at) fail_msg("%s has no %s", file, from);
    vkm_strbuf_add(&b, text, (size_t)(at - text));
    vkm_strbuf_puts(&b, to);
    vkm_strbuf_add(&b, at + strlen(from), n - (size_t)(at - text) - strlen(from));
    if (head) {
        uint64_t length;
        memcpy(&length, b.data, 8);
        length = length + strlen(to) - strlen(from);
        memcpy(b.data, &length, 8);
    }
    put_file(name, b.data, b.n);
    vkm_strbuf_free(&b);
    free(text);
}

typedef struct folder {
    const char *of, *file, *from, *to; /* of: the folder that is copied */
    const char *part;                  /* of the error */
} folder;

#define C "config.json"
#define G "generation_config.json"
#define T "tokenizer.json"
#define S "model.safetensors"
#define I "model.safetensors.index.json"
#define P "tokenizer_config.json"
#define NORM                                                                                       \
    "\"model.layers.0.input_layernorm.weight\":"                                                   \
    " {\"dtype\": \"BF16\", \"shape\": [64]"

/* one row a folder */
// clang-format off
static const folder folders[] = {
    {"whole", C, NULL, NULL, "config.json: cannot open"},
    {"whole", C, NULL, "", "config.json:1:1: the text ends where a value is expected"},
    {"whole", C, NULL, "[]", "an object"},
    {"whole", C, "{", "{\"hidden_size\": 64, ", "hidden_size: this key occurs twice"},
    {"whole", C, "\"hidden_size\": 64", "\"hidden_size\": 64.5", "hidden_size: must be an integer"},
    {"whole", C, "\"hidden_size\": 64", "\"hidden_size\": 99999999999999999999", "hidden_size: "},
    {"whole", C, "\"model_type\": \"qwen3\"", "\"model_type\": \"gpt2\"", "supported: qwen3, qwen2, llama, mistral"},
    {"whole", C, "\"model_type\": \"qwen3\"", "\"model_type\": \"qwen2\"", "self_attn.q_proj.bias"},
    {"whole", C, "\"num_attention_heads\": 4", "\"num_attention_heads\": 3", "must be a multiple of num_key_value_heads"},
    {"whole", C, "\"head_dim\": 16", "\"head_dim\": 18", "head_dim must be a multiple of 4"},
    {"whole", C, "\"head_dim\": 16", "\"head_dim\": 32", "is needed; does it belong to this config?"},
    {"whole", C, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "'model.layers.2."},
    {"whole", C, "\"vocab_size\": 512", "\"vocab_size\": 256", "eos_token_id[0]: must be from 0 to 255"},
    {"whole", C, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "'lm_head.weight' is not among"},
    {"whole", C, "\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", "hidden_act: only \"silu\""},
    {"whole", C, "\"attention_bias\": false", "\"attention_bias\": true", "attention_bias: only false"},
    {"whole", C, "\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0", "rms_norm_eps: must be from"},
    {"whole", C, "\"rope_theta\": 10000.0", "\"rope_theta\": NaN", "config.json:"},
    {"whole", C, "\"rope_theta\": 10000.0", "\"rope_scaling\": {\"type\": \"yarn\"}", "rope type \"yarn\" is not supported"},
    {"whole", C, "\"torch_dtype\"", "\"quantization_config\": {\"bits\": 4}, \"torch_dtype\"", "quantized weights are not supported"},
    {"whole", G, NULL, "{\"eos_token_id\": 512}", "generation_config.json:1:18: eos_token_id: must be from 0 to 511"},
    {"whole", G, NULL, "{\"temperature\": \"hot\"}", "temperature: must be a number"},
    {"whole", T, NULL, NULL, "tokenizer.json: cannot open"},
    {"whole", T, NULL, "{}", "\"model\" is missing"},
    {"whole", T, "\"type\": \"BPE\"", "\"type\": \"WordPiece\"", "model.type: \"WordPiece\" is not supported"},
    {"whole", T, "\"type\": \"NFC\"", "\"type\": \"Lowercase\"", "normalizer \"Lowercase\" is not supported"},
    {"whole", T, "\"added_tokens\": [", "\"added_tokens\": [{\"id\": 3, \"content\": \"<|im_end|>\"},", "added_tokens"},
    {"whole", T, "\"Regex\": \"", "\"Regex\": \"(", "pattern"},
    {"whole", T, "\"merges\": [", "\"merges\": [\"qq zz\",", "is not in the vocabulary"},
    {"whole", P, NULL, "{\"chat_template\": 5}", "chat_template: must be a string"},
    {"whole", P, NULL, "{", "tokenizer_config.json:1:"},
    {"whole", S, NULL, NULL, "has neither model.safetensors nor model.safetensors.index.json"},
    {"whole", S, NULL, "", "model.safetensors: "},
    {"whole", S, NULL, "\xff\xff\xff\xff\xff\xff\xff\x7f{}", "model.safetensors: "},
    {"whole", S, NULL, "\x02\x01\x01\x01\x01\x01\x01\x01{}", "model.safetensors: "},
    {"whole", S, "\"dtype\"", "\"dtipe\"", "model.safetensors"},
    {"whole", S, "\"BF16\"", "\"BF61\"", "unknown dtype \"BF61\""},
    {"whole", S, NORM, "\"model.layers.0.input_layernorm.weight\": {\"dtype\": \"BF16\", \"shape\": [65]", "model.layers.0.input_layernorm.weight"},
    {"whole", S, NORM, "\"model.layers.0.input_layernorm.weight\": {\"dtype\": \"BF16\", \"shape\": [-64]", "model.layers.0.input_layernorm.weight"},
    {"whole", S, NORM, "\"model.layers.0.input_layernorm.weight\": {\"dtype\": \"BF16\", \"shape\": [4294967296, 4294967296]", "model.layers.0.input_layernorm.weight"},
    {"whole", S, "\"model.norm.weight\"", "\"model.layers.0.input_layernorm.weight\"", "occurs twice"},
    {"whole", S, "\"model.norm.weight\"", "\"model.nrom.weight\"", "did you mean 'model.nrom.weight'"},
    {"whole", S, "\"data_offsets\": [0", "\"data_offsets\": [2", "model.safetensors"},
    {"shards", I, NULL, NULL, "has neither model.safetensors nor model.safetensors.index.json"},
    {"shards", I, NULL, "{}", "weight_map"},
    {"shards", I, "\"weight_map\"", "\"wait_map\"", "weight_map"},
    {"shards", I, "model-00002-of-00003.safetensors", "model-00009-of-00003.safetensors", "model-00009-of-00003.safetensors"},
    {"shards", I, "model-00002-of-00003.safetensors", "../whole/model.safetensors", "index.json"},
    {"shards", I, "model-00002-of-00003.safetensors", "model-00001-of-00003.safetensors", "the tensor is not in that file; fetch the folder again"},
    {"shards", I, "\"model.norm.weight\"", "\"model.nrom.weight\"", "nrom"},
    {"shards", "model-00002-of-00003.safetensors", NULL, NULL, "model-00002-of-00003.safetensors"},
    {"shards", "model-00002-of-00003.safetensors", NULL, "x", "model-00002-of-00003.safetensors"},
    {"shards", "model-00003-of-00003.safetensors", "\"model.norm.weight\"", "\"model.norm.weihgt\"", "model.norm.weight"},
};
// clang-format on

static void each_folder_is_refused(void **state) {
    (void)state;
    char command[2048];
    size_t wrong = 0;
    for (size_t i = 0; i < VKM_COUNTOF(folders); i++) {
        const folder *f = &folders[i];
        snprintf(command, sizeof command, "rm -rf '%s' && cp -r '%s' '%s'", in_dir("bad"),
                 in_dir(f->of), in_dir("bad"));
        assert_int_equal(system(command), 0); // NOLINT: the arguments are this file's
        edit(f->file, f->from, f->to);
        int rc = vkmoe("score --backend cpu --quiet --model '%s' --data '%s'", in_dir("bad"),
                       in_dir("rows.jsonl"));
        char *said = stderr_text();
        size_t n = strlen(said);
        int one_line = n && strchr(said, '\n') == said + n - 1 && !out[0] &&
                       !strncmp(said, "vkmoe score: ", 13);
        if (rc != 1 || !one_line || !strstr(said, f->part)) {
            print_message("%s, %s: exit %d, wanted \"%s\":\n%s\n", f->file, f->to ? f->to : "none",
                          rc, f->part, said);
            wrong++;
        }
        free(said);
    }
    assert_int_equal(wrong, 0);
}

static void the_folders_they_are_made_of_are_taken(void **state) {
    (void)state;
    static const char *const whole[] = {"whole", "shards"};
    for (size_t i = 0; i < VKM_COUNTOF(whole); i++)
        works(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir(whole[i]),
                    in_dir("rows.jsonl")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_folders_they_are_made_of_are_taken),
        cmocka_unit_test(each_folder_is_refused),
    };
    return cmocka_run_group_tests(tests, make_models, tmpdir_remove);
}
