/* Owns the adapter's memory, its init and its operands. The optimizer lives in rl. */
#include "model/lora2r.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/gauss.h"

const vkm_lora_group *vkm_lora_group_of(vkm_linear_id id) {
    static const vkm_lora_group groups[] = {
        {VKM_LIN_Q, 3}, {VKM_LIN_O, 1}, {VKM_LIN_GATE, 2}, {VKM_LIN_DOWN, 1}};
    const vkm_lora_group *g = groups;
    while (id >= g->first + g->n) g++;
    return g;
}

uint32_t vkm_lora_stack(const vkm_adapter *a) {
    return a->n_experts * vkm_lora_kper(a->rank);
}

uint64_t vkm_factor_size(const vkm_adapter *a, uint32_t module, int factor) {
    const vkm_module *m = &a->modules[module];
    return (uint64_t)a->n_experts * a->rank * (factor ? m->d_out : m->d_in);
}

static void plan_module(vkm_plan *p, const vkm_adapter *a, uint32_t module) {
    vkm_module *m = &a->modules[module];
    vkm_linear_id id = (vkm_linear_id)(module % VKM_N_LINEARS);
    const vkm_lora_group *g = vkm_lora_group_of(id);
    uint32_t stack = vkm_lora_stack(a);
    vkm_plan_add(p, &m->a0, VKM_F32, vkm_factor_size(a, module, 0), "adapter init");
    vkm_plan_add(p, &m->b0, VKM_F32, vkm_factor_size(a, module, 1), "adapter init");
    for (int f = 0; f < 2; f++) {
        uint64_t n = vkm_factor_size(a, module, f);
        vkm_plan_add(p, &m->param[f], VKM_F32, n, "adapter");
        if (!a->trains) continue;
        vkm_plan_add(p, &m->group_grad[f], VKM_F32, n, "gradients");
        vkm_plan_add(p, &m->grad[f], VKM_F32, n, "gradients");
        vkm_plan_add(p, &m->adam_m[f], VKM_F32, n, "optimizer");
        vkm_plan_add(p, &m->adam_v[f], VKM_F32, a->adam_v_per_tensor ? 1 : n, "optimizer");
    }
    if (id == g->first)
        vkm_plan_add(p, &m->down, VKM_BF16, vkm_op_size((uint64_t)g->n * stack, m->d_in),
                     "adapter operands");
    vkm_plan_add(p, &m->up, VKM_BF16, vkm_op_size(m->d_out, stack), "adapter operands");
    if (!a->trains) return;
    vkm_plan_add(p, &m->back, VKM_BF16, vkm_op_size(stack, m->d_out), "adapter operands");
    vkm_plan_add(p, &m->back_x, VKM_BF16, vkm_op_size(m->d_in, stack), "adapter operands");
}

void vkm_adapter_init(const vkm_adapter *a, uint64_t seed, uint32_t module, int factor,
                      float *out) {
    const vkm_module *m = &a->modules[module];
    uint32_t fan = factor ? a->n_experts * a->rank : m->d_in;
    vkm_gauss(out, vkm_factor_size(a, module, factor), 0, seed, VKM_RNG_ADAPTER,
              2 * module + (uint32_t)factor, vkm_rsqrt((float)(int)fan));
}

static vkm_status write_init(vkm_adapter *a, uint64_t seed, uint32_t module, int factor,
                             vkm_err *err) {
    vkm_tensor t = factor ? a->modules[module].b0 : a->modules[module].a0;
    float *x = vkm_calloc(t.n, sizeof *x, "the adapter's init", err);
    if (!x) return err->status;
    vkm_adapter_init(a, seed, module, factor, x);
    vkm_status st = vkm_write(a->dev, t, x, err);
    free(x);
    return st;
}

vkm_status vkm_adapter_new(vkm_dev *dev, const vkm_model_config *d, const vkm_adapter_options *o,
                           vkm_plan *dry, vkm_adapter **out, vkm_err *err) {
    VKM_BUG_ON(o->n_experts > VKM_MAX_EXPERTS, "%u experts", o->n_experts);
    vkm_stream *s = NULL;
    vkm_adapter *a = vkm_calloc(1, sizeof *a, "the adapter", err);
    if (!a) return err->status;
    *a = (vkm_adapter){.n_experts = o->n_experts,
                       .rank = o->rank,
                       .n_modules = d->L * VKM_N_LINEARS,
                       .adam_v_per_tensor = o->adam_v_per_tensor,
                       .trains = o->trains,
                       .dev = dev};
    a->modules = vkm_calloc(a->n_modules, sizeof *a->modules, "the adapter", err);
    if (!a->modules) goto fail;
    vkm_plan *p = dry ? dry : vkm_plan_new(dev);
    for (uint32_t i = 0; i < a->n_modules; i++) {
        vkm_module *m = &a->modules[i];
        vkm_linear_dims(d, (vkm_linear_id)(i % VKM_N_LINEARS), &m->d_in, &m->d_out);
        plan_module(p, a, i);
    }
    *out = a;
    if (dry) return VKM_OK;
    if (vkm_plan_commit(p, &a->mem, err)) goto fail;
    for (uint32_t i = 0; i < 2 * a->n_modules; i++)
        if (write_init(a, o->seed, i / 2, (int)(i % 2), err)) goto fail;
    if (vkm_stream_new(dev, &s, err)) goto fail;
    vkm_adapter_refresh(s, a);
    if (vkm_stream_flush(s, err)) goto fail;
    vkm_stream_free(s);
    return VKM_OK;
fail:
    *out = NULL;
    vkm_stream_free(s);
    vkm_adapter_free(a);
    return err->status;
}

void vkm_adapter_free(vkm_adapter *a) {
    if (!a) return;
    vkm_mem_free(a->mem);
    free(a->modules);
    free(a);
}

/* Two fp32 matrices (E R, n) as stack number `place` of the n_stacks that an operand holds. */
static void pack_stack(vkm_stream *s, const vkm_adapter *a, vkm_tensor first, vkm_tensor second,
                       vkm_tensor y, uint32_t n, uint32_t place, uint32_t n_stacks) {
    uint32_t rows = n_stacks * vkm_lora_stack(a), pads = (uint32_t)vkm_round_up(rows, 16) - rows;
    VKM_OP(s, lora_pack, .p0 = first, .p1 = second, .y = y, .row0 = place * vkm_lora_stack(a),
           .n_experts = a->n_experts, .rank = a->rank, .n_cols = n,
           .n_pads = place + 1 == n_stacks ? pads : 0);
}

void vkm_adapter_refresh(vkm_stream *s, const vkm_adapter *a) {
    for (uint32_t i = 0; i < a->n_modules; i++) {
        const vkm_module *m = &a->modules[i];
        const vkm_lora_group *g = vkm_lora_group_of((vkm_linear_id)(i % VKM_N_LINEARS));
        uint32_t place = i % VKM_N_LINEARS - g->first;
        pack_stack(s, a, m->param[0], m->a0, (m - place)->down, m->d_in, place, g->n);
        VKM_OP(s, lora_pack_t, .p0 = m->b0, .p1 = m->param[1], .y = m->up, .n_cols = m->d_out,
               .n_experts = a->n_experts, .rank = a->rank);
        if (!a->trains) continue;
        pack_stack(s, a, m->b0, m->param[1], m->back, m->d_out, 0, 1);
        VKM_OP(s, lora_pack_t, .p0 = m->param[0], .p1 = m->a0, .y = m->back_x, .n_cols = m->d_in,
               .n_experts = a->n_experts, .rank = a->rank);
    }
}

const vkm_tensor *vkm_module_tensor(const vkm_module *m, vkm_adapter_state which, int factor) {
    const vkm_tensor *pairs[VKM_N_STATES] = {
        [VKM_STATE_PARAM] = m->param,           [VKM_STATE_ADAM_M] = m->adam_m,
        [VKM_STATE_ADAM_V] = m->adam_v,         [VKM_STATE_GRAD] = m->grad,
        [VKM_STATE_GROUP_GRAD] = m->group_grad,
    };
    return &pairs[which][factor];
}

void vkm_factor_name(uint32_t module, int factor, char out[96]) {
    snprintf(out, 96, "model.layers.%u.%s.%s", module / VKM_N_LINEARS,
             vkm_linear_names[module % VKM_N_LINEARS], factor ? "dB" : "dA");
}

uint64_t vkm_adapter_size(const vkm_adapter *a, vkm_adapter_state which) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < a->n_modules; i++)
        for (int f = 0; f < 2; f++) n += vkm_module_tensor(&a->modules[i], which, f)->n;
    return n;
}

vkm_status vkm_adapter_read(const vkm_adapter *a, vkm_adapter_state which, float *out,
                            vkm_err *err) {
    for (uint32_t i = 0; i < a->n_modules; i++) {
        for (int f = 0; f < 2; f++) {
            const vkm_tensor *t = vkm_module_tensor(&a->modules[i], which, f);
            if (vkm_read(a->dev, *t, out, err)) return err->status;
            out += t->n;
        }
    }
    return VKM_OK;
}

vkm_status vkm_adapter_write(vkm_adapter *a, vkm_adapter_state which, const float *in,
                             vkm_err *err) {
    for (uint32_t i = 0; i < a->n_modules; i++) {
        for (int f = 0; f < 2; f++) {
            const vkm_tensor *t = vkm_module_tensor(&a->modules[i], which, f);
            if (vkm_write(a->dev, *t, in, err)) return err->status;
            in += t->n;
        }
    }
    return which == VKM_STATE_PARAM ? vkm_adapter_follow(a, err) : VKM_OK;
}

vkm_status vkm_adapter_follow(vkm_adapter *a, vkm_err *err) {
    vkm_stream *s = NULL;
    if (vkm_stream_new(a->dev, &s, err)) return err->status;
    vkm_adapter_refresh(s, a);
    (void)!vkm_stream_flush(s, err);
    vkm_stream_free(s);
    return err->status;
}

void vkm_adapter_mask_rows(const vkm_adapter *a, float *params, const unsigned char *keep) {
    uint32_t rows = a->n_experts * a->rank;
    for (uint32_t i = 0; i < a->n_modules; i++) {
        for (int f = 0; f < 2; f++) {
            uint32_t cols = f ? a->modules[i].d_out : a->modules[i].d_in;
            for (uint32_t row = 0; row < rows; row++, params += cols)
                if (!keep[i * rows + row]) memset(params, 0, cols * sizeof *params);
        }
    }
}
