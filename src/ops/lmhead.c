/* The output side of the model: log-sum-exp over the vocabulary, the log-probability of a token,
 * entropy, and the gradient of the logits. Sampling is in sample.c.
 * The vocabulary is cut in blocks of 256: m_b is the exact maximum of a block, l_b and s_b are
 * sequential sums in it, and blocks add up in ascending order, so the same bits come out however
 * the work is spread. */
#include "ops/twin.h"
#include "ops/guarded.h"
#include "ops/oprow.h"
#include "ops/lmhead.h"

#ifndef VKM_TWIN64
/* On a GPU 64 lanes share the lines of memory that they load, or a row: on_gpu invocations in all;
 * one of a CPU driver works by itself. `share` is the shaders' constant. */
static vkm_launch launch_shared(vkm_stream *s, uint64_t units, uint64_t on_gpu, uint32_t share,
                                double work) {
    if (vkm_dev_class_of(vkm_stream_dev(s)) != VKM_CLASS_GPU)
        return vkm_launch_flat(units, 8, work);
    vkm_launch how = vkm_launch_flat(on_gpu, 64, work);
    how.spec[1] = share;
    return how;
}

void vkm_op_lse_block(vkm_stream *s, const vkm_args_lse_block *a) {
    vkm_args_lse_block b = *a;
    uint64_t n = a->n_rows, nb = vkm_n_blocks(a->n_vocab);
    b.logits = vkm_need(a->logits, n * a->n_vocab, "lse_block", "logits");
    b.mb = vkm_need(a->mb, n * nb, "lse_block", "mb");
    b.lb = vkm_need(a->lb, n * nb, "lse_block", "lb");
    b.sb = vkm_need(a->sb, n * nb, "lse_block", "sb");
    vkm_stream_launch(
        s, &vkm_kernels[VKM_K_lse_block], &b,
        launch_shared(s, n * nb, n * vkm_round_up(nb, 64), 1, 40.0 * (double)n * a->n_vocab));
}

void vkm_op_lse_combine(vkm_stream *s, const vkm_args_lse_combine *a) {
    vkm_args_lse_combine b = *a;
    uint64_t n = a->n_rows, nb = vkm_n_blocks(a->n_vocab);
    b.logits = vkm_need(a->logits, n * a->n_vocab, "lse_combine", "logits");
    b.mb = vkm_need(a->mb, n * nb, "lse_combine", "mb");
    b.lb = vkm_need(a->lb, n * nb, "lse_combine", "lb");
    b.sb = vkm_need(a->sb, n * nb, "lse_combine", "sb");
    b.targets = vkm_need(a->targets, n, "lse_combine", "targets");
    b.m = vkm_need(a->m, n, "lse_combine", "m");
    b.l = vkm_need(a->l, n, "lse_combine", "l");
    b.logp = vkm_need(a->logp, n, "lse_combine", "logp");
    b.entropy = vkm_need(a->entropy, n, "lse_combine", "entropy");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_lse_combine], &b,
                      launch_shared(s, n, n * 64, 64, 60.0 * (double)(n * nb) + 100.0 * (double)n));
}

void vkm_op_logits_bwd(vkm_stream *s, const vkm_args_logits_bwd *a) {
    vkm_args_logits_bwd b = *a;
    uint64_t n = a->n_rows, size = vkm_op_size(n, a->n_vocab);
    b.logits = vkm_need(a->logits, n * a->n_vocab, "logits_bwd", "logits");
    b.targets = vkm_need(a->targets, n, "logits_bwd", "targets");
    b.m = vkm_need(a->m, n, "logits_bwd", "m");
    b.l = vkm_need(a->l, n, "logits_bwd", "l");
    b.coef = vkm_need(a->coef, n, "logits_bwd", "coef");
    b.d = vkm_need(a->d, size, "logits_bwd", "d");
    vkm_launch how = vkm_launch_flat(size / 8, 64, 40.0 * (double)size);
    how.spec[1] = b.logits.addr % 16 == 0 && a->n_vocab % 4 == 0; /* FOURS */
    vkm_stream_launch(s, &vkm_kernels[VKM_K_logits_bwd], &b, how);
}

void vkm_op_decode_begin(vkm_stream *s, const vkm_args_decode_begin *a) {
    vkm_args_decode_begin b = *a;
    b.state = vkm_need(a->state, 8ull * a->n_rows, "decode_begin", "state");
    b.tokens = vkm_need(a->tokens, a->n_rows, "decode_begin", "tokens");
    b.pos = vkm_need(a->pos, a->n_rows, "decode_begin", "pos");
    b.rows = vkm_need(a->rows, a->n_rows, "decode_begin", "rows");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_decode_begin], &b,
                      vkm_launch_flat(a->n_rows, 64, 60.0 * a->n_rows));
}
#endif

/* The largest of x (n), as a walk that takes whatever is larger finds it: lanes begin at x[0]. */
static inline real largest(const real *x, uint32_t n) {
    enum { LANES = 16 };
    real m[LANES];
    uint32_t j = 0;
    for (uint32_t k = 0; k < LANES; k++) m[k] = x[0];
    for (; j + LANES <= n; j += LANES) {
        const real *from = x + j;
        for (uint32_t k = 0; k < LANES; k++) m[k] = from[k] > m[k] ? from[k] : m[k];
    }
    for (; j < n; j++) m[0] = x[j] > m[0] ? x[j] : m[0];
    for (uint32_t k = 1; k < LANES; k++) m[0] = m[k] > m[0] ? m[k] : m[0];
    return m[0];
}

/* A block's sums are sequential, so SIDE blocks go side by side: one lane each. */
VKM_REF(lse_block) {
    enum { SIDE = 16, STEP = 64 };
    const real *x = ref_f32(a->logits); // (n,V)
    uint32_t nb = vkm_n_blocks(a->n_vocab);
    uint64_t n_blocks = (uint64_t)a->n_rows * nb;
    FOR_PART(g, (n_blocks + SIDE - 1) / SIDE) {
        const real *row[SIDE] = {NULL};
        uint32_t n[SIDE] = {0};
        real m[SIDE] = {0}, l[SIDE] = {0}, s[SIDE] = {0};
        uint32_t side = n_blocks - g * SIDE < SIDE ? (uint32_t)(n_blocks - g * SIDE) : SIDE;
        for (uint32_t k = 0; k < side; k++) {
            uint64_t i = g * SIDE + k;
            uint32_t j0 = (uint32_t)(i % nb) * VKM_VOCAB_BLOCK;
            n[k] = a->n_vocab - j0 < VKM_VOCAB_BLOCK ? a->n_vocab - j0 : VKM_VOCAB_BLOCK;
            row[k] = x + i / nb * a->n_vocab + j0;
            m[k] = largest(row[k], n[k]);
        }
        for (uint32_t j0 = 0; j0 < VKM_VOCAB_BLOCK; j0 += STEP) {
            real e[STEP][SIDE], ed[STEP][SIDE];
            for (uint32_t k = 0; k < SIDE; k++) {
                uint32_t most = n[k] < j0 ? 0 : n[k] - j0 < STEP ? n[k] - j0 : STEP;
                real t[STEP] = {0}, td[STEP] = {0};
                const real *from = row[k] + j0;
                for (uint32_t j = 0; j < most; j++) {
                    real d = subc(from[j], m[k]);
                    t[j] = vkm_exp(d);
                    td[j] = t[j] == 0 ? 0 : mulc(t[j], d); /* d may be -Inf there */
                }
                for (uint32_t j = 0; j < STEP; j++) e[j][k] = t[j], ed[j][k] = td[j];
            }
            for (uint32_t j = 0; j < STEP; j++)
                for (uint32_t k = 0; k < SIDE; k++) {
                    l[k] = l[k] + e[j][k];
                    s[k] = s[k] + ed[j][k];
                }
        }
        for (uint32_t k = 0; k < side; k++) {
            ref_f32(a->mb)[g * SIDE + k] = canon(m[k]);
            ref_f32(a->lb)[g * SIDE + k] = canon(l[k]);
            ref_f32(a->sb)[g * SIDE + k] = canon(s[k]);
        }
    }
}

VKM_REF(lse_combine) {
    uint32_t nb = vkm_n_blocks(a->n_vocab);
    FOR_PART(i, a->n_rows) {
        const real *mb = ref_f32(a->mb) + i * nb, *lb = ref_f32(a->lb) + i * nb;
        const real *sb = ref_f32(a->sb) + i * nb; // (n,nb) each
        real m = mb[0], l = 0, sum = 0;
        for (uint32_t b = 1; b < nb; b++) m = mb[b] > m ? mb[b] : m;
        for (uint32_t b = 0; b < nb; b++) {
            real d = subc(mb[b], m), t = vkm_exp(d);
            if (t == 0) continue;
            real part = addc(sb[b], mulc(lb[b], d));
            l = l + mulc(lb[b], t);
            sum = sum + mulc(t, part);
        }
        uint32_t target = ref_u32(a->targets)[i];
        if (target >= a->n_vocab) target = a->n_vocab - 1;
        real log_l = vkm_log(l);
        ref_f32(a->m)[i] = canon(m);
        ref_f32(a->l)[i] = canon(l);
        ref_f32(a->logp)[i] = subc(subc(ref_f32(a->logits)[i * a->n_vocab + target], m), log_l);
        ref_f32(a->entropy)[i] = canon(log_l - vkm_div(sum, l));
    }
}

VKM_REF(logits_bwd) {
    const real *x = ref_f32(a->logits); // (n,V)
    bf16 *d = ref_bf16(a->d);           // operand (n,V)
    uint32_t kp = vkm_op_kp(a->n_vocab);
    uint32_t panels = vkm_div_up(a->n_rows, VKM_OP_ROWS);
    uint32_t chunks = vkm_div_up(a->n_vocab, VKM_ROW_CHUNK);
    FOR_PART(at, (uint64_t)panels * chunks) {
        uint64_t row = at / chunks * VKM_OP_ROWS;
        uint32_t live = vkm_op_rows_live(row, a->n_rows),
                 j0 = (uint32_t)(at % chunks) * VKM_ROW_CHUNK;
        uint32_t n = a->n_vocab - j0 < VKM_ROW_CHUNK ? a->n_vocab - j0 : VKM_ROW_CHUNK;
        vkm_op_rows g;
        for (uint32_t r = 0; r < live; r++) {
            uint64_t i = row + r;
            real m = ref_f32(a->m)[i], coef = ref_f32(a->coef)[i];
            real scale = vkm_div(1, ref_f32(a->l)[i]);
            uint32_t target = ref_u32(a->targets)[i];
            if (target >= a->n_vocab) target = a->n_vocab - 1;
            const real *from = x + i * a->n_vocab + j0;
            for (uint32_t j = 0; j < n; j++) {
                real p = mulc(vkm_exp(subc(from[j], m)), scale);
                g[r][j] = coef * ((j0 + j == target ? (real)1 : (real)0) - p);
            }
        }
        vkm_op_rows_store(d, row, j0, g, live, n, kp);
        if (j0 + n == a->n_vocab) vkm_op_rows_end(d, row, a->n_vocab, kp);
    }
}

VKM_REF(decode_begin) {
    FOR_PART(i, a->n_rows) {
        const uint32_t *state = ref_u32(a->state) + 8 * i;
        ref_u32(a->tokens)[i] = state[VKM_ROW_TOKEN];
        ref_u32(a->pos)[i] = state[VKM_ROW_PROMPT_LEN] + state[VKM_ROW_N_OWN] - 1;
        ref_u32(a->rows)[i] = state[VKM_ROW_OWN0] + state[VKM_ROW_N_OWN] - 1;
    }
}
