/* The adapter's small kernels: what stands between its products, and reductions over sequences.
 * A product with a stack of E r rows above another has two sums a row and rank index: the columns
 * t[i] and t[E r + i].
 * Per expert e of rank r an operand of the adapter holds kper = 2 * round_up(r, 4) columns: a first
 * part of r, zeros, a second part of r, zeros. y += f (B0 u + dB h) with u = dA x, h = A0 x + u. */
#include "ops/oprow.h"

enum { PADDING = 0xffffffffu };

static uint32_t half_of(uint32_t rank) {
    return (uint32_t)vkm_round_up(rank, 4);
}

/* Column (expert, part, j) of an adapter operand; valid: j < rank. */
typedef struct column {
    uint32_t expert, part, j;
} column;

static column column_at(uint32_t k, uint32_t rank) {
    uint32_t half = half_of(rank), in = k % (2 * half);
    return (column){k / (2 * half), in / half, in % half};
}

/* ---- wrappers ----------------------------------------------------------------------------------
 */
#ifndef VKM_TWIN64

void vkm_op_lora_mid_fwd(vkm_stream *s, const vkm_args_lora_mid_fwd *a) {
    vkm_args_lora_mid_fwd b = *a;
    uint32_t er = a->n_experts * a->rank, k = a->n_experts * 2 * half_of(a->rank);
    uint64_t uh = vkm_op_size(a->n_rows, k), h = a->has_h ? (uint64_t)a->n_rows * er : 0;
    uint64_t ht = a->has_ht ? vkm_op_size(er, a->n_rows) : 0;
    if (!a->n_rows) return;
    VKM_BUG_ON(a->ldt < 2 * er, "lora_mid_fwd: ldt %u for %u columns", a->ldt, 2 * er);
    b.t = vkm_need(a->t, (uint64_t)(a->n_rows - 1) * a->ldt + 2 * er, "lora_mid_fwd", "t");
    b.row_seq = vkm_need(a->row_seq, a->n_rows, "lora_mid_fwd", "row_seq");
    b.uh = vkm_need(a->uh, uh, "lora_mid_fwd", "uh");
    b.h = vkm_need(a->h, h, "lora_mid_fwd", "h");
    b.ht = vkm_need(a->ht, ht, "lora_mid_fwd", "ht");
    /* an invocation for four ranks of two rows, and for two columns of a pad row of ht */
    uint64_t pads = vkm_round_up(er, 16) - er,
             n_pads = a->has_ht ? pads * vkm_op_kp(a->n_rows) / 2 : 0;
    double work = 30.0 * (double)(uh + h + ht);
    vkm_launch how = vkm_launch_flat(uh / 16 + n_pads, 64, work);
    how.spec[1] = a->rank % 4 == 0 && a->ldt % 4 == 0 && b.t.addr % 16 == 0; /* FOURS */
    vkm_stream_launch(s, &vkm_kernels[VKM_K_lora_mid_fwd], &b, how);
}

void vkm_op_lora_mid_bwd(vkm_stream *s, const vkm_args_lora_mid_bwd *a) {
    vkm_args_lora_mid_bwd b = *a;
    uint32_t er = a->n_experts * a->rank, k = a->n_experts * 2 * half_of(a->rank);
    uint64_t pz = vkm_op_size(a->n_rows, k), pt = vkm_op_size(er, a->n_rows);
    uint64_t df = (uint64_t)a->n_rows * a->n_experts;
    b.t = vkm_need(a->t, 2ull * a->n_rows * er, "lora_mid_bwd", "t");
    b.uh = vkm_need(a->uh, pz, "lora_mid_bwd", "uh");
    b.row_seq = vkm_need(a->row_seq, a->n_rows, "lora_mid_bwd", "row_seq");
    b.pz = vkm_need(a->pz, pz, "lora_mid_bwd", "pz");
    b.pt = vkm_need(a->pt, pt, "lora_mid_bwd", "pt");
    b.df = vkm_need(a->df, df, "lora_mid_bwd", "df");
    uint64_t n = pz / 2 + pt / 2 + df;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_lora_mid_bwd], &b,
                      vkm_launch_flat(n, 64, 60.0 * (double)n + 40.0 * (double)(df * a->rank)));
}

void vkm_op_lora_pack(vkm_stream *s, const vkm_args_lora_pack *a) {
    vkm_args_lora_pack b = *a;
    uint64_t in = (uint64_t)a->n_rows * a->n_cols, rows = 2ull * a->n_rows + a->n_pads;
    b.p0 = vkm_need(a->p0, in, "lora_pack", "p0");
    b.p1 = vkm_need(a->p1, in, "lora_pack", "p1");
    b.y = vkm_need(a->y, vkm_op_size(a->row0 + rows, a->n_cols), "lora_pack", "y");
    uint64_t words = rows * vkm_op_kp(a->n_cols) / 2;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_lora_pack], &b,
                      vkm_launch_flat(words, 64, 40.0 * (double)words));
}

void vkm_op_lora_pack_t(vkm_stream *s, const vkm_args_lora_pack_t *a) {
    vkm_args_lora_pack_t b = *a;
    uint64_t in = (uint64_t)a->n_experts * a->rank * a->n_cols;
    uint64_t out = vkm_op_size(a->n_cols, a->n_experts * 2 * half_of(a->rank));
    b.p0 = vkm_need(a->p0, in, "lora_pack_t", "p0");
    b.p1 = vkm_need(a->p1, in, "lora_pack_t", "p1");
    b.y = vkm_need(a->y, out, "lora_pack_t", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_lora_pack_t], &b,
                      vkm_launch_flat(out / 2, 64, 60.0 * (double)out));
}

void vkm_op_seq_sum(vkm_stream *s, const vkm_args_seq_sum *a) {
    vkm_args_seq_sum b = *a;
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "seq_sum", "seqs");
    b.acc = vkm_need(a->acc, (uint64_t)a->n_seq * a->n_cols, "seq_sum", "acc");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_seq_sum], &b,
                      vkm_launch_flat((uint64_t)a->n_seq * a->n_cols, 16, 20.0 * (double)a->x.n));
}

void vkm_op_rank_grad(vkm_stream *s, const vkm_args_rank_grad *a) {
    vkm_args_rank_grad b = *a;
    uint32_t k = a->n_experts * 2 * half_of(a->rank);
    VKM_BUG_ON(a->module >= a->n_modules, "rank_grad: module %u of %u", a->module, a->n_modules);
    b.t = vkm_need(a->t, 2ull * a->n_rows * a->n_experts * a->rank, "rank_grad", "t");
    b.uh = vkm_need(a->uh, vkm_op_size(a->n_rows, k), "rank_grad", "uh");
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "rank_grad", "seqs");
    b.pooled =
        vkm_need(a->pooled, (uint64_t)a->n_seq * a->n_modules * a->rank, "rank_grad", "pooled");
    vkm_stream_launch(
        s, &vkm_kernels[VKM_K_rank_grad], &b,
        vkm_launch_flat((uint64_t)a->n_seq * a->rank, 16, 40.0 * a->n_rows * a->rank));
}

void vkm_op_pool_fwd(vkm_stream *s, const vkm_args_pool_fwd *a) {
    vkm_args_pool_fwd b = *a;
    VKM_BUG_ON(a->rank > a->ldh || a->module >= a->n_modules, "pool_fwd: module %u of %u, rank %u",
               a->module, a->n_modules, a->rank);
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "pool_fwd", "seqs");
    b.pooled =
        vkm_need(a->pooled, (uint64_t)a->n_seq * a->n_modules * a->rank, "pool_fwd", "pooled");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pool_fwd], &b,
                      vkm_launch_flat((uint64_t)a->n_seq * a->rank, 16, 20.0 * (double)a->h.n));
}
#endif

/* ---- references --------------------------------------------------------------------------------
 */

/* Rule 5 over x[0], x[stride], ...: lane l of 64 sums elements l, l + 64, ..., then a halving tree.
 */
static real sum_strided(const real *x, uint32_t n, uint64_t stride) {
    real lane[64] = {0};
    for (uint32_t i = 0; i < n; i++) lane[i % 64] += x[i * stride];
    return vkm_rule5_tree(lane);
}

/* A row of t, v and z (or u = dA x and A0 x), E r each, then their sums, then a zero. */
enum { MOST_ROWS = 2048, MOST_COLUMNS = 2 * MOST_ROWS }; /* E r; of an adapter operand */
typedef real stack[3 * MOST_ROWS + 1];

VKM_IN_REF void stack_read(const real *line, uint32_t er, stack x) {
    memcpy(x, line, 2 * er * sizeof *line);
    for (uint32_t i = 0; i < er; i++) x[2 * er + i] = x[er + i] + x[i];
    x[3 * er] = 0;
}

/* Where the columns of an adapter operand come from, as an index into a stack: a table so that rows
 * need no division. sum_part: which part of an expert's columns holds the sums; the other holds the
 * first half of the stack beside sums in part 1, the second beside sums in part 0. */
static void sources(uint32_t kp, uint32_t n_experts, uint32_t rank, uint32_t sum_part,
                    uint32_t *out) {
    VKM_BUG_ON(kp > MOST_COLUMNS || n_experts * rank > MOST_ROWS,
               "an adapter operand of %u columns", kp);
    for (uint32_t i = 0; i < kp; i++) {
        column c = column_at(i, rank);
        uint32_t er = n_experts * rank, which = c.part == sum_part ? 2 : 1 - sum_part;
        int valid = c.j < rank && c.expert < n_experts;
        out[i] = valid ? which * er + c.expert * rank + c.j : 3 * er;
    }
}

/* 16 rows from row `row` on of an adapter operand y, and their sums as columns of an operand
 * yt (E r, T), in which rows that are no token's are zero; yt: NULL for none. h: NULL, or their
 * sums (T, E r). */
VKM_IN_REF void store_parts(const real *t, uint64_t ldt, const uint32_t *from,
                            const uint32_t *row_seq, uint32_t row, uint32_t n_rows, uint32_t er,
                            uint32_t kp, bf16 *y, bf16 *yt, real *h) {
    uint32_t live = vkm_op_rows_live(row, n_rows), tp = vkm_op_kp(n_rows);
    stack x;
    for (uint32_t k = 0; k < kp; k += VKM_ROW_CHUNK) {
        vkm_op_rows v;
        uint32_t n = kp - k < VKM_ROW_CHUNK ? kp - k : VKM_ROW_CHUNK;
        for (uint32_t r = 0; r < live; r++) {
            stack_read(t + (row + r) * ldt, er, x);
            for (uint32_t i = 0; i < n; i++) v[r][i] = x[from[k + i]];
            if (h && !k)
                for (uint32_t j = 0; j < er; j++)
                    h[(uint64_t)(row + r) * er + j] = canon(x[2 * er + j]);
        }
        vkm_op_rows_store(y, row, k, v, live, n, kp);
    }
    for (uint32_t j0 = 0; yt && j0 < er; j0 += VKM_OP_ROWS) {
        vkm_op_rows v = {0};
        uint32_t n = tp - row < 16 ? tp - row : 16, ranks = vkm_op_rows_live(j0, er);
        for (uint32_t c = 0; c < live; c++) {
            const real *line = t + (row + c) * ldt + j0;
            for (uint32_t j = 0; j < ranks; j++)
                v[j][c] = row_seq[row + c] == PADDING ? 0 : line[er + j] + line[j];
        }
        vkm_op_rows_store(yt, j0, row, v, ranks, n, tp);
    }
}

VKM_REF(lora_mid_fwd) {
    uint32_t er = a->n_experts * a->rank, kp = vkm_op_kp(a->n_experts * 2 * half_of(a->rank));
    uint32_t from[MOST_COLUMNS];
    sources(kp, a->n_experts, a->rank, 1, from);
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS))
    store_parts(ref_f32(a->t), a->ldt, from, ref_u32(a->row_seq), (uint32_t)panel * VKM_OP_ROWS,
                a->n_rows, er, kp, ref_bf16(a->uh), a->has_ht ? ref_bf16(a->ht) : NULL,
                a->has_h ? ref_f32(a->h) : NULL);
}

VKM_REF(lora_mid_bwd) {
    uint32_t er = a->n_experts * a->rank, half = half_of(a->rank);
    uint32_t kp = vkm_op_kp(a->n_experts * 2 * half);
    const uint32_t *row_seq = ref_u32(a->row_seq);
    const bf16 *uh = ref_bf16(a->uh);
    const real *t = ref_f32(a->t); // (T, 2 E*r)
    real *df = ref_f32(a->df);     // (T, E)
    uint32_t from[MOST_COLUMNS];
    sources(kp, a->n_experts, a->rank, 0, from);
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS)) {
        uint64_t row = panel * VKM_OP_ROWS;
        uint32_t live = vkm_op_rows_live(row, a->n_rows);
        store_parts(t, 2 * er, from, row_seq, (uint32_t)row, a->n_rows, er, kp, ref_bf16(a->pz),
                    ref_bf16(a->pt), NULL);
        for (uint32_t e = 0; e < a->n_experts; e++) {
            real acc[VKM_OP_ROWS] = {0};
            for (uint32_t j = 0; j < a->rank; j++) {
                uint32_t at = e * a->rank + j, col = e * 2 * half + j;
                const bf16 *u = uh + vkm_op_index(row, col, kp);
                const bf16 *h = uh + vkm_op_index(row, col + half, kp);
                for (uint32_t r = 0; r < live; r++) {
                    const real *line = t + (row + r) * 2 * er;
                    acc[r] = canon(acc[r] + canon(line[at] * ldb(u[2 * r])));
                    acc[r] = canon(acc[r] + canon(line[er + at] * ldb(h[2 * r])));
                }
            }
            for (uint32_t r = 0; r < live; r++)
                df[(row + r) * a->n_experts + e] = row_seq[row + r] == PADDING ? 0 : canon(acc[r]);
        }
    }
}

VKM_REF(lora_pack) {
    const real *p[2] = {ref_f32(a->p0), ref_f32(a->p1)}; // (n_rows, n_cols)
    bf16 *y = ref_bf16(a->y);
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(i, 2ull * a->n_rows + a->n_pads) {
        int live = i < 2ull * a->n_rows;
        const real *line = p[live && i >= a->n_rows] + (live ? i % a->n_rows : 0) * a->n_cols;
        for (uint32_t k = 0; k < kp; k++)
            y[vkm_op_index(a->row0 + i, k, kp)] = stb(live && k < a->n_cols ? line[k] : 0);
    }
}

VKM_REF(lora_pack_t) {
    const real *p[2] = {ref_f32(a->p0), ref_f32(a->p1)}; // (E*r, n_cols)
    bf16 *y = ref_bf16(a->y);
    uint32_t kp = vkm_op_kp(a->n_experts * 2 * half_of(a->rank));
    uint64_t rows = vkm_round_up(a->n_cols, 16);
    FOR_PART(i, kp) {
        column c = column_at((uint32_t)i, a->rank);
        const real *line = p[c.part] + (uint64_t)(c.expert * a->rank + c.j) * a->n_cols;
        for (uint64_t row = 0; row < rows; row++)
            y[vkm_op_index(row, (uint32_t)i, kp)] =
                stb(c.j < a->rank && row < a->n_cols ? line[row] : 0);
    }
}

VKM_REF(seq_sum) {
    const uint32_t(*seqs)[4] = (const uint32_t(*)[4])ref_u32(a->seqs);
    const real *x = ref_f32(a->x);
    real *acc = ref_f32(a->acc); // (n_seq, n_cols)
    FOR_PART(i, (uint64_t)a->n_seq * a->n_cols) {
        const uint32_t *seq = seqs[i / a->n_cols];
        const real *first = x + (uint64_t)seq[0] * a->n_cols + i % a->n_cols;
        acc[i] = canon(acc[i] + sum_strided(first, seq[1], a->n_cols));
    }
}

VKM_REF(rank_grad) {
    const uint32_t(*seqs)[4] = (const uint32_t(*)[4])ref_u32(a->seqs);
    uint32_t half = half_of(a->rank), kp = a->n_experts * 2 * half, er = a->n_experts * a->rank;
    const bf16 *uh = ref_bf16(a->uh);
    real *pooled = ref_f32(a->pooled); // (n_seq, n_modules, rank)
    FOR_PART(i, (uint64_t)a->n_seq * a->rank) {
        const uint32_t *seq = seqs[i / a->rank];
        uint32_t j = (uint32_t)(i % a->rank);
        real lane[64] = {0};
        for (uint32_t l = 0; l < seq[1]; l++) {
            const real *line = ref_f32(a->t) + (seq[0] + l) * 2ull * er; // v, z
            real p = canon(line[j] + line[er + j]);
            lane[l % 64] += canon(p * ldb(uh[vkm_op_index(seq[0] + l, half + j, kp)]));
        }
        uint64_t at = (i / a->rank * a->n_modules + a->module) * a->rank + j;
        pooled[at] = canon(vkm_rule5_tree(lane));
    }
}

VKM_REF(pool_fwd) {
    const uint32_t(*seqs)[4] = (const uint32_t(*)[4])ref_u32(a->seqs);
    const real *h = ref_f32(a->h);     // (T, ldh), the first `rank` columns
    real *pooled = ref_f32(a->pooled); // (n_seq, n_modules, rank)
    FOR_PART(i, (uint64_t)a->n_seq * a->rank) {
        const uint32_t *seq = seqs[i / a->rank];
        uint64_t row0 = (uint64_t)seq[0] + seq[2], j = i % a->rank;
        real sum = sum_strided(h + row0 * a->ldh + j, seq[3], a->ldh);
        uint64_t at = (i / a->rank * a->n_modules + a->module) * a->rank + j;
        pooled[at] = canon(seq[3] ? vkm_div(sum, (real)seq[3]) : 0);
    }
}
