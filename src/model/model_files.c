/* Owns the list of a model's tensors and the copying of the files beside them. */
#include "model/model_files.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "model/safetensors.h"

typedef struct list {
    vkm_model_tensor *t;
    uint32_t n;
} list;

static void add(list *l, const char *prefix, uint32_t layer, uint32_t role, const char *name,
                uint32_t rows, uint32_t cols) {
    vkm_model_tensor *t = &l->t[l->n++];
    *t = (vkm_model_tensor){.rows = rows, .cols = cols, .layer = layer, .role = role};
    snprintf(t->name, sizeof t->name, "%s%s.weight", prefix, name);
}

static void add_linear(list *l, const vkm_model_config *c, const char *prefix, uint32_t layer,
                       vkm_linear_id id) {
    uint32_t d_in, d_out;
    vkm_linear_dims(c, id, &d_in, &d_out);
    add(l, prefix, layer, id, vkm_linear_names[id], d_out, d_in);
}

vkm_status vkm_model_tensors(const vkm_model_config *c, vkm_model_tensor **out, uint32_t *n,
                             vkm_err *err) {
    list l = {.t = vkm_calloc(3 + (size_t)c->L * (VKM_N_LINEARS + 4), sizeof *l.t,
                              "the model's tensors", err)};
    if (!l.t) return err->status;
    add(&l, "", 0, VKM_ROLE_EMBED, "model.embed_tokens", c->V, c->C);
    for (uint32_t i = 0; i < c->L; i++) {
        char prefix[40];
        snprintf(prefix, sizeof prefix, "model.layers.%u.", i);
        add(&l, prefix, i, VKM_ROLE_NORM_ATTN, "input_layernorm", 0, c->C);
        for (vkm_linear_id id = VKM_LIN_Q; id <= VKM_LIN_O; id++) add_linear(&l, c, prefix, i, id);
        if (c->qk_norm) {
            add(&l, prefix, i, VKM_ROLE_NORM_Q, "self_attn.q_norm", 0, c->D);
            add(&l, prefix, i, VKM_ROLE_NORM_K, "self_attn.k_norm", 0, c->D);
        }
        add(&l, prefix, i, VKM_ROLE_NORM_MLP, "post_attention_layernorm", 0, c->C);
        for (vkm_linear_id id = VKM_LIN_GATE; id <= VKM_LIN_DOWN; id++)
            add_linear(&l, c, prefix, i, id);
    }
    add(&l, "", 0, VKM_ROLE_NORM_FINAL, "model.norm", 0, c->C);
    if (!c->tied) add(&l, "", 0, VKM_ROLE_HEAD, "lm_head", c->V, c->C);
    *out = l.t;
    *n = l.n;
    return VKM_OK;
}

static vkm_status copy_file(const char *from, const char *to, const char *name, int needed,
                            vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_map m;
    if (vkm_path_join(path, from, name, err) || (!needed && !vkm_file_exists(path)))
        return err->status;
    if (vkm_map_open(&m, path, err)) return err->status;
    vkm_status st = vkm_path_join(path, to, name, err);
    if (!st) st = vkm_file_save(path, m.data, m.n, err);
    vkm_map_close(&m);
    return st;
}

vkm_status vkm_model_copy_tokenizer(const char *from, const char *to, vkm_err *err) {
    static const char *const optional[] = {"tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "chat_template.jinja"};
    vkm_status st = copy_file(from, to, "tokenizer.json", 1, err);
    for (size_t i = 0; i < VKM_COUNTOF(optional) && !st; i++)
        st = copy_file(from, to, optional[i], 0, err);
    return st;
}

vkm_status vkm_model_copy_config(const char *from, const char *to, vkm_err *err) {
    vkm_status st = copy_file(from, to, "generation_config.json", 0, err);
    return st ? st : copy_file(from, to, "config.json", 1, err);
}

/* ---- weights ----------------------------------------------------------------------------------
 */

enum { CHUNK = 1 << 18 };

static vkm_status write_tensor(vkm_st_writer *w, uint32_t i, const vkm_model_tensor *t,
                               vkm_model_source source, void *user, uint16_t *chunk, vkm_err *err) {
    uint64_t n = (uint64_t)(t->rows ? t->rows : 1) * t->cols;
    for (uint64_t at = 0; at < n && !err->status; at += CHUNK) {
        uint64_t part = n - at < CHUNK ? n - at : CHUNK;
        if (!source(user, i, t, at, part, chunk, err))
            (void)!vkm_st_writer_add(w, chunk, part * sizeof *chunk, err);
    }
    return err->status;
}

vkm_status vkm_model_write(const vkm_model_config *c, const char *folder, vkm_model_source source,
                           void *user, vkm_err *err) {
    static const vkm_st_meta meta[] = {{"format", "pt"}}; /* transformers asks for it */
    char path[VKM_PATH_MAX];
    vkm_st_writer w = {.save.fd = -1};
    vkm_progress bar;
    vkm_model_tensor *t = NULL;
    uint32_t n = 0;
    if (vkm_path_join(path, folder, "model.safetensors", err) || vkm_model_tensors(c, &t, &n, err))
        return err->status;
    vkm_st_entry *e = vkm_calloc(n, sizeof *e, "the model's tensors", err);
    uint16_t *chunk = vkm_calloc(CHUNK, sizeof *chunk, "weights", err);
    if (!e || !chunk) goto done;
    for (uint32_t i = 0; i < n; i++)
        e[i] = (vkm_st_entry){.name = t[i].name,
                              .dtype = VKM_ST_BF16,
                              .n_dims = t[i].rows ? 2 : 1,
                              .shape = {t[i].rows ? t[i].rows : t[i].cols, t[i].cols}};
    if (vkm_st_writer_begin(&w, path, e, n, meta, VKM_COUNTOF(meta), err)) goto done;
    vkm_progress_begin(&bar, "weights", 0, n);
    for (uint32_t i = 0; i < n && !write_tensor(&w, i, &t[i], source, user, chunk, err); i++)
        vkm_progress_at(&bar, i + 1, "%s", t[i].name);
    vkm_progress_end(&bar);
    if (!err->status) (void)!vkm_st_writer_commit(&w, err);
done:
    vkm_st_writer_abort(&w);
    free(chunk);
    free(e);
    free(t);
    return err->status;
}
