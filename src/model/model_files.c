/* Owns the list of a model's tensors and the copying of the files beside them. */
#include "model/model_files.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/log.h"
#include "model/safetensors.h"
#include "ops/numerics.h"

typedef struct list {
    vkm_model_tensor *t;
    uint32_t n;
} list;

static void add(list *l, const char *prefix, uint32_t layer, uint32_t role, const char *name,
                uint32_t rows, uint32_t cols) {
    vkm_model_tensor *t = &l->t[l->n++];
    *t = (vkm_model_tensor){.rows = rows, .cols = cols, .layer = layer, .role = role};
    snprintf(t->name, sizeof t->name, "%s%s.%s", prefix, name,
             role >= VKM_ROLE_BIAS_Q ? "bias" : "weight");
}

static void add_linear(list *l, const vkm_model_config *c, const char *prefix, uint32_t layer,
                       vkm_linear_id id) {
    uint32_t d_in, d_out;
    vkm_linear_dims(c, id, &d_in, &d_out);
    add(l, prefix, layer, id, vkm_linear_names[id], d_out, d_in);
    if (vkm_linear_has_bias(c, id))
        add(l, prefix, layer, VKM_ROLE_BIAS_Q + id, vkm_linear_names[id], 0, d_out);
}

vkm_status vkm_model_tensors(const vkm_model_config *c, vkm_model_tensor **out, uint32_t *n,
                             vkm_err *err) {
    list l = {.t = vkm_calloc(3 + (size_t)c->L * (VKM_N_LINEARS + 7), sizeof *l.t,
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

vkm_status vkm_model_check_tokenizer(const char *model, const vkm_model_config *c,
                                     const vkm_tokenizer *t, vkm_err *err) {
    if (vkm_tokenizer_n_ids(t) <= c->V) return VKM_OK;
    return vkm_fail(
        err, VKM_FAILED,
        "model '%s': tokenizer.json has ids up to %u, config.json has vocab_size %u; do "
        "both come from one folder?",
        model, vkm_tokenizer_n_ids(t) - 1, c->V);
}

/* A file that is not needed and not there is none in `to` either: another model's may lie there. */
static vkm_status copy_file(const char *from, const char *to, const char *name, int needed,
                            vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_map m;
    if (vkm_path_join(path, from, name, err)) return err->status;
    if (!needed && !vkm_file_exists(path)) {
        if (!vkm_path_join(path, to, name, err)) (void)remove(path);
        return err->status;
    }
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

/* What is under way: the list of tensors, those of a shard, and one piece. */
typedef struct writing {
    const char *folder;
    const vkm_model_write_options *o;
    vkm_model_source source;
    void *user;
    vkm_model_tensor *t;
    vkm_st_entry *e;
    uint32_t n, *shard, n_shards; /* shard of each tensor */
    float *piece;
    uint16_t *rounded;
    vkm_progress bar;
} writing;

static uint64_t bytes_of(const writing *w, uint32_t i) {
    const vkm_model_tensor *t = &w->t[i];
    return (uint64_t)(t->rows ? t->rows : 1) * t->cols * (w->o->fp32 ? 4 : 2);
}

static void deal_shards(writing *w) {
    uint64_t in_shard = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        uint64_t bytes = bytes_of(w, i);
        if (!w->n_shards ||
            (w->o->shard_bytes && in_shard && in_shard + bytes > w->o->shard_bytes)) {
            w->n_shards++;
            in_shard = 0;
        }
        w->shard[i] = w->n_shards - 1;
        in_shard += bytes;
    }
}

static const char *shard_name(const writing *w, uint32_t shard, char out[64]) {
    if (w->n_shards == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard + 1, w->n_shards);
    return out;
}

static vkm_status write_tensor(writing *w, uint32_t i, vkm_st_writer *file, vkm_err *err) {
    const vkm_model_tensor *t = &w->t[i];
    uint64_t n = (uint64_t)(t->rows ? t->rows : 1) * t->cols;
    for (uint64_t at = 0; at < n && !err->status; at += CHUNK) {
        uint64_t part = n - at < CHUNK ? n - at : CHUNK;
        if (w->source(w->user, i, t, at, part, w->piece, err)) break;
        for (uint64_t j = 0; j < part && !w->o->fp32; j++)
            w->rounded[j] = (uint16_t)vkm_bf16z(w->piece[j]);
        (void)!(w->o->fp32 ? vkm_st_writer_add(file, w->piece, part * sizeof *w->piece, err)
                           : vkm_st_writer_add(file, w->rounded, part * sizeof *w->rounded, err));
    }
    return err->status;
}

/* Tensors of one shard; *i is its first, and then the next one's. */
static vkm_status write_shard(writing *w, uint32_t *i, vkm_err *err) {
    static const vkm_st_meta meta[] = {{"format", "pt"}}; /* transformers asks for it */
    char path[VKM_PATH_MAX], name[64];
    vkm_st_writer file = {.save.fd = -1};
    uint32_t shard = w->shard[*i], end = *i;
    while (end < w->n && w->shard[end] == shard) end++;
    if (vkm_path_join(path, w->folder, shard_name(w, shard, name), err) ||
        vkm_st_writer_begin(&file, path, w->e + *i, end - *i, meta, VKM_COUNTOF(meta), err))
        return err->status;
    for (; *i < end && !write_tensor(w, *i, &file, err); ++*i)
        vkm_progress_at(&w->bar, *i + 1, "%s", w->t[*i].name);
    if (!err->status) (void)!vkm_st_writer_commit(&file, err);
    vkm_st_writer_abort(&file);
    return err->status;
}

static vkm_status write_index(const writing *w, vkm_err *err) {
    char path[VKM_PATH_MAX], name[64];
    vkm_strbuf b = {0};
    vkm_jw j = vkm_jw_begin(&b, 2);
    uint64_t total = 0;
    for (uint32_t i = 0; i < w->n; i++) total += bytes_of(w, i);
    vkm_jw_obj(&j, NULL);
    vkm_jw_obj(&j, "metadata");
    vkm_jw_u64(&j, "total_size", total);
    vkm_jw_end_obj(&j);
    vkm_jw_obj(&j, "weight_map");
    for (uint32_t i = 0; i < w->n; i++)
        vkm_jw_str(&j, w->t[i].name, shard_name(w, w->shard[i], name));
    vkm_jw_end_obj(&j);
    vkm_jw_end_obj(&j);
    vkm_strbuf_putc(&b, '\n');
    if (!vkm_strbuf_check(&b, "the index", err) &&
        !vkm_path_join(path, w->folder, "model.safetensors.index.json", err))
        (void)!vkm_file_save(path, b.data, b.n, err);
    vkm_strbuf_free(&b);
    return err->status;
}

vkm_status vkm_model_write(const vkm_model_config *c, const char *folder,
                           const vkm_model_write_options *o, vkm_model_source source, void *user,
                           vkm_err *err) {
    writing w = {.folder = folder, .o = o, .source = source, .user = user};
    if (vkm_model_tensors(c, &w.t, &w.n, err)) return err->status;
    w.e = vkm_calloc(w.n, sizeof *w.e, "the model's tensors", err);
    w.shard = vkm_calloc(w.n, sizeof *w.shard, "the model's tensors", err);
    w.piece = vkm_calloc(CHUNK, sizeof *w.piece, "weights", err);
    w.rounded = vkm_calloc(CHUNK, sizeof *w.rounded, "weights", err);
    if (!w.e || !w.shard || !w.piece || !w.rounded) goto done;
    for (uint32_t i = 0; i < w.n; i++)
        w.e[i] = (vkm_st_entry){.name = w.t[i].name,
                                .dtype = o->fp32 ? VKM_ST_F32 : VKM_ST_BF16,
                                .n_dims = w.t[i].rows ? 2 : 1,
                                .shape = {w.t[i].rows ? w.t[i].rows : w.t[i].cols, w.t[i].cols}};
    deal_shards(&w);
    vkm_progress_begin(&w.bar, "weights", 0, w.n);
    for (uint32_t i = 0; i < w.n && !err->status;) (void)!write_shard(&w, &i, err);
    vkm_progress_end(&w.bar);
    if (!err->status && w.n_shards > 1) (void)!write_index(&w, err);
done:
    free(w.rounded), free(w.piece), free(w.shard), free(w.e), free(w.t);
    return err->status;
}
