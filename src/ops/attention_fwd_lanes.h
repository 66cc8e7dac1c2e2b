/* The forward and decode blocks, for ops/lanes.h; included by attention.c only. */
#define vec LANES_FN(vec)

/* Which keys the lanes of a block see: lane i those up to limit[i]; every lane those before `open`.
 */
typedef struct LANES_FN(mask) {
    uint32_t limit[LANES], open;
} LANES_FN(mask);

/* Scales the scores of keys first .. first + ATTN_STEP - 1 and takes them into the maximum m. */
LANES_TARGET static inline void LANES_FN(scale_max)(vec *s, real scale, vec *m, uint32_t first,
                                                    const LANES_FN(mask) * see) {
    for (uint32_t u = 0; u < ATTN_STEP; u++) s[u] *= scale;
    if (first + ATTN_STEP <= see->open) {
        for (uint32_t u = 0; u < ATTN_STEP; u++) LANES_FN(raise)(m, &s[u]);
        return;
    }
    for (uint32_t u = 0; u < ATTN_STEP; u++) {
        vec seen = s[u];
        for (uint32_t i = 0; i < LANES; i++)
            seen[i] = first + u <= see->limit[i] ? seen[i] : -(real)INFINITY;
        LANES_FN(raise)(m, &seen);
    }
}

/* Scaled scores become weights over the maximum m, whose sums go to l. */
LANES_TARGET static inline void LANES_FN(weights)(vec *s, const vec *m, vec *l, uint32_t first,
                                                  const LANES_FN(mask) * see) {
    real *x = (real *)s, most[LANES];
    memcpy(most, m, sizeof most);
    for (uint32_t u = 0; u < ATTN_STEP; u++)
        for (uint32_t i = 0; i < LANES; i++)
            x[u * LANES + i] = vkm_exp_weight(x[u * LANES + i] - most[i]);
    for (uint32_t u = 0; u < ATTN_STEP && first + ATTN_STEP > see->open; u++)
        for (uint32_t i = 0; i < LANES; i++)
            x[u * LANES + i] = first + u <= see->limit[i] ? x[u * LANES + i] : 0;
    for (uint32_t u = 0; u < ATTN_STEP; u++) *l += s[u];
}

/* Queries first .. first + LANES - 1 of a sequence's own rows, one head, and the pads behind the
 * last of them. Keys are counted from the prefix's begin. */
LANES_TARGET static void LANES_FN(fwd_lanes)(const vkm_args_attn_fwd *a, attn_seq seq, uint32_t h,
                                             uint32_t first) {
    const uint32_t n_dims = a->head_dim, kvh = h / (a->n_heads / a->n_kv);
    const uint64_t q_row = (uint64_t)a->n_heads * n_dims, kv_row = (uint64_t)a->n_kv * n_dims;
    const bf16 *k = ref_bf16(a->k) + (uint64_t)kvh * n_dims;
    const bf16 *v = ref_bf16(a->v) + (uint64_t)kvh * n_dims;
    const uint32_t end = seq.prefix + attn_min(first + LANES, seq.len), last = end - 1;
    const real scale = (real)a->scale;
    vec q[ATTN_MAX_D], acc[ATTN_MAX_D], total[ATTN_MAX_D], kept[ATTN_KEEP];
    vec m = (vec){0} - (real)INFINITY, l = {0}, lc = {0};
    const int keeps = end <= ATTN_KEEP; /* else scores are made twice */
    real y[ATTN_STEP][ATTN_MAX_D];
    LANES_FN(mask) see = {.open = attn_min(seq.prefix + first, last) + 1};
    const bf16 *rows[LANES];

    for (uint32_t i = 0; i < LANES; i++) {
        see.limit[i] = attn_min(seq.prefix + first + i, last);
        rows[i] = ref_bf16(a->q) + attn_key_row(seq, see.limit[i]) * q_row + (uint64_t)h * n_dims;
    }
    LANES_FN(lanes_load)(q, rows, n_dims);
    for (uint32_t j = 0; j < end; j += ATTN_STEP) {
        vec *s = keeps ? kept + j : kept;
        LANES_FN(rows_load)(y, k, kv_row, seq, j, last, n_dims);
        LANES_FN(dots)(s, q, (attn_rows)y, n_dims);
        LANES_FN(scale_max)(s, scale, &m, j, &see);
    }
    for (uint32_t i = 0; i < LANES; i++) m[i] = canon(m[i]);
    for (uint32_t d = 0; d < n_dims; d++) total[d] = acc[d] = (vec){0};
    for (uint32_t j = 0; j < end; j += ATTN_STEP) {
        vec *s = keeps ? kept + j : kept, unused = m;
        if (!keeps) {
            LANES_FN(rows_load)(y, k, kv_row, seq, j, last, n_dims);
            LANES_FN(dots)(s, q, (attn_rows)y, n_dims);
            LANES_FN(scale_max)(s, scale, &unused, j, &see);
        }
        LANES_FN(weights)(s, &m, &lc, j, &see);
        LANES_FN(rows_load)(y, v, kv_row, seq, j, last, n_dims);
        LANES_FN(add_rows)(acc, s, (attn_rows)y, n_dims);
        if ((j + ATTN_STEP) % ATTN_CHUNK == 0 || j + ATTN_STEP >= end) {
            LANES_FN(fold)(total, acc, n_dims);
            l += lc;
            lc = (vec){0};
        }
    }

    const uint32_t kp = vkm_op_kp(a->n_heads * n_dims), c_end = (h + 1) * n_dims;
    const uint32_t pad_end = h + 1 == a->n_heads ? kp : c_end;
    const uint32_t live = attn_min(seq.len - first, LANES);
    const uint64_t row0 = seq.row0 + first, row_end = row0 + live;
    const int pads = first + live == seq.len && (!a->has_prefix || row_end == a->n_rows);
    bf16 *o = ref_bf16(a->o);
    for (uint32_t d = 0; d < n_dims; d++)
        for (uint32_t i = 0; i < LANES; i++) total[d][i] = vkm_div(total[d][i], l[i]);
    LANES_FN(words_store)(o, row0, h * n_dims, total, n_dims, live, kp);
    for (uint32_t i = 0; i < live; i++) {
        attn_pad(o, row0 + i, c_end, pad_end, kp);
        ref_f32(a->m)[(row0 + i) * a->n_heads + h] = m[i];
        ref_f32(a->l)[(row0 + i) * a->n_heads + h] = canon(l[i]);
    }
    for (uint64_t row = row_end; pads && row % ATTN_BLOCK; row++)
        attn_pad(o, row, h * n_dims, pad_end, kp);
}

LANES_TARGET static void LANES_FN(fwd_block)(const vkm_args_attn_fwd *a, attn_seq seq, uint32_t h,
                                             uint32_t first) {
    for (uint32_t i = 0; i < ATTN_BLOCK && first + i < seq.len; i += LANES)
        LANES_FN(fwd_lanes)(a, seq, h, first + i);
}

/* to[i] = x[i] for those of LANES numbers that are among the n, the first being number `first`. */
LANES_TARGET static inline void LANES_FN(some_store)(real *to, const real *x, uint32_t n,
                                                     uint32_t first) {
    if (first + LANES <= n) memcpy(to, x, LANES * sizeof *x);
    for (uint32_t i = 0; first + LANES > n && first + i < n; i++) to[i] = x[i];
}

/* Up to ATTN_HEADS query heads of one kv head, one row: scores with the lanes along keys, then the
 * weighted sum with the loop along dimensions. Missing heads repeat the last one. */
LANES_TARGET static void LANES_FN(decode_heads)(const vkm_args_attn_decode *a, decode_keys keys,
                                                uint64_t row, uint32_t h0, uint32_t n_heads) {
    const uint32_t n_dims = a->head_dim;
    enum {
        SIDE = 2
    }; /* blocks of keys at once: with the heads, as many sums as hide an addition */
    const bf16 *rows[LANES];
    real q[ATTN_HEADS][ATTN_MAX_D], y[ATTN_STEP][ATTN_MAX_D];
    real acc[ATTN_HEADS][ATTN_MAX_D], total[ATTN_HEADS][ATTN_MAX_D];
    real m[ATTN_HEADS], l[ATTN_HEADS], lc[ATTN_HEADS];
    real *scores[ATTN_HEADS];
    vec k[SIDE][ATTN_MAX_D], most[ATTN_HEADS];

    for (uint32_t g = 0; g < ATTN_HEADS; g++) {
        const uint64_t head = row * a->n_heads + h0 + attn_min(g, n_heads - 1);
        for (uint32_t d = 0; d < n_dims; d++) {
            q[g][d] = ldb(ref_bf16(a->q)[head * n_dims + d]);
            acc[g][d] = total[g][d] = 0;
        }
        scores[g] = ref_f32(a->scratch) + head * a->max_keys;
        m[g] = -(real)INFINITY;
        most[g] = (vec){0} - (real)INFINITY;
        l[g] = lc[g] = 0;
    }

    for (uint32_t j = 0; j < keys.n; j += SIDE * LANES) {
        for (uint32_t b = 0; b < SIDE; b++) {
            for (uint32_t i = 0; i < LANES; i++)
                rows[i] = decode_row(&keys, keys.k, attn_min(j + b * LANES + i, keys.n - 1));
            LANES_FN(lanes_load)(k[b], rows, n_dims);
        }
        vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, t0 = {0}, t1 = {0}, t2 = {0}, t3 = {0};
        for (uint32_t d = 0; d < n_dims; d++) {
            s0 = LANES_MADD(s0, k[0][d], q[0][d]);
            s1 = LANES_MADD(s1, k[0][d], q[1][d]);
            s2 = LANES_MADD(s2, k[0][d], q[2][d]);
            s3 = LANES_MADD(s3, k[0][d], q[3][d]);
            t0 = LANES_MADD(t0, k[1][d], q[0][d]);
            t1 = LANES_MADD(t1, k[1][d], q[1][d]);
            t2 = LANES_MADD(t2, k[1][d], q[2][d]);
            t3 = LANES_MADD(t3, k[1][d], q[3][d]);
        }
        vec s[ATTN_HEADS][SIDE] = {{s0, t0}, {s1, t1}, {s2, t2}, {s3, t3}};
        for (uint32_t g = 0; g < n_heads; g++)
            for (uint32_t b = 0; b < SIDE; b++) { /* a key that is repeated changes no maximum */
                real x[LANES];
                s[g][b] *= (real)a->scale;
                memcpy(x, &s[g][b], sizeof x);
                for (uint32_t i = 0; i < LANES; i++) x[i] = canon(x[i]);
                memcpy(&s[g][b], x, sizeof x);
                LANES_FN(raise)(&most[g], &s[g][b]);
                LANES_FN(some_store)(scores[g] + j + b * LANES, x, keys.n, j + b * LANES);
            }
    }
    for (uint32_t g = 0; g < n_heads; g++) {
        for (uint32_t i = 0; i < LANES; i++) m[g] = most[g][i] > m[g] ? most[g][i] : m[g];
        for (uint32_t j = 0; j < keys.n; j += LANES) {
            real x[LANES] = {0};
            memcpy(x, scores[g] + j, attn_min(keys.n - j, LANES) * sizeof *x);
            for (uint32_t i = 0; i < LANES; i++) x[i] = vkm_exp_weight(x[i] - m[g]);
            LANES_FN(some_store)(scores[g] + j, x, keys.n, j);
        }
    }

    for (uint32_t j = 0; j < keys.n; j += ATTN_STEP) {
        for (uint32_t u = 0; u < ATTN_STEP; u++) {
            LANES_FN(row_load)
            (y[u], decode_row(&keys, keys.v, attn_min(j + u, keys.n - 1)), n_dims);
        }
        for (uint32_t g = 0; g < n_heads; g++) {
            real p[ATTN_STEP];
            for (uint32_t u = 0; u < ATTN_STEP; u++) {
                p[u] = j + u < keys.n ? scores[g][j + u] : 0;
                lc[g] += p[u];
            }
            for (uint32_t d = 0; d < n_dims; d++) {
                real t = acc[g][d];
                for (uint32_t u = 0; u < ATTN_STEP; u++) t = LANES_MADD1(t, y[u][d], p[u]);
                acc[g][d] = t;
            }
        }
        if ((j + ATTN_STEP) % ATTN_CHUNK && j + ATTN_STEP < keys.n) continue;
        for (uint32_t g = 0; g < n_heads; g++) {
            l[g] += lc[g];
            lc[g] = 0;
            for (uint32_t d = 0; d < n_dims; d++) {
                total[g][d] += acc[g][d];
                acc[g][d] = 0;
            }
        }
    }

    const uint32_t kp = vkm_op_kp(a->n_heads * n_dims);
    bf16 *o = ref_bf16(a->o);
    for (uint32_t g = 0; g < n_heads; g++) {
        bf16 out[ATTN_MAX_D];
        for (uint32_t d = 0; d < n_dims; d++) out[d] = stb(vkm_div(total[g][d], l[g]));
        for (uint32_t d = 0; d < n_dims; d++)
            o[vkm_op_index(row, (h0 + g) * n_dims + d, kp)] = out[d];
    }
    if (h0 + n_heads == a->n_heads)
        for (uint32_t c = a->n_heads * n_dims; c < kp; c++) o[vkm_op_index(row, c, kp)] = 0;
}
#undef vec
