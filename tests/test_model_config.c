/* config.json and generation_config.json: what is read, and what is refused with which words. */
#include "base/strbuf.h"
#include "model/hf_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tmpdir.h"

#define BASE                                                                                       \
    "\"architectures\": [\"Qwen3ForCausalLM\"], \"model_type\": \"qwen3\", \"hidden_size\": 64,\n" \
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2,\n"          \
    "\"head_dim\": 32, \"intermediate_size\": 128, \"vocab_size\": 512, \"rms_norm_eps\": "        \
    "1e-06,\n"                                                                                     \
    "\"max_position_embeddings\": 1024, \"tie_word_embeddings\": true"

static vkm_status load(const char *config, const char *generation, vkm_model_config *c,
                       vkm_err *err) {
    *err = (vkm_err){0};
    put_file("config.json", config, strlen(config));
    if (generation)
        put_file("generation_config.json", generation, strlen(generation));
    else
        remove(in_dir("generation_config.json"));
    return vkm_model_config_load(tmpdir, c, err);
}

static void reads_configs(void **state) {
    (void)state;
    vkm_model_config c;
    vkm_err err;
    assert_int_equal(load("{" BASE ", \"rope_theta\": 1000000, \"eos_token_id\": 5, "
                          "\"rope_scaling\": null, \"future_key\": [1]}",
                          NULL, &c, &err),
                     VKM_OK);
    assert_true(c.C == 64 && c.L == 2 && c.H == 4 && c.K == 2 && c.D == 32 && c.F == 128);
    assert_true(c.V == 512 && c.max_pos == 1024 && c.norm_eps == 1e-6 && c.rope.theta == 1e6);
    assert_true(c.tied && c.qk_norm && c.n_eos == 1 && c.eos[0] == 5 && c.bos == -1 && c.pad == -1);
    assert_true(c.temperature == 1 && c.top_p == 1 && c.top_k == 50);
    /* 64*512 + 64 + 2*(2*64*128 + 2*64*64 + 3*64*128 + 2*64 + 2*32) */
    assert_int_equal(vkm_model_config_n_params(&c), 131520);
    assert_int_equal(
        load("{" BASE ", \"rope_parameters\": {\"rope_theta\": 10000.0, \"rope_type\": "
             "\"default\"}, \"layer_types\": [\"full_attention\", \"full_attention\"]}",
             "{\"eos_token_id\": [7, 9], \"pad_token_id\": 9, \"temperature\": 0.6, "
             "\"top_k\": 20, \"top_p\": 0.95}",
             &c, &err),
        VKM_OK);
    assert_true(c.rope.theta == 10000 && c.n_eos == 2 && c.eos[1] == 9 && c.pad == 9);
    assert_true(c.temperature == 0.6 && c.top_p == 0.95 && c.top_k == 20);
}

#define OTHER(type, more)                                                                          \
    "{\"model_type\": \"" type "\", \"hidden_size\": 64, \"num_hidden_layers\": 2, "               \
    "\"num_attention_heads\": 4, \"intermediate_size\": 128, \"vocab_size\": 512, "                \
    "\"max_position_embeddings\": 1024, \"rms_norm_eps\": 1e-6, \"rope_theta\": 1e4" more "}"

static void reads_other_architectures(void **state) {
    (void)state;
    vkm_model_config c;
    vkm_err err;
    assert_int_equal(load(OTHER("qwen2", ", \"num_key_value_heads\": 2"), NULL, &c, &err), VKM_OK);
    assert_true(c.arch == VKM_ARCH_QWEN2 && c.qkv_bias && !c.qk_norm && !c.tied);
    assert_true(c.D == 16 && c.K == 2 && c.max_pos == 1024 && c.rope.factor == 0);
    assert_int_equal(
        load(OTHER("llama", ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32, "
                            "\"low_freq_factor\": 1, \"high_freq_factor\": 4, "
                            "\"original_max_position_embeddings\": 128}, \"head_dim\": 8"),
             NULL, &c, &err),
        VKM_OK);
    assert_true(c.arch == VKM_ARCH_LLAMA && !c.qkv_bias && !c.qk_norm && c.D == 8 && c.K == 4);
    assert_true(c.rope.factor == 32 && c.rope.low_freq_factor == 1 &&
                c.rope.high_freq_factor == 4 && c.rope.original_max_pos == 128);
    /* positions past the window would see less */
    assert_int_equal(load(OTHER("mistral", ", \"sliding_window\": 256"), NULL, &c, &err), VKM_OK);
    assert_true(c.arch == VKM_ARCH_MISTRAL && c.max_pos == 256);
    assert_int_equal(load(OTHER("mistral", ", \"sliding_window\": null"), NULL, &c, &err), VKM_OK);
    assert_int_equal(c.max_pos, 1024);
    assert_int_equal(load(OTHER("qwen3", ""), NULL, &c, &err), VKM_FAILED);
    assert_has(err.msg, "\"num_key_value_heads\" is missing");
    /* what is saved is loaded again */
    vkm_model_config again;
    assert_int_equal(
        load(OTHER("llama", ", \"rope_parameters\": {\"rope_type\": \"llama3\", \"factor\": 8, "
                            "\"low_freq_factor\": 1, \"high_freq_factor\": 4, "
                            "\"original_max_position_embeddings\": 128}"),
             NULL, &c, &err),
        VKM_OK);
    assert_int_equal(vkm_model_config_save(&c, tmpdir, &err), VKM_OK);
    assert_int_equal(vkm_model_config_load(tmpdir, &again, &err), VKM_OK);
    assert_true(again.arch == c.arch && !memcmp(&again.rope, &c.rope, sizeof c.rope));
}

static void saves_what_it_loads(void **state) {
    (void)state;
    vkm_model_config a, b;
    vkm_err err;
    assert_int_equal(load("{" BASE ", \"rope_theta\": 12345.5}",
                          "{\"eos_token_id\": [7, 9], \"bos_token_id\": 0, \"pad_token_id\": 9, "
                          "\"temperature\": 0.6}",
                          &a, &err),
                     VKM_OK);
    assert_int_equal(vkm_model_config_save(&a, tmpdir, &err), VKM_OK);
    assert_int_equal(vkm_model_config_load(tmpdir, &b, &err), VKM_OK);
    assert_true(a.rope.theta == b.rope.theta && a.norm_eps == b.norm_eps && a.n_eos == b.n_eos);
    assert_true(a.eos[0] == b.eos[0] && a.eos[1] == b.eos[1] && a.pad == b.pad && a.bos == b.bos);
    assert_true(a.temperature == b.temperature && a.top_k == b.top_k && a.tied == b.tied);
    assert_true(a.C == b.C && a.H == b.H && a.K == b.K && a.D == b.D && a.F == b.F && a.V == b.V);
}

static void refuses_configs(void **state) {
    (void)state;
    static const struct {
        const char *config, *generation, *message;
    } cases[] = {
        {"{}", NULL, "\"model_type\" is missing"},
        {"{\"model_type\": \"gemma\"}", NULL,
         "model_type: \"gemma\" is not supported; supported: qwen3, qwen2, llama, mistral"},
        {"{" BASE
         ", \"rope_theta\": 1e4, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}}",
         NULL, "rope_scaling: the key \"low_freq_factor\" is missing"},
        {"{" BASE
         ", \"rope_theta\": 1e4, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
         "\"low_freq_factor\": 4, \"high_freq_factor\": 4, "
         "\"original_max_position_embeddings\": 64}}",
         NULL, "high_freq_factor must be larger"},
        {"{" BASE "}", NULL, "\"rope_theta\" is missing"},
        {"{" BASE ", \"rope_theta\": 0}", NULL, "rope_theta: must be from 1"},
        {"{" BASE ", \"rope_theta\": 1e4, \"rope_parameters\": {\"rope_theta\": 1e6}}", NULL,
         "make them agree"},
        {"{" BASE ", \"rope_theta\": 1e4, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}}",
         NULL, "rope_scaling: rope type \"yarn\" is not supported"},
        {"{" BASE ", \"rope_theta\": 1e4, \"attention_bias\": true}", NULL,
         "attention_bias: only false"},
        {"{" BASE ", \"rope_theta\": 1e4, \"use_sliding_window\": true}", NULL, "only false"},
        {"{" BASE ", \"rope_theta\": 1e4, \"hidden_act\": \"gelu\"}", NULL, "only \"silu\""},
        {"{" BASE ", \"rope_theta\": 1e4, \"attention_dropout\": 0.5}", NULL, "only 0"},
        {"{" BASE ", \"rope_theta\": 1e4, \"quantization_config\": {}}", NULL, "quantized weights"},
        {"{" BASE
         ", \"rope_theta\": 1e4, \"layer_types\": [\"full_attention\", \"sliding_attention\"]}",
         NULL, "layer_types[1]: only \"full_attention\""},
        {"{" BASE ", \"rope_theta\": 1e4, \"eos_token_id\": 512}", NULL,
         "eos_token_id: must be from 0 to 511"},
        {"{" BASE ", \"rope_theta\": 1e4}", "{\"eos_token_id\": [0,1,2,3,4,5,6,7,8]}",
         "at most 8 ids"},
        {"{" BASE ", \"rope_theta\": 1e4}", "{\"temperature\": -1}",
         "temperature: must be from 0 to 100"},
        {"{" BASE ", \"rope_theta\": 1e4}", "{\"top_p\": \"x\"}", "top_p: must be a number"},
        {"{" BASE ", \"rope_theta\": 1e4, \"hidden_size\": 64}", NULL,
         "hidden_size: this key occurs twice"},
        {"[", NULL, "config.json:1:2: the text ends"},
    };
    vkm_model_config c;
    vkm_err err;
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        assert_int_equal(load(cases[i].config, cases[i].generation, &c, &err), VKM_FAILED);
        assert_has(err.msg, cases[i].message);
    }
    assert_int_equal(vkm_model_config_load("/nonexistent", &c, &err), VKM_FAILED);
    err = (vkm_err){0};
    assert_int_equal(vkm_model_config_load("/nonexistent", &c, &err), VKM_FAILED);
    assert_has(err.msg, "no such folder");
}

/* Each size replaced by a bad one. */
static void refuses_bad_sizes(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"hidden_size\": 64", "\"hidden_size\": 0", "hidden_size: must be from 1 to 65536, is 0"},
        {"\"hidden_size\": 64", "\"hidden_size\": 63",
         "hidden_size (63) and intermediate_size (128) must be even"},
        {"\"hidden_size\": 64", "\"hidden_size\": 1e9", "must be from 1 to 65536"},
        {"\"hidden_size\": 64", "\"hidden_size\": \"64\"", "must be an integer, is a string"},
        {"\"hidden_size\": 64,", "", "the key \"hidden_size\" is missing"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
         "num_attention_heads (4) must be a multiple of num_key_value_heads (3)"},
        {"\"head_dim\": 32", "\"head_dim\": 33", "head_dim must be a multiple of 4"},
        {"\"head_dim\": 32", "\"head_dim\": 1024", "head_dim: must be from 1 to 512"},
        {"\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0", "rms_norm_eps: must be from"},
    };
    static const char base[] = "{" BASE ", \"rope_theta\": 1e4}";
    vkm_model_config c;
    vkm_err err;
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        const char *at = strstr(base, cases[i].from);
        assert_non_null(at);
        vkm_strbuf b = {0};
        vkm_strbuf_add(&b, base, (size_t)(at - base));
        vkm_strbuf_puts(&b, cases[i].to);
        vkm_strbuf_puts(&b, at + strlen(cases[i].from));
        assert_int_equal(load(b.data, NULL, &c, &err), VKM_FAILED);
        assert_has(err.msg, cases[i].message);
        vkm_strbuf_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_configs),       cmocka_unit_test(reads_other_architectures),
        cmocka_unit_test(saves_what_it_loads), cmocka_unit_test(refuses_configs),
        cmocka_unit_test(refuses_bad_sizes),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
