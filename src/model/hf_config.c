/* Owns the translation between Hugging Face's config files and vkm_model_config. Keys that cannot
 * change the result are ignored; keys that would need other mathematics are refused. */
#include "model/hf_config.h"
#include "base/file.h"
#include "base/json.h"

#include <string.h>

/* Architectures: one row each. window: attention reaches sliding_window positions back, so that
 * only so many are used. */
static const struct arch {
    const char *model_type, *class_name;
    bool qk_norm, qkv_bias, head_dim_may_miss, window;
} archs[VKM_N_ARCHS] = {
    [VKM_ARCH_QWEN3] = {"qwen3", "Qwen3ForCausalLM", .qk_norm = true},
    [VKM_ARCH_QWEN2] = {"qwen2", "Qwen2ForCausalLM", .qkv_bias = true, .head_dim_may_miss = true},
    [VKM_ARCH_LLAMA] = {"llama", "LlamaForCausalLM", .head_dim_may_miss = true},
    [VKM_ARCH_MISTRAL] = {"mistral", "MistralForCausalLM", .head_dim_may_miss = true,
                          .window = true},
};

enum { CONFIG_BYTES_MAX = 16 << 20 };

static const vkm_json_limits limits = {.max_bytes = CONFIG_BYTES_MAX, .max_depth = 16};

/* Sizes: key, place, largest value. A size of more than this is a damaged file, not a model. */
static const struct {
    const char *key;
    size_t at;
    int64_t max;
} sizes[] = {
    {"hidden_size", offsetof(vkm_model_config, C), 1 << 16},
    {"num_hidden_layers", offsetof(vkm_model_config, L), 1 << 10},
    {"num_attention_heads", offsetof(vkm_model_config, H), 1 << 10},
    {"num_key_value_heads", offsetof(vkm_model_config, K), 1 << 10},
    {"head_dim", offsetof(vkm_model_config, D), 512},
    {"intermediate_size", offsetof(vkm_model_config, F), 1 << 18},
    {"vocab_size", offsetof(vkm_model_config, V), 1 << 22},
    {"max_position_embeddings", offsetof(vkm_model_config, max_pos), 1 << 24},
};

static uint32_t *size_at(vkm_model_config *c, size_t at) {
    return (uint32_t *)((char *)c + at);
}

static vkm_status read_arch(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    const char *type = NULL;
    vkm_status st = vkm_json_get_str(root, "model_type", VKM_JSON_REQ, &type, err);
    if (st) return st;
    char known[256] = "";
    for (size_t i = 0; i < VKM_COUNTOF(archs); i++) {
        if (!strcmp(type, archs[i].model_type)) {
            c->arch = (vkm_arch_id)i;
            c->qk_norm = archs[i].qk_norm;
            c->qkv_bias = archs[i].qkv_bias;
            return VKM_OK;
        }
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, archs[i].model_type, sizeof known - strlen(known) - 1);
    }
    return vkm_json_fail(vkm_json_find(root, "model_type"), err,
                         "\"%.40s\" is not supported; supported: %s", type, known);
}

/* Each is refused unless it is absent or has the value that means "as the table's row is". */
static vkm_status refuse_other_mathematics(vkm_jv root, vkm_err *err) {
    static const char *const must_be_false[] = {"attention_bias", "use_sliding_window", "mlp_bias"};
    vkm_status st = VKM_OK;
    for (size_t i = 0; i < VKM_COUNTOF(must_be_false) && !st; i++) {
        bool on = false;
        st = vkm_json_get_bool(root, must_be_false[i], VKM_JSON_OPT, &on, err);
        if (!st && on)
            st = vkm_json_fail(vkm_json_find(root, must_be_false[i]), err,
                               "only false is supported; choose a model without it");
    }
    const char *act = "silu";
    if (!st) st = vkm_json_get_str(root, "hidden_act", VKM_JSON_OPT, &act, err);
    if (!st && strcmp(act, "silu") != 0)
        st = vkm_json_fail(vkm_json_find(root, "hidden_act"), err,
                           "only \"silu\" is supported, is \"%.40s\"", act);
    double dropout = 0;
    if (!st) st = vkm_json_get_double(root, "attention_dropout", VKM_JSON_OPT, 0, 1, &dropout, err);
    if (!st && dropout > 0)
        st = vkm_json_fail(vkm_json_find(root, "attention_dropout"), err, "only 0 is supported");
    vkm_jv q = vkm_json_find(root, "quantization_config");
    if (!st && vkm_json_typeof(q) > VKM_JSON_NULL)
        st = vkm_json_fail(q, err, "quantized weights are not supported; choose the bf16 model");
    vkm_jv layers = {0};
    if (!st) st = vkm_json_get_array(root, "layer_types", VKM_JSON_OPT, &layers, err);
    for (vkm_jv e = vkm_json_first(layers); e.v && !st; e = vkm_json_next(e)) {
        const char *type = NULL;
        st = vkm_json_str(e, &type, err);
        if (!st && strcmp(type, "full_attention") != 0)
            st = vkm_json_fail(e, err, "only \"full_attention\" is supported, is \"%.40s\"", type);
    }
    return st;
}

/* Llama 3's stretching of positions. */
static vkm_status read_stretch(vkm_jv g, vkm_rope *r, vkm_err *err) {
    int64_t original = 0;
    if (vkm_json_get_double(g, "factor", VKM_JSON_REQ, 1, 1e6, &r->factor, err) ||
        vkm_json_get_double(g, "low_freq_factor", VKM_JSON_REQ, 1e-6, 1e6, &r->low_freq_factor,
                            err) ||
        vkm_json_get_double(g, "high_freq_factor", VKM_JSON_REQ, 1e-6, 1e6, &r->high_freq_factor,
                            err) ||
        vkm_json_get_i64(g, "original_max_position_embeddings", VKM_JSON_REQ, 1, 1 << 24, &original,
                         err))
        return err->status;
    r->original_max_pos = (uint32_t)original;
    return r->high_freq_factor > r->low_freq_factor
               ? VKM_OK
               : vkm_json_fail(g, err, "high_freq_factor must be larger than low_freq_factor");
}

/* rope_theta at the top (transformers 4) or in rope_parameters (transformers 5). */
static vkm_status read_rope(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    static const char *const groups[] = {"rope_parameters", "rope_scaling"};
    double inner = 0, top = 0;
    vkm_status st = vkm_json_get_double(root, "rope_theta", VKM_JSON_OPT, 1, 1e12, &top, err);
    for (size_t i = 0; i < VKM_COUNTOF(groups) && !st; i++) {
        vkm_jv g = {0};
        const char *type = "default";
        st = vkm_json_get_object(root, groups[i], VKM_JSON_OPT, &g, err);
        if (st || !g.v) continue;
        st = vkm_json_get_str(g, "type", VKM_JSON_OPT, &type, err);
        if (!st) st = vkm_json_get_str(g, "rope_type", VKM_JSON_OPT, &type, err);
        if (!st && !strcmp(type, "llama3"))
            st = read_stretch(g, &c->rope, err);
        else if (!st && strcmp(type, "default") != 0)
            st = vkm_json_fail(g, err,
                               "rope type \"%.40s\" is not supported (default, llama3); set it to "
                               "null and stay within max_position_embeddings",
                               type);
        if (!st) st = vkm_json_get_double(g, "rope_theta", VKM_JSON_OPT, 1, 1e12, &inner, err);
    }
    if (st) return st;
    if (top > 0 && inner > 0 && top != inner)
        return vkm_json_fail(vkm_json_find(root, "rope_theta"), err,
                             "%.9g here but %.9g in rope_parameters; make them agree", top, inner);
    c->rope.theta = top > 0 ? top : inner;
    if (!(c->rope.theta > 0))
        return vkm_json_fail(root, err, "the key \"rope_theta\" is missing; add it");
    return VKM_OK;
}

/* Sizes that an architecture lets follow from others. */
static vkm_status read_sizes(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    const struct arch *arch = &archs[c->arch];
    int64_t window = 0;
    for (size_t i = 0; i < VKM_COUNTOF(sizes) && !err->status; i++) {
        int64_t v = 0;
        bool is_head_dim = sizes[i].at == offsetof(vkm_model_config, D);
        bool is_kv = sizes[i].at == offsetof(vkm_model_config, K);
        vkm_json_need need =
            arch->head_dim_may_miss && (is_head_dim || is_kv) ? VKM_JSON_OPT : VKM_JSON_REQ;
        if (vkm_json_get_i64(root, sizes[i].key, need, 1, sizes[i].max, &v, err)) break;
        uint32_t heads = c->H ? c->H : 1; /* read before: the table's order */
        if (!v && is_kv) v = heads;
        if (!v && is_head_dim && c->C % heads)
            return vkm_json_fail(vkm_json_find(root, "hidden_size"), err,
                                 "%u is no multiple of num_attention_heads (%u), and head_dim is "
                                 "missing; add it",
                                 c->C, c->H);
        if (!v) v = c->C / heads;
        *size_at(c, sizes[i].at) = (uint32_t)v;
    }
    if (err->status || !arch->window) return err->status;
    if (vkm_json_get_i64(root, "sliding_window", VKM_JSON_OPT, 1, 1 << 24, &window, err))
        return err->status;
    if (window && window < c->max_pos) c->max_pos = (uint32_t)window;
    return VKM_OK;
}

/* An id, a list of ids, or null. */
static vkm_status read_eos(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    vkm_jv v = vkm_json_find(root, "eos_token_id");
    vkm_json_type type = vkm_json_typeof(v);
    if (type == VKM_JSON_ABSENT || type == VKM_JSON_NULL) return VKM_OK;
    int64_t id = 0;
    c->n_eos = 0;
    if (type != VKM_JSON_ARRAY) {
        vkm_status st = vkm_json_i64(v, 0, (int64_t)c->V - 1, &id, err);
        if (!st) c->eos[c->n_eos++] = (uint32_t)id;
        return st;
    }
    for (vkm_jv e = vkm_json_first(v); e.v; e = vkm_json_next(e)) {
        if (c->n_eos == VKM_EOS_MAX)
            return vkm_json_fail(v, err, "at most %d ids are supported", VKM_EOS_MAX);
        if (vkm_json_i64(e, 0, (int64_t)c->V - 1, &id, err)) return err->status;
        c->eos[c->n_eos++] = (uint32_t)id;
    }
    return VKM_OK;
}

static vkm_status read_special_ids(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    vkm_status st = read_eos(root, c, err);
    if (!st)
        st = vkm_json_get_i64(root, "bos_token_id", VKM_JSON_OPT, 0, (int64_t)c->V - 1, &c->bos,
                              err);
    if (!st)
        st = vkm_json_get_i64(root, "pad_token_id", VKM_JSON_OPT, 0, (int64_t)c->V - 1, &c->pad,
                              err);
    return st;
}

static vkm_status read_config(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    vkm_status st = read_arch(root, c, err);
    if (!st) st = read_sizes(root, c, err);
    if (!st)
        st =
            vkm_json_get_double(root, "rms_norm_eps", VKM_JSON_REQ, 1e-12, 1e-2, &c->norm_eps, err);
    if (!st) st = vkm_json_get_bool(root, "tie_word_embeddings", VKM_JSON_OPT, &c->tied, err);
    if (!st) st = refuse_other_mathematics(root, err);
    if (!st) st = read_rope(root, c, err);
    return st ? st : read_special_ids(root, c, err);
}

static vkm_status read_generation(vkm_jv root, vkm_model_config *c, vkm_err *err) {
    int64_t top_k = c->top_k;
    vkm_status st = read_special_ids(root, c, err);
    if (!st)
        st = vkm_json_get_double(root, "temperature", VKM_JSON_OPT, 0, 100, &c->temperature, err);
    if (!st) st = vkm_json_get_double(root, "top_p", VKM_JSON_OPT, 0, 1, &c->top_p, err);
    if (!st) st = vkm_json_get_i64(root, "top_k", VKM_JSON_OPT, 0, UINT32_MAX, &top_k, err);
    c->top_k = (uint32_t)top_k;
    return st;
}

vkm_status vkm_model_config_check(const vkm_model_config *c, const char *name, vkm_err *err) {
    vkm_model_config copy = *c;
    for (size_t i = 0; i < VKM_COUNTOF(sizes); i++) {
        uint32_t v = *size_at(&copy, sizes[i].at);
        if (v < 1 || v > sizes[i].max)
            return vkm_fail(err, VKM_FAILED, "%s: %s must be from 1 to %lld, is %u", name,
                            sizes[i].key, (long long)sizes[i].max, v);
    }
    if (c->H % c->K)
        return vkm_fail(
            err, VKM_FAILED,
            "%s: num_attention_heads (%u) must be a multiple of num_key_value_heads (%u)", name,
            c->H, c->K);
    if (c->D % 4)
        return vkm_fail(
            err, VKM_FAILED,
            "%s: head_dim must be a multiple of 4 (RoPE's halves are stored in pairs), is %u", name,
            c->D);
    if (c->C % 2 || c->F % 2)
        return vkm_fail(err, VKM_FAILED,
                        "%s: hidden_size (%u) and intermediate_size (%u) must be even: bf16 values "
                        "are stored in pairs",
                        name, c->C, c->F);
    return VKM_OK;
}

vkm_status vkm_model_config_load(const char *folder, vkm_model_config *out, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_json *doc = NULL;
    vkm_model_config c = {.bos = -1, .pad = -1, .temperature = 1, .top_p = 1, .top_k = 50};
    if (!vkm_dir_exists(folder))
        return vkm_fail(
            err, VKM_FAILED,
            "%s: no such folder; name a model folder with config.json, tokenizer.json and "
            "*.safetensors (docs/real-run.md says where models come from)",
            folder);
    vkm_status st = vkm_path_join(path, folder, "config.json", err);
    if (!st) st = vkm_json_load(path, &limits, &doc, err);
    if (!st) st = read_config(vkm_json_root(doc), &c, err);
    if (!st) st = vkm_model_config_check(&c, path, err);
    vkm_json_free(doc);
    doc = NULL;
    if (!st) st = vkm_path_join(path, folder, "generation_config.json", err);
    if (!st && vkm_file_exists(path)) {
        st = vkm_json_load(path, &limits, &doc, err);
        if (!st) st = read_generation(vkm_json_root(doc), &c, err);
        vkm_json_free(doc);
    }
    if (!st) *out = c;
    return st;
}

uint64_t vkm_model_config_n_params(const vkm_model_config *c) {
    uint64_t C = c->C, q = (uint64_t)c->H * c->D, kv = (uint64_t)c->K * c->D;
    uint64_t layer = 2 * C * q + 2 * C * kv + 3 * C * c->F + 2 * C + (c->qk_norm ? 2 * c->D : 0) +
                     (c->qkv_bias ? q + 2 * kv : 0);
    return c->L * layer + (c->tied ? 1 : 2) * C * c->V + C;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void write_special_ids(vkm_jw *w, const vkm_model_config *c) {
    if (c->bos >= 0) vkm_jw_i64(w, "bos_token_id", c->bos);
    if (c->n_eos == 1) vkm_jw_i64(w, "eos_token_id", c->eos[0]);
    if (c->n_eos > 1) {
        vkm_jw_arr(w, "eos_token_id");
        for (uint32_t i = 0; i < c->n_eos; i++) vkm_jw_i64(w, NULL, c->eos[i]);
        vkm_jw_end_arr(w);
    }
    if (c->pad >= 0) vkm_jw_i64(w, "pad_token_id", c->pad);
}

static vkm_status save_text(vkm_strbuf *b, const char *folder, const char *name, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf_putc(b, '\n');
    vkm_status st = vkm_strbuf_check(b, name, err);
    if (!st) st = vkm_path_join(path, folder, name, err);
    if (!st) st = vkm_file_save(path, b->data, b->n, err);
    vkm_strbuf_clear(b);
    return st;
}

vkm_status vkm_model_config_save(const vkm_model_config *c, const char *folder, vkm_err *err) {
    vkm_model_config copy = *c;
    vkm_strbuf b = {0};
    vkm_jw w = vkm_jw_begin(&b, 2);
    vkm_jw_obj(&w, NULL);
    vkm_jw_arr(&w, "architectures");
    vkm_jw_str(&w, NULL, archs[c->arch].class_name);
    vkm_jw_end_arr(&w);
    vkm_jw_str(&w, "model_type", archs[c->arch].model_type);
    for (size_t i = 0; i < VKM_COUNTOF(sizes); i++)
        vkm_jw_i64(&w, sizes[i].key, *size_at(&copy, sizes[i].at));
    vkm_jw_double(&w, "rms_norm_eps", c->norm_eps);
    vkm_jw_double(&w, "rope_theta", c->rope.theta);
    if (c->rope.factor > 0) {
        vkm_jw_obj(&w, "rope_scaling");
        vkm_jw_str(&w, "rope_type", "llama3");
        vkm_jw_double(&w, "factor", c->rope.factor);
        vkm_jw_double(&w, "low_freq_factor", c->rope.low_freq_factor);
        vkm_jw_double(&w, "high_freq_factor", c->rope.high_freq_factor);
        vkm_jw_u64(&w, "original_max_position_embeddings", c->rope.original_max_pos);
        vkm_jw_end_obj(&w);
    }
    vkm_jw_bool(&w, "tie_word_embeddings", c->tied);
    vkm_jw_str(&w, "hidden_act", "silu");
    vkm_jw_bool(&w, "attention_bias", false);
    vkm_jw_double(&w, "attention_dropout", 0);
    vkm_jw_bool(&w, "use_sliding_window", false);
    vkm_jw_double(&w, "initializer_range", 0.02);
    vkm_jw_str(&w, "torch_dtype", "bfloat16");
    write_special_ids(&w, c);
    vkm_jw_end_obj(&w);
    vkm_status st = save_text(&b, folder, "config.json", err);
    w = vkm_jw_begin(&b, 2);
    vkm_jw_obj(&w, NULL);
    write_special_ids(&w, c);
    vkm_jw_bool(&w, "do_sample", true);
    vkm_jw_double(&w, "temperature", c->temperature);
    vkm_jw_double(&w, "top_p", c->top_p);
    vkm_jw_i64(&w, "top_k", c->top_k);
    vkm_jw_end_obj(&w);
    if (!st) st = save_text(&b, folder, "generation_config.json", err);
    vkm_strbuf_free(&b);
    return st;
}
