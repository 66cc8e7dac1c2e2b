/* Owns presets and the making of a model folder; small_tokenizer.c owns the tokenizer's text. */
#include "model/init_model.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "model/safetensors.h"
#include "model/tokenizer.h"
#include "ops/gauss.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZES(c, l, h, k, d, f, v)                                                                 \
    .C = (c), .L = (l), .H = (h), .K = (k), .D = (d), .F = (f), .V = (v), .norm_eps = 1e-6,        \
    .qk_norm = true, .bos = -1, .pad = -1, .temperature = 1, .top_p = 1, .top_k = 0
#define SMALL .max_pos = 2048, .rope_theta = 10000
#define QWEN3 .max_pos = 40960, .rope_theta = 1000000

const vkm_model_preset vkm_model_presets[] = {
    {"tiny", "2 layers of width 64", {SIZES(64, 2, 4, 2, 16, 128, 0), SMALL, .tied = true}},
    {"tiny-untied", "tiny with its own output head", {SIZES(64, 2, 4, 2, 16, 128, 0), SMALL}},
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

static vkm_status copy_file(const char *from, const char *to, const char *name, bool needed,
                            vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_map m;
    vkm_status st = vkm_path_join(path, from, name, err);
    if (st || (!needed && !vkm_file_exists(path))) return st;
    st = vkm_map_open(&m, path, err);
    if (st) return st;
    st = vkm_path_join(path, to, name, err);
    if (!st) st = vkm_file_save(path, m.data, m.n, err);
    vkm_map_close(&m);
    return st;
}

/* The tokenizer's files in the folder, and its ids and size in the config. */
static vkm_status place_tokenizer(const vkm_init_options *o, vkm_model_config *c, vkm_err *err) {
    static const char *const optional[] = {"tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "chat_template.jinja"};
    vkm_tokenizer *t = NULL;
    vkm_status st = VKM_OK;
    if (o->tokenizer) {
        st = copy_file(o->tokenizer, o->output, "tokenizer.json", true, err);
        for (size_t i = 0; i < VKM_COUNTOF(optional) && !st; i++)
            st = copy_file(o->tokenizer, o->output, optional[i], false, err);
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

enum { NAME_BYTES = 96, CHUNK = 1 << 18 }; /* a multiple of 4: the words of one draw */
#define INIT_STD 0.02f

typedef struct tensor_list {
    vkm_st_entry *e;
    char (*names)[NAME_BYTES];
    size_t n;
} tensor_list;

static void add(tensor_list *l, int layer, const char *name, uint64_t rows, uint64_t cols) {
    char *full = l->names[l->n];
    if (layer >= 0)
        snprintf(full, NAME_BYTES, "model.layers.%d.%s.weight", layer, name);
    else
        snprintf(full, NAME_BYTES, "%s.weight", name);
    l->e[l->n++] = (vkm_st_entry){.name = full,
                                  .dtype = VKM_ST_BF16,
                                  .n_dims = rows ? 2 : 1,
                                  .shape = {rows ? rows : cols, cols}};
}

/* The tensors in file order; rows 0 is a vector (a norm's gain). */
static void list_tensors(const vkm_model_config *c, tensor_list *l) {
    uint64_t q = (uint64_t)c->H * c->D, kv = (uint64_t)c->K * c->D;
    add(l, -1, "model.embed_tokens", c->V, c->C);
    for (int i = 0; i < (int)c->L; i++) {
        add(l, i, "input_layernorm", 0, c->C);
        add(l, i, "self_attn.q_proj", q, c->C);
        add(l, i, "self_attn.k_proj", kv, c->C);
        add(l, i, "self_attn.v_proj", kv, c->C);
        add(l, i, "self_attn.o_proj", c->C, q);
        if (c->qk_norm) {
            add(l, i, "self_attn.q_norm", 0, c->D);
            add(l, i, "self_attn.k_norm", 0, c->D);
        }
        add(l, i, "post_attention_layernorm", 0, c->C);
        add(l, i, "mlp.gate_proj", c->F, c->C);
        add(l, i, "mlp.up_proj", c->F, c->C);
        add(l, i, "mlp.down_proj", c->C, c->F);
    }
    add(l, -1, "model.norm", 0, c->C);
    if (!c->tied) add(l, -1, "lm_head", c->V, c->C);
}

/* Fills elements [first, first + n) of a tensor; threads take parts, no bit depends on how many. */
static void fill(const vkm_st_entry *e, uint32_t stream, uint64_t seed, uint64_t first, uint64_t n,
                 uint16_t *out) {
    if (e->n_dims == 1) {
        for (uint64_t i = 0; i < n; i++) out[i] = (uint16_t)vkm_bf16z(1.0f);
        return;
    }
#pragma omp parallel for schedule(static)
    for (uint64_t at = 0; at < n; at += 4096) {
        float x[4096];
        uint64_t part = n - at < 4096 ? n - at : 4096;
        vkm_gauss(x, part, first + at, seed, VKM_RNG_WEIGHTS, stream, INIT_STD);
        for (uint64_t i = 0; i < part; i++) out[at + i] = (uint16_t)vkm_bf16z(x[i]);
    }
}

static vkm_status write_weights(const vkm_init_options *o, const vkm_model_config *c,
                                vkm_err *err) {
    static const vkm_st_meta meta[] = {{"format", "pt"}}; /* transformers asks for it */
    char path[VKM_PATH_MAX];
    vkm_st_writer w = {.save.fd = -1};
    vkm_progress bar;
    size_t cap = 16 + 11 * (size_t)c->L;
    uint64_t total = vkm_model_config_n_params(c), done = 0;
    tensor_list l = {.e = vkm_calloc(cap, sizeof *l.e, "tensors", err),
                     .names = vkm_calloc(cap, NAME_BYTES, "tensor names", err)};
    uint16_t *chunk = vkm_calloc(CHUNK, sizeof *chunk, "weights", err);
    vkm_status st = err->status;
    if (st) goto done;
    list_tensors(c, &l);
    VKM_BUG_ON(l.n > cap, "%zu", l.n);
    st = vkm_path_join(path, o->output, "model.safetensors", err);
    if (!st) st = vkm_st_writer_begin(&w, path, l.e, l.n, meta, VKM_COUNTOF(meta), err);
    if (st) goto done;
    vkm_progress_begin(&bar, "weights", total);
    for (size_t i = 0; i < l.n && !st; i++) {
        uint64_t n = l.e[i].shape[0] * (l.e[i].n_dims == 2 ? l.e[i].shape[1] : 1);
        for (uint64_t at = 0; at < n && !st; at += CHUNK) {
            uint64_t part = n - at < CHUNK ? n - at : CHUNK;
            fill(&l.e[i], (uint32_t)i, o->seed, at, part, chunk);
            st = vkm_st_writer_add(&w, chunk, part * sizeof *chunk, err);
            vkm_progress_at(&bar, done += part, "%s", l.e[i].name);
        }
    }
    vkm_progress_end(&bar);
    if (!st) st = vkm_st_writer_commit(&w, err);
done:
    vkm_st_writer_abort(&w);
    free(chunk);
    free(l.names);
    free(l.e);
    return st;
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
    if (!st) st = write_weights(o, &c, err);
    if (!st)
        st = vkm_model_config_save(&c, o->output, err); /* last: config.json marks a whole model */
    if (!st && out) *out = c;
    return st;
}
