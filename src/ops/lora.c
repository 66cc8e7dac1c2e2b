/* The adapter's small kernels: its operands, what stands between the products of its backward pass,
 * and reductions over sequences.
 * The adapter's order: an expert of rank r has kper = 2 * round_up(r, 4) columns in an operand, or
 * rows in a stack, for two parts of r each. They come in fours: two of the first part, the same two
 * of the second; zeros where there is no such rank. y += f (B0 u + dB h) with u = dA x, h = A0 x +
 * u; a product with [dA | A0] in this order has in every four what two ranks' u and h are made of
 * (lora_down, gemm.c). */
#include "ops/lora.h"
#include "ops/oprow.h"

enum { PADDING = 0xffffffffu };

/* Column of rank index j of an expert in the first part; that of the second is two further. */
static uint32_t column_of(uint32_t expert, uint32_t j, uint32_t rank) {
    return expert * vkm_lora_kper(rank) + j / 2 * 4 + j % 2;
}

/* What stands at a column: expert, part and rank index; none where j >= rank. */
typedef struct source {
    uint32_t expert, part, j;
} source;

static source source_of(uint32_t column, uint32_t rank) {
    uint32_t in = column % vkm_lora_kper(rank);
    return (source){column / vkm_lora_kper(rank), in / 2 % 2, in / 4 * 2 + in % 2};
}

/* ---- wrappers ----------------------------------------------------------------------------------
 */
#ifndef VKM_TWIN64

/* Elements that n_rows rows of k columns span, a part of the columns of an operand of kpu. */
static uint64_t uh_span(uint32_t n_rows, uint32_t k, uint32_t kpu) {
    return n_rows ? ((uint64_t)(vkm_div_up(n_rows, VKM_OP_ROWS) - 1) * kpu + k) * VKM_OP_ROWS : 0;
}

void vkm_op_lora_mid(vkm_stream *s, const vkm_args_lora_mid *a) {
    vkm_args_lora_mid b = *a;
    uint32_t er = a->n_experts * a->rank, k = a->n_experts * vkm_lora_kper(a->rank);
    uint64_t pz = vkm_op_size(a->n_rows, k), pt = vkm_op_size(er, a->n_rows);
    uint64_t df = (uint64_t)a->n_rows * a->n_experts;
    if (!a->n_rows) return;
    VKM_BUG_ON(a->kpu < k || a->kpu & 7, "lora_mid: %u of %u columns", k, a->kpu);
    b.t = vkm_need(a->t, (uint64_t)a->n_rows * k, "lora_mid", "t");
    b.uh = vkm_need(a->uh, uh_span(a->n_rows, k, a->kpu), "lora_mid", "uh");
    b.row_seq = vkm_need(a->row_seq, a->n_rows, "lora_mid", "row_seq");
    b.pz = vkm_need(a->pz, pz, "lora_mid", "pz");
    b.pt = vkm_need(a->pt, pt, "lora_mid", "pt");
    b.ht = vkm_need(a->ht, pt, "lora_mid", "ht");
    b.df = vkm_need(a->df, df, "lora_mid", "df");
    VKM_BUG_ON(b.t.addr & 15 || b.uh.addr & 7 || b.pz.addr & 7, "lora_mid: unaligned");
    /* an invocation for two ranks of two rows, for two columns of a pad row of pt, for a factor */
    uint64_t n_pads = (vkm_round_up(er, 16) - er) * vkm_op_kp(a->n_rows) / 2;
    double work = 60.0 * (double)(pz + pt) + 40.0 * (double)(df * a->rank);
    vkm_stream_launch(s, &vkm_kernels[VKM_K_lora_mid], &b,
                      vkm_launch_flat(pz / 8 + n_pads + df, 64, work));
}

void vkm_op_lora_pack(vkm_stream *s, const vkm_args_lora_pack *a) {
    vkm_args_lora_pack b = *a;
    uint64_t in = (uint64_t)a->n_experts * a->rank * a->n_cols;
    uint64_t rows = (uint64_t)a->n_experts * vkm_lora_kper(a->rank) + a->n_pads;
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
    uint64_t out = vkm_op_size(a->n_cols, a->n_experts * vkm_lora_kper(a->rank));
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
    uint32_t mean = a->n_seq ? (uint32_t)(a->x.n / a->n_cols / a->n_seq) : 0;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_seq_sum], &b,
                      vkm_launch_units(s, (uint64_t)a->n_seq * a->n_cols, mean));
}

void vkm_op_rank_grad(vkm_stream *s, const vkm_args_rank_grad *a) {
    vkm_args_rank_grad b = *a;
    uint32_t k = a->n_experts * vkm_lora_kper(a->rank);
    VKM_BUG_ON(a->module >= a->n_modules, "rank_grad: module %u of %u", a->module, a->n_modules);
    VKM_BUG_ON(a->kpu < k || a->kpu & 7, "rank_grad: %u of %u columns", k, a->kpu);
    b.t = vkm_need(a->t, (uint64_t)a->n_rows * k, "rank_grad", "t");
    b.uh = vkm_need(a->uh, uh_span(a->n_rows, k, a->kpu), "rank_grad", "uh");
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "rank_grad", "seqs");
    b.pooled =
        vkm_need(a->pooled, (uint64_t)a->n_seq * a->n_modules * a->rank, "rank_grad", "pooled");
    vkm_stream_launch(
        s, &vkm_kernels[VKM_K_rank_grad], &b,
        vkm_launch_units(s, (uint64_t)a->n_seq * a->rank, a->n_seq ? a->n_rows / a->n_seq : 0));
}

void vkm_op_pool_fwd(vkm_stream *s, const vkm_args_pool_fwd *a) {
    vkm_args_pool_fwd b = *a;
    VKM_BUG_ON(a->rank > a->ldh || a->module >= a->n_modules, "pool_fwd: module %u of %u, rank %u",
               a->module, a->n_modules, a->rank);
    b.seqs = vkm_need(a->seqs, 4ull * a->n_seq, "pool_fwd", "seqs");
    b.pooled =
        vkm_need(a->pooled, (uint64_t)a->n_seq * a->n_modules * a->rank, "pool_fwd", "pooled");
    uint32_t mean = a->n_seq ? (uint32_t)(a->h.n / a->ldh / a->n_seq) : 0;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_pool_fwd], &b,
                      vkm_launch_units(s, (uint64_t)a->n_seq * a->rank, mean));
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

/* 16 rows of t = [v | z] from row `row` on: p = v + z and z into pz. */
VKM_IN_REF void store_pz(const real *t, uint64_t row, uint32_t live, uint32_t kp, bf16 *pz) {
    for (uint32_t k = 0; k < kp; k += VKM_ROW_CHUNK) {
        vkm_op_rows v;
        uint32_t n = kp - k < VKM_ROW_CHUNK ? kp - k : VKM_ROW_CHUNK;
        for (uint32_t r = 0; r < live; r++) {
            const real *line = t + (row + r) * kp + k;
            for (uint32_t j = 0; j < n; j += 4) {
                v[r][j] = line[j] + line[j + 2];
                v[r][j + 1] = line[j + 1] + line[j + 3];
                v[r][j + 2] = line[j + 2];
                v[r][j + 3] = line[j + 3];
            }
        }
        vkm_op_rows_store(pz, row, k, v, live, n, kp);
    }
}

/* The same rows as columns of pt (from t) and ht (from uh), operands (E r, T); rows that are no
 * token's are zero. */
VKM_IN_REF void store_transposed(const vkm_args_lora_mid *a, uint64_t row, uint32_t live) {
    uint32_t er = a->n_experts * a->rank, tp = vkm_op_kp(a->n_rows);
    uint32_t kp = a->n_experts * vkm_lora_kper(a->rank),
             n = tp - row < 16 ? tp - (uint32_t)row : 16;
    const uint32_t *row_seq = ref_u32(a->row_seq) + row;
    int counts[VKM_OP_ROWS];
    for (uint32_t c = 0; c < n; c++) counts[c] = c < live && row_seq[c] != PADDING;
    for (uint32_t i0 = 0; i0 < er; i0 += VKM_OP_ROWS) {
        vkm_op_rows p, h; /* 16 columns of them */
        uint32_t ranks = vkm_op_rows_live(i0, er), column[VKM_OP_ROWS];
        for (uint32_t i = 0; i < ranks; i++)
            column[i] = column_of((i0 + i) / a->rank, (i0 + i) % a->rank, a->rank);
        for (uint32_t c = 0; c < n; c++) {
            const real *line = ref_f32(a->t) + (row + c) * kp; // (T, kp)
            for (uint32_t i = 0; i < ranks; i++)
                p[i][c] = counts[c] ? line[column[i]] + line[column[i] + 2] : 0;
        }
        for (uint32_t i = 0; i < ranks; i++) {
            const bf16 *from = ref_bf16(a->uh) + vkm_op_index(row, column[i] + 2, a->kpu);
            for (uint32_t c = 0; c < n; c++) h[i][c] = counts[c] ? ldb(from[2 * c]) : 0;
        }
        vkm_op_rows_store(ref_bf16(a->pt), i0, (uint32_t)row, p, ranks, n, tp);
        vkm_op_rows_store(ref_bf16(a->ht), i0, (uint32_t)row, h, ranks, n, tp);
    }
}

VKM_REF(lora_mid) {
    uint32_t kp = a->n_experts * vkm_lora_kper(a->rank);
    const uint32_t *row_seq = ref_u32(a->row_seq);
    const bf16 *uh = ref_bf16(a->uh);
    const real *t = ref_f32(a->t); // (T, kp)
    real *df = ref_f32(a->df);     // (T, E)
    FOR_PART(panel, vkm_div_up(a->n_rows, VKM_OP_ROWS)) {
        uint64_t row = panel * VKM_OP_ROWS;
        uint32_t live = vkm_op_rows_live(row, a->n_rows);
        store_pz(t, row, live, kp, ref_bf16(a->pz));
        store_transposed(a, row, live);
        for (uint32_t e = 0; e < a->n_experts; e++) {
            real acc[VKM_OP_ROWS] = {0};
            for (uint32_t j = 0; j < a->rank; j++) {
                uint32_t at = column_of(e, j, a->rank);
                const bf16 *u = uh + vkm_op_index(row, at, a->kpu);
                const bf16 *h = uh + vkm_op_index(row, at + 2, a->kpu);
                for (uint32_t r = 0; r < live; r++) {
                    const real *line = t + (row + r) * kp + at;
                    acc[r] = canon(acc[r] + canon(line[0] * ldb(u[2 * r])));
                    acc[r] = canon(acc[r] + canon(line[2] * ldb(h[2 * r])));
                }
            }
            for (uint32_t r = 0; r < live; r++)
                df[(row + r) * a->n_experts + e] = row_seq[row + r] == PADDING ? 0 : canon(acc[r]);
        }
    }
}

VKM_REF(lora_pack) {
    const real *p[2] = {ref_f32(a->p0), ref_f32(a->p1)}; // (E*r, n_cols)
    bf16 *y = ref_bf16(a->y);
    uint32_t kp = vkm_op_kp(a->n_cols);
    FOR_PART(i, (uint64_t)a->n_experts * vkm_lora_kper(a->rank) + a->n_pads) {
        source c = source_of((uint32_t)i, a->rank);
        int live = c.expert < a->n_experts && c.j < a->rank;
        const real *line =
            p[c.part] + (live ? (uint64_t)(c.expert * a->rank + c.j) * a->n_cols : 0);
        for (uint32_t k = 0; k < kp; k++)
            y[vkm_op_index(a->row0 + i, k, kp)] = stb(live && k < a->n_cols ? line[k] : 0);
    }
}

VKM_REF(lora_pack_t) {
    const real *p[2] = {ref_f32(a->p0), ref_f32(a->p1)}; // (E*r, n_cols)
    bf16 *y = ref_bf16(a->y);
    uint32_t kp = a->n_experts * vkm_lora_kper(a->rank);
    uint64_t rows = vkm_round_up(a->n_cols, 16);
    FOR_PART(i, kp) {
        source c = source_of((uint32_t)i, a->rank);
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
    uint32_t kp = a->n_experts * vkm_lora_kper(a->rank);
    const bf16 *uh = ref_bf16(a->uh);
    real *pooled = ref_f32(a->pooled); // (n_seq, n_modules, rank)
    FOR_PART(i, (uint64_t)a->n_seq * a->rank) {
        const uint32_t *seq = seqs[i / a->rank];
        uint32_t j = (uint32_t)(i % a->rank), col = column_of(0, j, a->rank);
        real lane[64] = {0};
        for (uint32_t l = 0; l < seq[1]; l++) {
            const real *line = ref_f32(a->t) + (seq[0] + l) * (uint64_t)kp + col; // v, z
            real p = canon(line[0] + line[2]);
            lane[l % 64] += canon(p * ldb(uh[vkm_op_index(seq[0] + l, col + 2, a->kpu)]));
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
