#include "ops/lmhead.h"
#include "verify/verify.h"

static const uint32_t vocabs[] = {1, 63, 64, 65, 127, 256, 257, 512, 4099};

VKM_CASES(lse_block) {
    for (size_t i = 0; i < VKM_COUNTOF(vocabs); i++) FOR_SIZES(n_rows, 1, 17) {
            uint32_t n = vocabs[i], nb = vkm_n_blocks(n);
            vkm_args_lse_block a = {.n_rows = n_rows, .n_vocab = n};
            a.logits = vkm_v_f32(v, (uint64_t)n_rows * n, i % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
            a.mb = vkm_v_f32_out(v, (uint64_t)n_rows * nb);
            a.lb = vkm_v_f32_out(v, (uint64_t)n_rows * nb);
            a.sb = vkm_v_f32_out(v, (uint64_t)n_rows * nb);
            VKM_V_RUN(v, lse_block, &a);
        }
}

/* Block results as lse_block would give them. */
static void block_results(vkm_verify *v, uint64_t n, vkm_fill fill, vkm_tensor *mb, vkm_tensor *lb,
                          vkm_tensor *sb) {
    *mb = vkm_v_f32(v, n, fill);
    *lb = vkm_v_f32(v, n, VKM_FILL_POSITIVE);
    *sb = vkm_v_f32(v, n, VKM_FILL_POSITIVE);
    float *l = (float *)(uintptr_t)lb->addr, *s = (float *)(uintptr_t)sb->addr;
    for (uint64_t i = 0; i < n; i++) {
        l[i] = 1 + 255 * l[i];
        s[i] = -10 * s[i];
    }
}

VKM_CASES(lse_combine) {
    for (size_t i = 0; i < VKM_COUNTOF(vocabs); i++) FOR_SIZES(n_rows, 1, 65) {
            uint32_t n = vocabs[i];
            vkm_args_lse_combine a = {.n_rows = n_rows, .n_vocab = n};
            a.logits = vkm_v_f32(v, (uint64_t)n_rows * n, VKM_FILL_NORMAL);
            block_results(v, (uint64_t)n_rows * vkm_n_blocks(n),
                          i % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL, &a.mb, &a.lb, &a.sb);
            a.targets = vkm_v_u32(v, n_rows, n + 3); /* some past the end */
            a.m = vkm_v_f32_out(v, n_rows);
            a.l = vkm_v_f32_out(v, n_rows);
            a.logp = vkm_v_f32_out(v, n_rows);
            a.entropy = vkm_v_f32_out(v, n_rows);
            VKM_V_RUN(v, lse_combine, &a);
        }
}

VKM_CASES(logits_bwd) {
    for (size_t i = 0; i < VKM_COUNTOF(vocabs); i++) FOR_SIZES(n_rows, 1, 16, 33) {
            uint32_t n = vocabs[i];
            vkm_args_logits_bwd a = {.n_rows = n_rows, .n_vocab = n};
            a.logits = vkm_v_f32(v, (uint64_t)n_rows * n, VKM_FILL_NORMAL);
            a.targets = vkm_v_u32(v, n_rows, n + 3);
            a.m = vkm_v_f32(v, n_rows, VKM_FILL_POSITIVE);
            a.l = vkm_v_f32(v, n_rows, VKM_FILL_POSITIVE);
            a.coef = vkm_v_f32(v, n_rows, i % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
            a.d = vkm_v_op16_out(v, n_rows, n);
            VKM_V_RUN(v, logits_bwd, &a);
        }
}

VKM_CASES(decode_begin) {
    FOR_SIZES(n_rows, 1, 63, 64, 65, 127) {
        vkm_args_decode_begin a = {.n_rows = n_rows};
        a.state = vkm_v_u32(v, n_rows * VKM_ROW_WORDS, 1000);
        a.tokens = vkm_v_u32_out(v, n_rows);
        a.pos = vkm_v_u32_out(v, n_rows);
        a.rows = vkm_v_u32_out(v, n_rows);
        VKM_V_RUN(v, decode_begin, &a);
    }
}

/* Logits of many shapes: plain, few distinct values (ties), peaked, all equal. */
static vkm_tensor sample_logits(vkm_verify *v, uint64_t n, uint32_t shape) {
    vkm_tensor t = vkm_v_f32(v, n, VKM_FILL_NORMAL);
    float *x = (float *)(uintptr_t)t.addr;
    for (uint64_t i = 0; i < n; i++)
        x[i] = shape == 0   ? x[i]
               : shape == 1 ? (float)(int)(x[i] * 2) + 1.5f
               : shape == 2 ? x[i] * 8 - 100
                            : 0.25f;
    return t;
}

static void sample_case(vkm_verify *v, uint32_t n_vocab, uint32_t shape, const vkm_sampling *p) {
    enum { ROWS = 19, MAX_NEW = 6 };
    static const uint32_t eos[] = {2, 1, 3};
    uint32_t state[ROWS * VKM_ROW_WORDS], words[VKM_SAMPLE_WORDS], nb = vkm_n_blocks(n_vocab);
    vkm_err err = {0};
    if (vkm_sampling_words(p, 0x123456789abcull, 7, 0, words, &err)) VKM_BUG_ON(1, "%s", err.msg);
    for (uint32_t r = 0; r < ROWS; r++) {
        uint32_t row[VKM_ROW_WORDS] = {0, 5, 0, r % MAX_NEW, 9, r % 7 == 3, ROWS - 1 - r, 0};
        for (uint32_t j = 0; j < VKM_ROW_WORDS; j++) state[r * VKM_ROW_WORDS + j] = row[j];
    }
    vkm_args_sample a = {.n_rows = ROWS, .n_vocab = n_vocab, .max_new = MAX_NEW};
    a.logits = sample_logits(v, (uint64_t)ROWS * n_vocab, shape);
    vkm_tensor sb;
    block_results(v, (uint64_t)ROWS * nb, VKM_FILL_NORMAL, &a.mb, &a.lb, &sb);
    const float *x = (const float *)(uintptr_t)a.logits.addr;
    float *mb = (float *)(uintptr_t)a.mb.addr;
    for (uint64_t i = 0; i < (uint64_t)ROWS * nb; i++) {
        uint64_t row = i / nb, j0 = i % nb * VKM_VOCAB_BLOCK;
        mb[i] = x[row * n_vocab + j0];
        for (uint64_t j = j0; j < n_vocab && j < j0 + VKM_VOCAB_BLOCK; j++)
            if (x[row * n_vocab + j] > mb[i]) mb[i] = x[row * n_vocab + j];
    }
    a.params = vkm_v_u32_data(v, words, VKM_SAMPLE_WORDS);
    a.eos = vkm_v_u32_data(v, eos, VKM_COUNTOF(eos));
    a.state = vkm_v_u32_data(v, state, ROWS * VKM_ROW_WORDS);
    a.tokens = vkm_v_u32_out(v, ROWS * MAX_NEW);
    a.logp = vkm_v_f32_out(v, ROWS * MAX_NEW);
    VKM_V_RUN(v, sample, &a);
}

VKM_CASES(sample) {
    static const vkm_sampling rows[] = {
        {0, 0, 1, 0},     {1, 0, 1, 0},      {0.6, 20, 0.95, 0}, {1, 0, 0.9, 0},
        {1, 0, 0.01, 0},  {1.5, 5, 1, 0.05}, {0.7, 300, 0.8, 0}, {1, 300, 1, 0},
        {2, 0, 0.999, 0}, {1, 0, 1, 0.2},    {0.01, 40, 1, 0},
    };
    FOR_SIZES(n_vocab, 1, 63, 65, 127, 257, 512, 1031)
    for (uint32_t i = 0; i < VKM_COUNTOF(rows); i++)
        sample_case(v, n_vocab, (i + i_n_vocab) % 4, &rows[i]);
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) sample_case(v, 20011, 0, &rows[i]);
}
