/* The backward blocks, for ops/lanes.h; included by attention_bwd.c only. */
#define vec LANES_FN(vec)

/* x[d] = columns k + d, d < n even, of rows row .. row + LANES - 1 of an operand. */
LANES_TARGET static inline void LANES_FN(panel_load)(vec *x, const bf16 *o, uint64_t row,
                                                     uint32_t k, uint32_t n, uint32_t kp) {
    for (uint32_t d = 0; d < n; d += 2) {
        bf16x2 words[LANES];
        memcpy(words, o + vkm_op_index(row, k + d, kp), sizeof words);
        for (uint32_t i = 0; i < LANES; i++) {
            x[d][i] = ldb_lo(words[i]);
            x[d + 1][i] = ldb_hi(words[i]);
        }
    }
}

/* Rows row0 .. row0 + ATTN_BLOCK - 1, one head: rule 5 of dO * o, the 64 partial sums as lanes'
 * rows. */
LANES_TARGET static void LANES_FN(dr_block)(const vkm_args_attn_dr *a, uint32_t row0, uint32_t h) {
    const uint32_t n_dims = a->head_dim, kp = vkm_op_kp(a->n_heads * n_dims);
    vec o[ATTN_MAX_D], go[ATTN_MAX_D], sum[64];
    for (uint32_t row = row0; row < row0 + ATTN_BLOCK && row < a->n_rows; row += LANES) {
        const bf16 *rows[LANES];
        for (uint32_t i = 0; i < LANES; i++)
            rows[i] = ref_bf16(a->do_) +
                      ((uint64_t)attn_min(row + i, a->n_rows - 1) * a->n_heads + h) * n_dims;
        LANES_FN(lanes_load)(go, rows, n_dims);
        LANES_FN(panel_load)(o, ref_bf16(a->o), row, h * n_dims, n_dims, kp);
        for (uint32_t l = 0; l < 64; l++) sum[l] = (vec){0};
        for (uint32_t d = 0; d < n_dims; d++) sum[d % 64] += go[d] * o[d]; /* exact products */
        for (uint32_t half = 32; half > 0; half /= 2)
            for (uint32_t l = 0; l < half; l++) sum[l] += sum[l + half];
        for (uint32_t i = 0; i < LANES && row + i < a->n_rows; i++)
            ref_f32(a->dr)[(uint64_t)(row + i) * a->n_heads + h] = canon(sum[0][i]);
    }
}

/* Queries first .. first + LANES - 1 of a sequence, one head. */
LANES_TARGET static void LANES_FN(dq_lanes)(const vkm_args_attn_bwd_dq *a, attn_seq seq, uint32_t h,
                                            uint32_t first) {
    const uint32_t n_dims = a->head_dim, kvh = h / (a->n_heads / a->n_kv);
    const uint64_t kv_row = (uint64_t)a->n_kv * n_dims;
    const bf16 *k = ref_bf16(a->k) + (uint64_t)kvh * n_dims;
    const bf16 *v = ref_bf16(a->v) + (uint64_t)kvh * n_dims;
    const uint32_t end = attn_min(first + LANES, seq.len), last = end - 1;
    vec q[ATTN_MAX_D], go[ATTN_MAX_D], acc[ATTN_MAX_D], total[ATTN_MAX_D];
    vec s[ATTN_STEP], dp[ATTN_STEP];
    real y[ATTN_STEP][ATTN_MAX_D], z[ATTN_STEP][ATTN_MAX_D], m[LANES], l[LANES], dr[LANES];
    uint32_t limit[LANES];
    const bf16 *q_rows[LANES], *go_rows[LANES];

    for (uint32_t i = 0; i < LANES; i++) {
        limit[i] = attn_min(first + i, last);
        const uint64_t stat = (seq.row0 + limit[i]) * a->n_heads + h;
        q_rows[i] = ref_bf16(a->q) + stat * n_dims;
        go_rows[i] = ref_bf16(a->do_) + stat * n_dims;
        m[i] = ref_f32(a->m)[stat];
        l[i] = ref_f32(a->l)[stat];
        dr[i] = ref_f32(a->dr)[stat];
    }
    LANES_FN(lanes_load)(q, q_rows, n_dims);
    LANES_FN(lanes_load)(go, go_rows, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) total[d] = acc[d] = (vec){0};
    for (uint32_t j = 0; j < end; j += ATTN_STEP) {
        LANES_FN(rows_load)(y, k, kv_row, seq, j, last, n_dims);
        LANES_FN(rows_load)(z, v, kv_row, seq, j, last, n_dims);
        LANES_FN(dots)(s, q, (attn_rows)y, n_dims);
        LANES_FN(dots)(dp, go, (attn_rows)z, n_dims);
        real *x = (real *)s, *g = (real *)dp;
        for (uint32_t u = 0; u < ATTN_STEP; u++)
            for (uint32_t i = 0; i < LANES; i++) {
                const uint32_t at = u * LANES + i;
                real p = weight(x[at] * (real)a->scale, m[i], l[i]);
                real ds = ldb(stb(p * (g[at] - dr[i])));
                x[at] = j + u <= limit[i] ? ds : 0;
            }
        LANES_FN(add_rows)(acc, s, (attn_rows)y, n_dims);
        if ((j + ATTN_STEP) % ATTN_CHUNK == 0 || j + ATTN_STEP >= end)
            LANES_FN(fold)(total, acc, n_dims);
    }
    real *dq = ref_f32(a->dq);
    for (uint32_t i = 0; i < LANES && first + i < seq.len; i++) {
        const uint64_t at = ((seq.row0 + first + i) * a->n_heads + h) * n_dims;
        for (uint32_t d = 0; d < n_dims; d++) dq[at + d] = canon(total[d][i] * (real)a->scale);
    }
}

LANES_TARGET static void LANES_FN(dq_block)(const vkm_args_attn_bwd_dq *a, attn_seq seq, uint32_t h,
                                            uint32_t first) {
    for (uint32_t i = 0; i < ATTN_BLOCK && first + i < seq.len; i += LANES)
        LANES_FN(dq_lanes)(a, seq, h, first + i);
}

/* Sums of dK (or dV) by chunk of queries, by head, over the heads of the group. */
typedef struct LANES_FN(sums) {
    vec chunk[ATTN_MAX_D], head[ATTN_MAX_D], group[ATTN_MAX_D];
} LANES_FN(sums);

/* The head's sum, times scale, goes into the group's. */
LANES_TARGET static inline void LANES_FN(head_done)(LANES_FN(sums) * x, real scale, uint32_t n) {
    for (uint32_t d = 0; d < n; d++) {
        real *head = (real *)&x->head[d], *group = (real *)&x->group[d];
        for (uint32_t i = 0; i < LANES; i++) {
            group[i] += canon(head[i] * scale);
            head[i] = 0;
        }
    }
}

/* Keys first .. first + LANES - 1 of a sequence, one kv head. */
LANES_TARGET static void LANES_FN(dkv_lanes)(const vkm_args_attn_bwd_dkv *a, attn_seq seq,
                                             uint32_t kvh, uint32_t first) {
    const uint32_t n_dims = a->head_dim, group = a->n_heads / a->n_kv, last = seq.len - 1;
    const uint64_t q_row = (uint64_t)a->n_heads * n_dims;
    vec k[ATTN_MAX_D], v[ATTN_MAX_D], s[ATTN_STEP], dp[ATTN_STEP];
    LANES_FN(sums) dk, dv;
    real y[ATTN_STEP][ATTN_MAX_D], z[ATTN_STEP][ATTN_MAX_D];
    uint32_t key[LANES];
    const bf16 *k_rows[LANES], *v_rows[LANES];

    for (uint32_t i = 0; i < LANES; i++) {
        key[i] = attn_min(first + i, last);
        const uint64_t at = ((seq.row0 + key[i]) * a->n_kv + kvh) * n_dims;
        k_rows[i] = ref_bf16(a->k) + at;
        v_rows[i] = ref_bf16(a->v) + at;
    }
    LANES_FN(lanes_load)(k, k_rows, n_dims);
    LANES_FN(lanes_load)(v, v_rows, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        dk.chunk[d] = dk.head[d] = dk.group[d] = (vec){0};
        dv.chunk[d] = dv.head[d] = dv.group[d] = (vec){0};
    }
    for (uint32_t h = kvh * group; h < (kvh + 1) * group; h++) {
        const bf16 *q = ref_bf16(a->q) + (uint64_t)h * n_dims;
        const bf16 *go = ref_bf16(a->do_) + (uint64_t)h * n_dims;
        for (uint32_t t = first / ATTN_STEP * ATTN_STEP; t < seq.len; t += ATTN_STEP) {
            LANES_FN(rows_load)(y, q, q_row, seq, t, last, n_dims);
            LANES_FN(rows_load)(z, go, q_row, seq, t, last, n_dims);
            LANES_FN(dots)(s, k, (attn_rows)y, n_dims);
            LANES_FN(dots)(dp, v, (attn_rows)z, n_dims);
            real *x = (real *)s, *g = (real *)dp;
            for (uint32_t u = 0; u < ATTN_STEP; u++) {
                const uint64_t stat = (seq.row0 + attn_min(t + u, last)) * a->n_heads + h;
                const real m = ref_f32(a->m)[stat], l = ref_f32(a->l)[stat];
                const real dr = ref_f32(a->dr)[stat];
                for (uint32_t i = 0; i < LANES; i++) {
                    const uint32_t at = u * LANES + i;
                    const int seen = t + u >= key[i] && t + u <= last;
                    real p = weight(x[at] * (real)a->scale, m, l);
                    real ds = ldb(stb(p * (g[at] - dr)));
                    x[at] = seen ? ldb(stb(p)) : 0;
                    g[at] = seen ? ds : 0;
                }
            }
            LANES_FN(add_rows)(dk.chunk, dp, (attn_rows)y, n_dims);
            LANES_FN(add_rows)(dv.chunk, s, (attn_rows)z, n_dims);
            if ((t + ATTN_STEP) % ATTN_CHUNK && t + ATTN_STEP < seq.len) continue;
            LANES_FN(fold)(dk.head, dk.chunk, n_dims);
            LANES_FN(fold)(dv.head, dv.chunk, n_dims);
        }
        LANES_FN(head_done)(&dk, (real)a->scale, n_dims);
        LANES_FN(head_done)(&dv, 1, n_dims);
    }

    const uint32_t kp = vkm_op_kp(a->n_kv * n_dims), c_end = (kvh + 1) * n_dims;
    const uint32_t pad_end = kvh + 1 == a->n_kv ? kp : c_end;
    bf16 *out = ref_bf16(a->dv);
    const uint32_t live = attn_min(seq.len - first, LANES);
    const uint64_t row0 = seq.row0 + first, row_end = row0 + live;
    LANES_FN(words_store)(out, row0, kvh * n_dims, dv.group, n_dims, live, kp);
    for (uint32_t i = 0; i < live; i++) {
        attn_pad(out, row0 + i, c_end, pad_end, kp);
        real *to = ref_f32(a->dk) + ((row0 + i) * a->n_kv + kvh) * n_dims;
        for (uint32_t d = 0; d < n_dims; d++) to[d] = canon(dk.group[d][i]);
    }
    for (uint64_t row = row_end; first + live == seq.len && row % ATTN_BLOCK; row++)
        attn_pad(out, row, kvh * n_dims, pad_end, kp);
}

LANES_TARGET static void LANES_FN(dkv_block)(const vkm_args_attn_bwd_dkv *a, attn_seq seq,
                                             uint32_t kvh, uint32_t first) {
    for (uint32_t i = 0; i < ATTN_BLOCK && first + i < seq.len; i += LANES)
        LANES_FN(dkv_lanes)(a, seq, kvh, first + i);
}
#undef vec
