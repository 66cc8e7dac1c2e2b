/* Arithmetic over LANES rows at once, for ops/lanes.h: no guard, it is included once for each
 * instruction set. A "row" is head_dim bf16 elements; lane rows lie transposed, element d of all
 * lanes together. */
typedef real LANES_FN(vec) __attribute__((vector_size(LANES * sizeof(real))));
#define vec LANES_FN(vec)

/* m = x > m ? x : m */
LANES_TARGET static inline void LANES_FN(raise)(vec *m, const vec *x) {
#ifdef LANES_MAX
    *m = (vec)LANES_MAX(*x, *m);
#else
    for (uint32_t i = 0; i < LANES; i++) (*m)[i] = (*x)[i] > (*m)[i] ? (*x)[i] : (*m)[i];
#endif
}

/* x[d] = element d of LANES rows. */
LANES_TARGET static inline void LANES_FN(lanes_load)(vec *x, const bf16 *const *rows, uint32_t n) {
    uint32_t done = 0;
#ifdef LANES_TRANSPOSED
    for (; done + 16 <= n; done += 16) {
        uint32_t words[8][LANES];
        for (uint32_t i = 0; i < LANES; i += 8) {
            __m256i eight[8];
            for (uint32_t r = 0; r < 8; r++)
                eight[r] = _mm256_loadu_si256((const __m256i *)(const void *)(rows[i + r] + done));
            vkm_transpose8(eight, &words[0][i], LANES);
        }
        for (uint32_t w = 0; w < 8; w++) {
            real *even = (real *)&x[done + 2 * w], *odd = even + LANES;
            for (uint32_t i = 0; i < LANES; i++) {
                even[i] = ldb((bf16)(words[w][i] & 0xffff));
                odd[i] = ldb((bf16)(words[w][i] >> 16));
            }
        }
    }
#endif
    for (uint32_t i = 0; i < LANES; i++)
        for (uint32_t d = done; d < n; d++) x[d][i] = ldb(rows[i][d]);
}

/* Columns k .. k + n - 1, k and n even, of rows row .. row + live - 1 of an operand, live <= LANES,
 * become x rounded. */
LANES_TARGET static inline void LANES_FN(words_store)(bf16 *y, uint64_t row, uint32_t k,
                                                      const vec *x, uint32_t n, uint32_t live,
                                                      uint32_t kp) {
    const uint32_t room = ATTN_BLOCK - (uint32_t)(row % ATTN_BLOCK); /* in the first row's panel */
    const uint32_t here = live < room ? live : room;
    for (uint32_t d = 0; d < n; d += 2) {
        const real *even = (const real *)&x[d], *odd = even + LANES;
        bf16x2 words[LANES], *to = (bf16x2 *)(void *)(y + vkm_op_index(row, k + d, kp));
        bf16x2 *next = (bf16x2 *)(void *)(y + vkm_op_index(row + here, k + d, kp));
        for (uint32_t i = 0; i < LANES; i++) words[i] = stb2(even[i], odd[i]);
        if (here == LANES) {
            memcpy(to, words, sizeof words);
            continue;
        }
        for (uint32_t i = 0; i < here; i++) to[i] = words[i];
        for (uint32_t i = here; i < live; i++) next[i - here] = words[i];
    }
}

/* y = a row of n. */
LANES_TARGET static inline void LANES_FN(row_load)(real *restrict y, const bf16 *row, uint32_t n) {
    uint32_t d = 0;
#ifdef LANES_WIDEN
    for (; d + LANES <= n; d += LANES) LANES_WIDEN(&y[d], &row[d]);
#endif
    for (; d < n; d++) y[d] = ldb(row[d]);
}

/* y[u] = row first + u of a sequence, the last row repeated from `last` on; rows are `stride`
 * apart. */
LANES_TARGET static inline void LANES_FN(rows_load)(real (*restrict y)[ATTN_MAX_D],
                                                    const bf16 *rows, uint64_t stride, attn_seq seq,
                                                    uint32_t first, uint32_t last, uint32_t n) {
    for (uint32_t u = 0; u < ATTN_STEP; u++)
        LANES_FN(row_load)(y[u], rows + attn_key_row(seq, attn_min(first + u, last)) * stride, n);
}

/* s[u] = dot of each lane's row with y[u]. */
LANES_TARGET static inline void LANES_FN(dots)(vec *restrict s, const vec *restrict x, attn_rows y,
                                               uint32_t n) {
    vec s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0};
    for (uint32_t d = 0; d < n; d++) {
        s0 = LANES_MADD(s0, x[d], y[0][d]);
        s1 = LANES_MADD(s1, x[d], y[1][d]);
        s2 = LANES_MADD(s2, x[d], y[2][d]);
        s3 = LANES_MADD(s3, x[d], y[3][d]);
        s4 = LANES_MADD(s4, x[d], y[4][d]);
        s5 = LANES_MADD(s5, x[d], y[5][d]);
        s6 = LANES_MADD(s6, x[d], y[6][d]);
        s7 = LANES_MADD(s7, x[d], y[7][d]);
    }
    s[0] = s0, s[1] = s1, s[2] = s2, s[3] = s3, s[4] = s4, s[5] = s5, s[6] = s6, s[7] = s7;
}

/* acc[d] += p[u] * y[u][d] for u ascending. */
LANES_TARGET static inline void LANES_FN(add_rows)(vec *restrict acc, const vec *restrict p,
                                                   attn_rows y, uint32_t n) {
    const vec p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3], p4 = p[4], p5 = p[5], p6 = p[6],
              p7 = p[7];
    for (uint32_t d = 0; d < n; d++) {
        vec t = acc[d];
        t = LANES_MADD(t, p0, y[0][d]);
        t = LANES_MADD(t, p1, y[1][d]);
        t = LANES_MADD(t, p2, y[2][d]);
        t = LANES_MADD(t, p3, y[3][d]);
        t = LANES_MADD(t, p4, y[4][d]);
        t = LANES_MADD(t, p5, y[5][d]);
        t = LANES_MADD(t, p6, y[6][d]);
        t = LANES_MADD(t, p7, y[7][d]);
        acc[d] = t;
    }
}

/* total += acc, acc = 0 */
LANES_TARGET static inline void LANES_FN(fold)(vec *restrict total, vec *restrict acc, uint32_t n) {
    for (uint32_t d = 0; d < n; d++) {
        total[d] += acc[d];
        acc[d] = (vec){0};
    }
}
_Static_assert(ATTN_STEP == 8, "dots and add_rows are written out for eight rows");
#undef vec
