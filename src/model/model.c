/* Owns a model's device memory: reads the folder, packs weights into operands, makes RoPE tables.
 */
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/safetensors.h"
#include "ops/rope_table.h"
#include "ops/softmath.h"

const char *const vkm_linear_names[VKM_N_LINEARS] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
};

float vkm_attn_scale(const vkm_model_config *d) {
    return vkm_div(1.0f, vkm_sqrt((float)(int)d->D));
}

void vkm_linear_dims(const vkm_model_config *d, vkm_linear_id id, uint32_t *d_in, uint32_t *d_out) {
    const uint32_t hd = d->H * d->D, kd = d->K * d->D;
    const uint32_t dims[VKM_N_LINEARS][2] = {
        [VKM_LIN_Q] = {d->C, hd},      [VKM_LIN_K] = {d->C, kd},      [VKM_LIN_V] = {d->C, kd},
        [VKM_LIN_O] = {hd, d->C},      [VKM_LIN_GATE] = {d->C, d->F}, [VKM_LIN_UP] = {d->C, d->F},
        [VKM_LIN_DOWN] = {d->F, d->C},
    };
    *d_in = dims[id][0];
    *d_out = dims[id][1];
}

int vkm_linear_has_bias(const vkm_model_config *d, vkm_linear_id id) {
    return d->qkv_bias && (id == VKM_LIN_Q || id == VKM_LIN_K || id == VKM_LIN_V);
}

static void plan_model(vkm_model *m, int trains, vkm_plan *p) {
    const vkm_model_config *d = &m->dims;
    vkm_plan_add(p, &m->embed, VKM_BF16, vkm_op_size(d->V, d->C), "weights");
    if (!d->tied) vkm_plan_add(p, &m->head, VKM_BF16, vkm_op_size(d->V, d->C), "weights");
    if (trains)
        vkm_plan_add(p, &m->head_t, VKM_BF16, vkm_op_size(d->C, d->V), "transposed weights");
    vkm_plan_add(p, &m->norm_final, VKM_F32, d->C, "weights");
    vkm_plan_add(p, &m->cos, VKM_F32, (uint64_t)d->max_pos * d->D / 2, "weights");
    vkm_plan_add(p, &m->sin, VKM_F32, (uint64_t)d->max_pos * d->D / 2, "weights");
    for (uint32_t i = 0; i < d->L; i++) {
        vkm_layer *layer = &m->layers[i];
        vkm_plan_add(p, &layer->norm_attn, VKM_F32, d->C, "weights");
        vkm_plan_add(p, &layer->norm_mlp, VKM_F32, d->C, "weights");
        if (d->qk_norm) {
            vkm_plan_add(p, &layer->norm_q, VKM_F32, d->D, "weights");
            vkm_plan_add(p, &layer->norm_k, VKM_F32, d->D, "weights");
        }
        for (int j = 0; j < VKM_N_LINEARS; j++) {
            vkm_linear *lin = &layer->lin[j];
            vkm_linear_dims(d, (vkm_linear_id)j, &lin->d_in, &lin->d_out);
            vkm_plan_add(p, &lin->w, VKM_BF16, vkm_op_size(lin->d_out, lin->d_in), "weights");
            if (vkm_linear_has_bias(d, (vkm_linear_id)j))
                vkm_plan_add(p, &lin->bias, VKM_F32, lin->d_out, "weights");
            if (trains)
                vkm_plan_add(p, &lin->wt, VKM_BF16, vkm_op_size(lin->d_in, lin->d_out),
                             "transposed weights");
        }
    }
}

/* A weight (rows, cols) of the file into an operand, some panels at a time. */
static vkm_status load_operand(vkm_model *m, const vkm_st *st, const char *name, uint64_t rows,
                               uint64_t cols, vkm_tensor dst, vkm_err *err) {
    enum { PANELS = 16 };
    const uint64_t shape[2] = {rows, cols};
    const vkm_st_tensor *t;
    uint32_t kp = vkm_op_kp((uint32_t)cols);
    uint16_t *in = NULL, *out = NULL;
    if (vkm_st_expect(st, name, 2, shape, &t, err)) return err->status;
    in = vkm_calloc(cols, sizeof *in, name, err);
    out = vkm_calloc(16ull * PANELS * kp, sizeof *out, name, err);
    for (uint64_t row0 = 0; row0 < rows && in && out && !err->status; row0 += 16 * PANELS) {
        uint64_t n = rows - row0 < 16 * PANELS ? rows - row0 : 16 * PANELS;
        memset(out, 0, 16ull * PANELS * kp * sizeof *out);
        for (uint64_t i = 0; i < n; i++) {
            if (vkm_st_to_bf16(t, (row0 + i) * cols, cols, in, err)) goto done;
            for (uint32_t k = 0; k < cols; k++) out[vkm_op_index(i, k, kp)] = in[k];
        }
        (void)!vkm_write(m->dev, vkm_view(dst, row0 * kp, vkm_round_up(n, 16) * kp), out, err);
        vkm_st_done(t, row0 * cols, n * cols);
    }
done:
    free(in);
    free(out);
    return err->status;
}

static vkm_status load_vector(vkm_model *m, const vkm_st *st, const char *name, vkm_tensor dst,
                              vkm_err *err) {
    const vkm_st_tensor *t;
    const uint64_t shape[1] = {dst.n};
    if (vkm_st_expect(st, name, 1, shape, &t, err)) return err->status;
    float *x = vkm_calloc(dst.n, sizeof *x, name, err);
    if (!x) return err->status;
    if (!vkm_st_to_f32(t, 0, dst.n, x, err)) (void)!vkm_write(m->dev, dst, x, err);
    free(x);
    return err->status;
}

static vkm_status load_layer(vkm_model *m, const vkm_st *st, uint32_t i, vkm_err *err) {
    vkm_layer *layer = &m->layers[i];
    const struct {
        const char *name;
        vkm_tensor dst;
    } gains[] = {{"input_layernorm", layer->norm_attn},
                 {"post_attention_layernorm", layer->norm_mlp},
                 {"self_attn.q_norm", layer->norm_q},
                 {"self_attn.k_norm", layer->norm_k}};
    char name[128];
    for (size_t j = 0; j < (m->dims.qk_norm ? 4 : 2); j++) {
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", i, gains[j].name);
        if (load_vector(m, st, name, gains[j].dst, err)) return err->status;
    }
    for (int j = 0; j < VKM_N_LINEARS; j++) {
        vkm_linear *lin = &layer->lin[j];
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", i, vkm_linear_names[j]);
        if (load_operand(m, st, name, lin->d_out, lin->d_in, lin->w, err)) return err->status;
        if (!vkm_linear_has_bias(&m->dims, (vkm_linear_id)j)) continue;
        snprintf(name, sizeof name, "model.layers.%u.%s.bias", i, vkm_linear_names[j]);
        if (load_vector(m, st, name, lin->bias, err)) return err->status;
    }
    return VKM_OK;
}

static vkm_status make_rope(vkm_model *m, vkm_err *err) {
    uint64_t n = m->cos.n;
    float *cosines = vkm_calloc(n, sizeof *cosines, "RoPE tables", err);
    float *sines = vkm_calloc(n, sizeof *sines, "RoPE tables", err);
    if (cosines && sines) {
        vkm_rope_table(cosines, sines, m->dims.max_pos, m->dims.D, &m->dims.rope);
        if (!vkm_write(m->dev, m->cos, cosines, err)) (void)!vkm_write(m->dev, m->sin, sines, err);
    }
    free(cosines);
    free(sines);
    return err->status;
}

static void record_transpose(vkm_stream *s, vkm_tensor x, vkm_tensor y, uint32_t rows,
                             uint32_t cols) {
    VKM_OP(s, pack_transpose, .x = x, .row_seq = x, .y = y, .n_rows = rows, .n_cols = cols,
           .has_seq = 0);
}

static vkm_status make_transposes(vkm_model *m, vkm_err *err) {
    vkm_stream *s;
    if (vkm_stream_new(m->dev, &s, err)) return err->status;
    record_transpose(s, m->head, m->head_t, m->dims.V, m->dims.C);
    for (uint32_t i = 0; i < m->dims.L; i++)
        for (int j = 0; j < VKM_N_LINEARS; j++) {
            const vkm_linear *lin = &m->layers[i].lin[j];
            record_transpose(s, lin->w, lin->wt, lin->d_out, lin->d_in);
        }
    (void)!vkm_stream_flush(s, err);
    vkm_stream_free(s);
    return err->status;
}

static vkm_status load_weights(vkm_model *m, const char *folder, vkm_err *err) {
    const vkm_model_config *d = &m->dims;
    vkm_st *st = NULL;
    vkm_progress bar;
    if (vkm_st_open(folder, &st, err)) return err->status;
    vkm_progress_begin(&bar, "loading the model", 0, d->L + 1);
    if (load_operand(m, st, "model.embed_tokens.weight", d->V, d->C, m->embed, err)) goto done;
    if (!d->tied && load_operand(m, st, "lm_head.weight", d->V, d->C, m->head, err)) goto done;
    if (load_vector(m, st, "model.norm.weight", m->norm_final, err)) goto done;
    for (uint32_t i = 0; i < d->L; i++) {
        if (load_layer(m, st, i, err)) goto done;
        vkm_progress_at(&bar, i + 1, "layer %u", i);
    }
done:
    vkm_progress_end(&bar);
    vkm_st_close(st);
    if (err->status) (void)vkm_fail_in(err, "model '%s'", folder);
    return err->status;
}

vkm_status vkm_model_load(vkm_dev *dev, const char *folder, uint32_t max_pos, int trains,
                          vkm_plan *dry, vkm_model **out, vkm_err *err) {
    vkm_model *m = vkm_calloc(1, sizeof *m, "a model", err);
    *out = NULL;
    if (!m) return err->status;
    m->dev = dev;
    if (vkm_model_config_load(folder, &m->dims, err)) goto fail;
    if (max_pos > m->dims.max_pos) {
        vkm_fail(err, VKM_USAGE,
                 "model '%s' is made for %u positions, %u are asked for: lower the prompt or "
                 "completion length",
                 folder, m->dims.max_pos, max_pos);
        goto fail;
    }
    m->dims.max_pos = max_pos;
    m->layers = vkm_calloc(m->dims.L, sizeof *m->layers, "a model", err);
    if (!m->layers) goto fail;
    vkm_plan *p = dry ? dry : vkm_plan_new(dev);
    plan_model(m, trains, p);
    *out = m;
    if (dry) return VKM_OK;
    if (vkm_plan_commit(p, &m->mem, err)) goto fail;
    if (m->dims.tied) m->head = m->embed;
    if (load_weights(m, folder, err) || make_rope(m, err)) goto fail;
    if (trains && make_transposes(m, err)) goto fail;
    return VKM_OK;
fail:
    *out = NULL;
    vkm_model_free(m);
    return err->status;
}

void vkm_model_free(vkm_model *m) {
    if (!m) return;
    vkm_mem_free(m->mem);
    free(m->layers);
    free(m);
}
