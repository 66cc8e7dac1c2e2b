/* `vkmoe init-model`: a model folder with random weights. */
#include <inttypes.h>
#include <stdio.h>

#include "base/json.h"
#include "cli/cli.h"
#include "model/init_model.h"

static void list_presets(void) {
    printf("%-14s %5s %3s %3s %3s %4s %6s %7s %5s %10s  %s\n", "preset", "C", "L", "H", "K", "D",
           "F", "V", "tied", "parameters", "what");
    for (size_t i = 0; i < vkm_n_model_presets; i++) {
        const vkm_model_config *c = &vkm_model_presets[i].config;
        vkm_model_config counted = *c;
        if (!counted.V) counted.V = 512;
        printf("%-14s %5u %3u %3u %3u %4u %6u %7u %5s %9.3gM  %s\n", vkm_model_presets[i].name,
               c->C, c->L, c->H, c->K, c->D, c->F, counted.V, c->tied ? "yes" : "no",
               1e-6 * (double)vkm_model_config_n_params(&counted), vkm_model_presets[i].what);
    }
}

static void print_made(const vkm_init_options *o, const vkm_model_config *c, int json) {
    uint64_t n = vkm_model_config_n_params(c);
    if (!json) {
        printf("%s: %" PRIu64 " parameters, %u tokens, seed %" PRIu64 "\n", o->output, n, c->V,
               o->seed);
        return;
    }
    vkm_strbuf b = {0};
    vkm_jw w = vkm_jw_begin(&b, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "output", o->output);
    vkm_jw_u64(&w, "parameters", n);
    vkm_jw_u64(&w, "vocab_size", c->V);
    vkm_jw_u64(&w, "seed", o->seed);
    vkm_jw_end_obj(&w);
    puts(vkm_strbuf_str(&b));
    vkm_strbuf_free(&b);
}

vkm_status vkm_cmd_init_model(int argc, char **argv, vkm_err *err) {
    const char *preset_name = "tiny", *output = "", *tokenizer = "";
    int json = 0, list = 0, force = 0, tied = 0;
    int64_t seed = 1, size[8] = {0};
    enum { HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, POSITIONS };
    vkm_opt opts[] = {
        {"output", VKM_OPT_STRING, &output, .arg = "DIR", .help = "folder to make (needed)"},
        {"preset", VKM_OPT_STRING, &preset_name, .arg = "NAME", .help = "shapes; see --list"},
        {"list", VKM_OPT_FLAG, &list, .help = "list the presets"},
        {"seed", VKM_OPT_INT, &seed, .min = 0, .max = 9e15, .help = "seed of the weights"},
        {"tokenizer", VKM_OPT_STRING, &tokenizer, .arg = "DIR",
         .help = "copy this folder's tokenizer; else a small one of 512 tokens"},
        {"hidden", VKM_OPT_INT, &size[HIDDEN], .max = 65536,
         .help = "hidden_size, 0: the preset's"},
        {"layers", VKM_OPT_INT, &size[LAYERS], .max = 1024, .help = "num_hidden_layers"},
        {"heads", VKM_OPT_INT, &size[HEADS], .max = 1024, .help = "num_attention_heads"},
        {"kv-heads", VKM_OPT_INT, &size[KV_HEADS], .max = 1024, .help = "num_key_value_heads"},
        {"head-dim", VKM_OPT_INT, &size[HEAD_DIM], .max = 512, .help = "head_dim"},
        {"ffn", VKM_OPT_INT, &size[FFN], .max = 262144, .help = "intermediate_size"},
        {"vocab", VKM_OPT_INT, &size[VOCAB], .max = 4194304,
         .help = "vocab_size, at least the tokenizer's"},
        {"positions", VKM_OPT_INT, &size[POSITIONS], .max = 16777216,
         .help = "max_position_embeddings"},
        {"tied", VKM_OPT_CHOICE, &tied, .choices = "preset|yes|no",
         .help = "the output head is the embedding"},
        {"force", VKM_OPT_FLAG, &force, .help = "overwrite a model that is there"},
        VKM_CLI_JSON(&json),
    };
    const vkm_model_preset *preset;
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (list) {
        list_presets();
        return VKM_OK;
    }
    if (!*output)
        return vkm_fail(err, VKM_USAGE, "--output DIR is needed; `vkmoe init-model --help`");
    if (vkm_model_preset_find(preset_name, &preset, err)) return err->status;
    vkm_init_options o = {.config = preset->config,
                          .tokenizer = *tokenizer ? tokenizer : NULL,
                          .output = output,
                          .seed = (uint64_t)seed,
                          .force = force};
    uint32_t *const place[] = {&o.config.C, &o.config.L, &o.config.H, &o.config.K,
                               &o.config.D, &o.config.F, &o.config.V, &o.config.max_pos};
    for (size_t i = 0; i < VKM_COUNTOF(place); i++)
        if (size[i]) *place[i] = (uint32_t)size[i];
    if (tied) o.config.tied = tied == 1;
    vkm_model_config made;
    if (vkm_init_model(&o, &made, err)) return err->status;
    print_made(&o, &made, json);
    return VKM_OK;
}
