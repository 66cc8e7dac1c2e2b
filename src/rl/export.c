#include "rl/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/log.h"
#include "base/team.h"
#include "model/safetensors.h"
#include "ops/numerics.h"

/* The adapter on the host, and the two factors of the module that is worked on. */
typedef struct exporter {
    const vkm_inference *x;
    vkm_adapter *adapter;                         /* sizes only */
    float *params;                                /* dA, dB^T of every module */
    uint64_t *at;                                 /* (M): where those of a module begin */
    uint32_t kept[VKM_MAX_EXPERTS], n_kept, rank; /* rank: of what is written, all experts' */
    uint32_t module;                              /* whose factors stand below; M: none's */
    float *a, *b; /* (rank, d_in), (rank, d_out): lora_A, lora_B^T */
    float *init;  /* (E R, widest) */
    vkm_st *weights;
    vkm_team *team;
} exporter;

/* ---- factors --------------------------------------------------------------------------------- */

static vkm_status open_adapter(exporter *e, vkm_dev *dev, vkm_err *err) {
    const vkm_config *c = &e->x->run->c;
    const vkm_adapter_options o = {
        .n_experts = VKM_MAX_EXPERTS, .rank = (uint32_t)c->lora_rank, .seed = (uint64_t)c->seed};
    vkm_plan *plan = vkm_plan_new(dev);
    if (!vkm_adapter_new(dev, &e->x->hf, &o, plan, &e->adapter, err))
        (void)!vkm_adapter_run_read(e->x->run, e->adapter, &e->params, err);
    vkm_plan_free(plan);
    if (err->status) return err->status;
    const vkm_adapter *a = e->adapter;
    uint32_t widest = 0, all = a->n_experts * a->rank;
    uint64_t at = 0;
    for (uint32_t i = 0; i < a->n_experts; i++)
        if (e->x->f[i] != 0) e->kept[e->n_kept++] = i;
    e->rank = 2 * a->rank * e->n_kept;
    e->module = a->n_modules;
    e->at = vkm_calloc(a->n_modules, sizeof *e->at, "the adapter", err);
    for (uint32_t i = 0; e->at && i < a->n_modules; i++) {
        const vkm_module *m = &a->modules[i];
        if (m->d_in > widest) widest = m->d_in;
        if (m->d_out > widest) widest = m->d_out;
        e->at[i] = at;
        at += (uint64_t)all * (m->d_in + m->d_out);
    }
    e->a = vkm_calloc((uint64_t)(e->rank + 1) * widest, sizeof *e->a, "the adapter", err);
    e->b = vkm_calloc((uint64_t)(e->rank + 1) * widest, sizeof *e->b, "the adapter", err);
    e->init = vkm_calloc((uint64_t)all * widest, sizeof *e->init, "the adapter", err);
    return err->status;
}

static void close_exporter(exporter *e) {
    vkm_team_free(e->team);
    vkm_st_close(e->weights);
    vkm_adapter_free(e->adapter);
    free(e->params), free(e->at), free(e->a), free(e->b), free(e->init);
}

/* [dA_e; A0_e + dA_e] of the experts that are kept, or [B0_e | dB_e]^T times their weights. */
static void make_factor(exporter *e, uint32_t module, int factor) {
    const vkm_adapter *a = e->adapter;
    const vkm_module *m = &a->modules[module];
    uint32_t n = factor ? m->d_out : m->d_in, r = a->rank;
    const float *delta =
        e->params + e->at[module] + (factor ? (uint64_t)a->n_experts * r * m->d_in : 0);
    float *out = factor ? e->b : e->a;
    vkm_adapter_init(a, (uint64_t)e->x->run->c.seed, module, factor, e->init);
    for (uint32_t k = 0; k < e->n_kept; k++) {
        uint64_t from = (uint64_t)e->kept[k] * r * n, half = (uint64_t)r * n;
        const float *d = delta + from, *init = e->init + from;
        float f = e->x->f[e->kept[k]], *first = out + 2 * k * half, *second = first + half;
        for (uint64_t i = 0; i < half; i++) {
            first[i] = factor ? f * init[i] : d[i];
            second[i] = factor ? f * d[i] : init[i] + d[i];
        }
    }
}

static void make_factors(exporter *e, uint32_t module) {
    if (e->module == module) return;
    make_factor(e, module, 0);
    make_factor(e, module, 1);
    e->module = module;
}

/* ---- PEFT ------------------------------------------------------------------------------------ */

static vkm_status add_floats(vkm_st_writer *w, const float *x, uint64_t n, int fp32, vkm_err *err) {
    if (fp32) return vkm_st_writer_add(w, x, n * sizeof *x, err);
    uint16_t *rounded = vkm_calloc(n, sizeof *rounded, "the adapter", err);
    for (uint64_t i = 0; rounded && i < n; i++) rounded[i] = (uint16_t)vkm_bf16z(x[i]);
    if (rounded) (void)!vkm_st_writer_add(w, rounded, n * sizeof *rounded, err);
    free(rounded);
    return err->status;
}

static vkm_status write_factors(exporter *e, const vkm_export_options *o, vkm_st_writer *w,
                                vkm_err *err) {
    for (uint32_t i = 0; i < e->adapter->n_modules && !err->status; i++) {
        const vkm_module *m = &e->adapter->modules[i];
        uint64_t n = (uint64_t)m->d_out * e->rank;
        make_factors(e, i);
        float *t = vkm_calloc(n, sizeof *t, "the adapter", err);
        for (uint64_t j = 0; t && j < n; j++) t[j] = e->b[j % e->rank * m->d_out + j / e->rank];
        if (t && !add_floats(w, e->a, (uint64_t)e->rank * m->d_in, o->fp32, err))
            (void)!add_floats(w, t, n, o->fp32, err);
        free(t);
    }
    return err->status;
}

static vkm_status save_factors(exporter *e, const vkm_export_options *o, const char *folder,
                               vkm_err *err) {
    static const vkm_st_meta meta[] = {{"format", "pt"}};
    uint32_t n = 2 * e->adapter->n_modules;
    char path[VKM_PATH_MAX];
    vkm_st_writer w = {.save.fd = -1};
    vkm_st_entry *entries = vkm_calloc(n, sizeof *entries, "the adapter", err);
    char(*names)[160] = vkm_calloc(n, sizeof *names, "the adapter", err);
    for (uint32_t i = 0; entries && names && i < n; i++) {
        uint32_t module = i / 2, layer = module / VKM_N_LINEARS;
        const vkm_module *m = &e->adapter->modules[module];
        snprintf(names[i], sizeof names[i], "base_model.model.model.layers.%u.%s.lora_%c.weight",
                 layer, vkm_linear_names[module % VKM_N_LINEARS], i % 2 ? 'B' : 'A');
        entries[i] =
            (vkm_st_entry){.name = names[i],
                           .dtype = o->fp32 ? VKM_ST_F32 : VKM_ST_BF16,
                           .n_dims = 2,
                           .shape = {i % 2 ? m->d_out : e->rank, i % 2 ? e->rank : m->d_in}};
    }
    if (!err->status && !vkm_path_join(path, folder, "adapter_model.safetensors", err) &&
        !vkm_st_writer_begin(&w, path, entries, n, meta, VKM_COUNTOF(meta), err) &&
        !write_factors(e, o, &w, err))
        (void)!vkm_st_writer_commit(&w, err);
    vkm_st_writer_abort(&w);
    free(names), free(entries);
    return err->status;
}

/* The keys that PEFT reads; others have its defaults. */
static vkm_status save_adapter_config(const exporter *e, const char *folder, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf b = {0};
    vkm_jw w = vkm_jw_begin(&b, 2);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "peft_type", "LORA");
    vkm_jw_str(&w, "task_type", "CAUSAL_LM");
    vkm_jw_str(&w, "base_model_name_or_path", e->x->model);
    vkm_jw_u64(&w, "r", e->rank);
    vkm_jw_u64(&w, "lora_alpha", e->rank);
    vkm_jw_double(&w, "lora_dropout", 0);
    vkm_jw_str(&w, "bias", "none");
    vkm_jw_arr(&w, "target_modules");
    for (int i = 0; i < VKM_N_LINEARS; i++)
        vkm_jw_str(&w, NULL, strrchr(vkm_linear_names[i], '.') + 1);
    vkm_jw_end_arr(&w);
    vkm_jw_bool(&w, "fan_in_fan_out", false);
    vkm_jw_bool(&w, "use_rslora", false);
    vkm_jw_bool(&w, "use_dora", false);
    vkm_jw_bool(&w, "inference_mode", true);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(&b, '\n');
    if (!vkm_strbuf_check(&b, "the adapter's config", err) &&
        !vkm_path_join(path, folder, "adapter_config.json", err))
        (void)!vkm_file_save(path, b.data, b.n, err);
    vkm_strbuf_free(&b);
    return err->status;
}

vkm_status vkm_export_adapter(const vkm_inference *x, vkm_dev *dev, const vkm_export_options *o,
                              const char *folder, vkm_err *err) {
    exporter e = {.x = x};
    if (!x->run) return vkm_fail(err, VKM_USAGE, "an adapter is a run's; name the run's folder");
    if (open_adapter(&e, dev, err)) goto done;
    if (!e.n_kept) {
        vkm_fail(err, VKM_USAGE,
                 "state base: the adapter without its experts is none; choose "
                 "full or ablated");
        goto done;
    }
    if (!vkm_dir_make(folder, err) && !save_factors(&e, o, folder, err))
        (void)!save_adapter_config(&e, folder, err);
done:
    close_exporter(&e);
    return err->status;
}

/* ---- merged ---------------------------------------------------------------------------------- */

/* A piece of a Linear's weight: elements [first, first + n) of (d_out, d_in). */
typedef struct piece {
    const exporter *e;
    uint64_t first, n;
    uint32_t d_in, d_out;
    float *out;
} piece;

/* Adds lora_B lora_A to the rows of the piece; threads take rows in turn. */
static void add_product(void *user, uint32_t part, uint32_t parts) {
    const piece *p = user;
    const exporter *e = p->e;
    uint64_t end = p->first + p->n;
    for (uint64_t row = p->first / p->d_in + part; row * p->d_in < end; row += parts) {
        uint64_t from = row * p->d_in, to = from + p->d_in;
        uint64_t lo = from < p->first ? p->first : from, hi = to > end ? end : to;
        enum { COLS = 256 };
        for (uint64_t at = lo; at < hi; at += COLS) {
            uint64_t n = hi - at < COLS ? hi - at : COLS;
            float sum[COLS] = {0};
            for (uint32_t r = 0; r < e->rank; r++) {
                const float *a = e->a + (uint64_t)r * p->d_in + (at - from);
                float b = e->b[(uint64_t)r * p->d_out + row];
                for (uint64_t c = 0; c < n; c++) sum[c] = sum[c] + b * a[c];
            }
            float *out = p->out + (at - p->first);
            for (uint64_t c = 0; c < n; c++) out[c] = out[c] + sum[c];
        }
    }
}

static vkm_status merged(void *user, uint32_t i, const vkm_model_tensor *t, uint64_t first,
                         uint64_t n, float *out, vkm_err *err) {
    exporter *e = user;
    const vkm_st_tensor *w;
    const uint64_t shape[2] = {t->rows ? t->rows : t->cols, t->cols};
    (void)i;
    if (vkm_st_expect(e->weights, t->name, t->rows ? 2 : 1, shape, &w, err) ||
        vkm_st_to_f32(w, first, n, out, err))
        return err->status;
    vkm_st_done(w, first, n);
    if (!e->n_kept || t->role >= VKM_N_LINEARS) return VKM_OK;
    make_factors(e, t->layer * VKM_N_LINEARS + t->role);
    piece p = {e, first, n, t->cols, t->rows, out};
    vkm_team_run(e->team, 1, add_product, &p);
    return VKM_OK;
}

vkm_status vkm_export_model(const vkm_inference *x, vkm_dev *dev, const vkm_export_options *o,
                            const char *folder, vkm_err *err) {
    exporter e = {.x = x};
    const vkm_model_write_options as = {.fp32 = o->fp32, .shard_bytes = o->shard_bytes};
    if ((x->run && open_adapter(&e, dev, err)) || vkm_st_open(x->model, &e.weights, err) ||
        vkm_team_new(vkm_cpu_count(), &e.team, err) || vkm_dir_make(folder, err) ||
        vkm_model_copy_tokenizer(x->model, folder, err) ||
        vkm_model_write(&x->hf, folder, &as, merged, &e, err))
        goto done;
    (void)!vkm_model_copy_config(x->model, folder, err); /* last: it marks a whole model */
done:
    close_exporter(&e);
    return err->status;
}
