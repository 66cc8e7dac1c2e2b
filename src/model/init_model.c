/* Owns presets and the making of a model folder; small_tokenizer.c owns the tokenizer's text. */
#include "model/init_model.h"
#include "base/team.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "model/model_files.h"
#include "model/tokenizer.h"
#include "ops/gauss.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHAPE(c, l, h, k, d, f, v)                                                                 \
    .C = (c), .L = (l), .H = (h), .K = (k), .D = (d), .F = (f), .V = (v), .norm_eps = 1e-6,        \
    .bos = -1, .pad = -1, .temperature = 1, .top_p = 1, .top_k = 0
#define SIZES(...) SHAPE(__VA_ARGS__), .qk_norm = true
#define SMALL      .max_pos = 2048, .rope = {.theta = 10000}
#define QWEN3      .max_pos = 40960, .rope = {.theta = 1000000}

const vkm_model_preset vkm_model_presets[] = {
    {"tiny", "2 layers of width 64", {SIZES(64, 2, 4, 2, 16, 128, 0), SMALL, .tied = true}},
    {"tiny-untied", "tiny with its own output head", {SIZES(64, 2, 4, 2, 16, 128, 0), SMALL}},
    {"tiny-qwen2",
     "tiny as a Qwen2: biases of q, k and v, no norm of q and k",
     {SHAPE(64, 2, 4, 2, 16, 128, 0), SMALL, .arch = VKM_ARCH_QWEN2, .qkv_bias = true}},
    {"tiny-llama",
     "tiny as a Llama 3: neither, and stretched positions",
     {SHAPE(64, 2, 4, 2, 16, 128, 0), .max_pos = 2048, .arch = VKM_ARCH_LLAMA,
      .rope = {.theta = 10000,
               .factor = 8,
               .low_freq_factor = 1,
               .high_freq_factor = 4,
               .original_max_pos = 256}}},
    {"tiny-mistral",
     "tiny as a Mistral: neither",
     {SHAPE(64, 2, 4, 2, 16, 128, 0), SMALL, .arch = VKM_ARCH_MISTRAL}},
    {"mini", "4 layers of width 128", {SIZES(128, 4, 4, 2, 32, 256, 0), SMALL, .tied = true}},
    {"qwen3-0.6b-4l",
     "Qwen3-0.6B's widths, 4 layers",
     {SIZES(1024, 4, 16, 8, 128, 3072, 151936), QWEN3, .tied = true}},
    {"qwen3-0.6b", "Qwen3-0.6B", {SIZES(1024, 28, 16, 8, 128, 3072, 151936), QWEN3, .tied = true}},
    {"qwen3-1.7b", "Qwen3-1.7B", {SIZES(2048, 28, 16, 8, 128, 6144, 151936), QWEN3, .tied = true}},
    {"qwen3-4b", "Qwen3-4B", {SIZES(2560, 36, 32, 8, 128, 9728, 151936), QWEN3, .tied = true}},
    {"qwen3-8b", "Qwen3-8B", {SIZES(4096, 36, 32, 8, 128, 12288, 151936), QWEN3}},
};
const size_t vkm_n_model_presets = VKM_COUNTOF(vkm_model_presets);

vkm_status vkm_model_preset_find(const char *name, const vkm_model_preset **out, vkm_err *err) {
    char list[512] = "";
    for (size_t i = 0; i < vkm_n_model_presets; i++) {
        if (vkm_text_same(vkm_model_presets[i].name, name)) {
            *out = &vkm_model_presets[i];
            return VKM_OK;
        }
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", vkm_model_presets[i].name);
    }
    return vkm_fail(err, VKM_USAGE, "unknown preset '%.40s'; the presets are %s", name, list);
}

/* ---- tokenizer ---------------------------------------------------------------------------------
 */

/* The tokenizer's files in the folder, and its ids and size in the config. */
static vkm_status place_tokenizer(const vkm_init_options *o, vkm_model_config *c, vkm_err *err) {
    vkm_tokenizer *t = NULL;
    vkm_status st = VKM_OK;
    if (o->tokenizer) {
        st = vkm_model_copy_tokenizer(o->tokenizer, o->output, err);
    } else {
        st = vkm_small_tokenizer_save(o->output, err);
    }
    if (!st) st = vkm_tokenizer_load(o->output, &t, err);
    if (st) return st;
    uint32_t n_ids = vkm_tokenizer_n_ids(t);
    if (!c->V) c->V = n_ids;
    if (c->V < n_ids)
        st = vkm_fail(err, VKM_USAGE, "a vocabulary of %u is too small for the tokenizer's %u ids",
                      c->V, n_ids);
    int64_t end_of_text = vkm_tokenizer_id(t, "<|endoftext|>");
    c->eos[0] = (uint32_t)vkm_tokenizer_id(t, "<|im_end|>");
    c->n_eos = 1;
    if (end_of_text >= 0) c->eos[c->n_eos++] = (uint32_t)end_of_text;
    c->pad = c->eos[c->n_eos - 1];
    vkm_tokenizer_free(t);
    return st;
}

/* ---- weights -----------------------------------------------------------------------------------
 */

#define INIT_STD 0.02f

typedef struct drawing {
    uint64_t seed;
    vkm_team *team;
    /* what is drawn now: elements [first, first + n) of tensor i */
    uint32_t i;
    uint64_t first, n;
    float *out;
} drawing;

/* Threads take blocks in turn; no bit depends on how many there are. */
static void draw_part(void *user, uint32_t part, uint32_t parts) {
    enum { BLOCK = 4096 };
    const drawing *d = user;
    for (uint64_t at = (uint64_t)part * BLOCK; at < d->n; at += (uint64_t)parts * BLOCK) {
        uint64_t n = d->n - at < BLOCK ? d->n - at : BLOCK;
        vkm_gauss(d->out + at, n, d->first + at, d->seed, VKM_RNG_WEIGHTS, d->i, INIT_STD);
    }
}

/* Gaussians for a matrix or a bias, ones for a gain. */
static vkm_status draw(void *user, uint32_t i, const vkm_model_tensor *t, uint64_t first,
                       uint64_t n, float *out, vkm_err *err) {
    drawing *d = user;
    (void)err;
    int gain = !t->rows && t->role < VKM_ROLE_BIAS_Q;
    for (uint64_t j = 0; j < n && gain; j++) out[j] = 1.0f;
    if (gain) return VKM_OK;
    d->i = i, d->first = first, d->n = n, d->out = out;
    vkm_team_run(d->team, 1, draw_part, d);
    return VKM_OK;
}

vkm_status vkm_init_model(const vkm_init_options *o, vkm_model_config *out, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_model_config c = o->config;
    vkm_status st = vkm_path_join(path, o->output, "config.json", err);
    if (!st && vkm_file_exists(path) && !o->force)
        st = vkm_fail(err, VKM_USAGE, "%s is there already; choose another folder or give --force",
                      path);
    if (st) return st;
    bool from_tokenizer = !c.V;
    if (from_tokenizer) c.V = 1; /* check the rest before anything is written */
    st = vkm_model_config_check(&c, "the model to make", err);
    if (from_tokenizer) c.V = 0;
    if (!st) st = vkm_dir_make(o->output, err);
    if (!st) st = place_tokenizer(o, &c, err);
    drawing d = {.seed = o->seed};
    const vkm_model_write_options bf16 = {0};
    if (!st) st = vkm_team_new(o->threads ? o->threads : vkm_cpu_count(), &d.team, err);
    if (!st) st = vkm_model_write(&c, o->output, &bf16, draw, &d, err);
    vkm_team_free(d.team);
    if (!st)
        st = vkm_model_config_save(&c, o->output, err); /* last: config.json marks a whole model */
    if (!st && out) *out = c;
    return st;
}
