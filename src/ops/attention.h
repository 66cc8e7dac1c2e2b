/* What the attention twins share: the cut of the work into blocks, and the arithmetic over a few
 * lanes (queries or keys) that ops/lanes.h compiles for several instruction sets.
 *
 * Blocks of 16 queries (or keys) are the units that threads share. Late queries see many keys and
 * early ones few, so the units run from both ends inwards and equal shares are equal work. */
#ifndef VKM_ATTENTION_H
#define VKM_ATTENTION_H

#include <math.h>

#include "ops/twin.h"

enum {
    ATTN_MAX_D = 256,
    ATTN_CHUNK = 256, /* of the dot product contract */
    ATTN_STEP = 8,    /* rows of the broadcast side a step takes; divides ATTN_CHUNK */
    ATTN_KEEP = 512,  /* keys up to which the forward keeps its scores; a multiple of ATTN_STEP */
    ATTN_BLOCK = 16,  /* rows of a unit: the panel of an operand */
};

/* Tests lower it to run the narrower instruction sets: 2 AVX-512, 1 AVX2, 0 the base. */
extern int vkm_lanes_limit;

/* A few rows of one side, as real. */
typedef const real (*attn_rows)[ATTN_MAX_D];

/* Entry i of `seqs`: first row and length. Before its rows may come the first `prefix` rows of
 * another sequence, from row prefix0 on: keys of this one, but no queries. Behind its rows are pads
 * up to the end of the panel; with prefixes sequences lie close together, and pads are the rows
 * from n_rows on. */
typedef struct attn_seq {
    uint64_t row0, prefix0;
    uint32_t len, prefix;
} attn_seq;

static inline attn_seq attn_seq_at(vkm_tensor seqs, uint32_t i) {
    const uint32_t *s = ref_u32(seqs) + 4ull * i;
    return (attn_seq){.row0 = s[0], .len = s[1]};
}

/* The row of key j, counted from the prefix's begin. */
static inline uint64_t attn_key_row(attn_seq s, uint32_t j) {
    return j < s.prefix ? s.prefix0 + j : s.row0 + (j - s.prefix);
}

/* Unit `at` of heads x sequences x blocks. */
typedef struct attn_unit {
    uint32_t head, seq, first; /* first: row of the sequence */
} attn_unit;

static inline attn_unit attn_unit_at(uint64_t at, uint32_t n_seq, uint32_t max_len) {
    uint32_t n = vkm_div_up(max_len, ATTN_BLOCK), i = (uint32_t)(at % n);
    attn_unit u = {.seq = (uint32_t)(at / n % n_seq), .head = (uint32_t)(at / n / n_seq)};
    u.first = ATTN_BLOCK * (i % 2 ? n - 1 - i / 2 : i / 2);
    return u;
}

static inline uint64_t attn_units(uint32_t heads, uint32_t n_seq, uint32_t max_len) {
    return (uint64_t)heads * n_seq * vkm_div_up(max_len, ATTN_BLOCK);
}

static inline uint32_t attn_min(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}

/* Zeros in columns from .. to - 1 of a row of an operand. */
static inline void attn_pad(bf16 *y, uint64_t row, uint32_t from, uint32_t to, uint32_t kp) {
    for (uint32_t c = from; c < to; c++) y[vkm_op_index(row, c, kp)] = 0;
}

#ifndef VKM_TWIN64
/* Whether eight lanes load what all need and take it from one another. */
static inline uint32_t attn_spreads(vkm_stream *s) {
    return vkm_dev_lane_loads(vkm_stream_dev(s)) && vkm_dev_spreads(vkm_stream_dev(s));
}

/* Grid and constants of a kernel over (rows of a sequence, heads, sequences). A CPU driver's loads
 * cost more than its arithmetic, so up to cpu_rows rows a lane share them while the unrolled code
 * (rows * head_dim) stays small: an old LLVM compiles it in about a second. (Not for 16 dimensions,
 * those of the probe that runs when a device is opened: making its pipeline would take twice as
 * long.) Up to a head_dim of spread_dim a driver that loads lane by lane spreads a row over the
 * lanes. */
static inline vkm_launch attn_launch(vkm_stream *s, uint32_t max_len, uint32_t heads,
                                     uint32_t n_seq, uint32_t head_dim, uint32_t cpu_rows,
                                     uint32_t spread_dim, double work) {
    int gpu = vkm_dev_class_of(vkm_stream_dev(s)) == VKM_CLASS_GPU;
    uint32_t local = gpu ? 64 : 8, slice = head_dim;
    uint32_t lane_rows = gpu || head_dim <= 16 || head_dim > 32 ? 1 : cpu_rows;
    uint32_t step = gpu || lane_rows > 1 ? 4 : 2;
    /* accumulators live in registers: a GPU's hold 32 dimensions or so */
    for (uint32_t n = 2; gpu && slice > 32 && n <= head_dim / 2; n++)
        if (head_dim % (2 * n) == 0) slice = head_dim / n;
    uint32_t spread = head_dim <= spread_dim && attn_spreads(s);
    uint64_t rows = vkm_round_up(max_len, ATTN_BLOCK); /* with pads */
    return (vkm_launch){{vkm_div_up(rows, local * lane_rows), heads * (head_dim / slice), n_seq},
                        {local, head_dim, slice, lane_rows, step, spread},
                        work};
}

/* What the grid of a kernel over whole sequences follows from. */
typedef struct attn_grid {
    uint32_t rows, heads, n_seq; /* rows: of the longest sequence */
    uint32_t head_dim;
    uint32_t slices;   /* groups, or subgroups, that share the columns of the outputs */
    uint32_t areas;    /* scores of a pair of rows */
    uint32_t products; /* that add to outputs */
    uint32_t aligned;  /* rows can be loaded and stored by four words */
} attn_grid;

static inline uint32_t attn_aligned(vkm_tensor a, vkm_tensor b, vkm_tensor c) {
    return (a.addr | b.addr | c.addr) % 16 == 0;
}

/* How to launch a kernel: in its plain form as given, or another that the device has and is for
 * (attention_form.c). */
vkm_launch vkm_attn_form(vkm_stream *s, vkm_launch plain, attn_grid g);
/* The same for attn_decode, whose groups have so many heads; rows lie on 16 bytes. */
vkm_launch vkm_attn_decode_form(vkm_stream *s, vkm_launch plain, uint32_t head_dim, uint32_t heads);

static inline void attn_check(const char *kernel, uint32_t heads, uint32_t n_kv,
                              uint32_t head_dim) {
    VKM_BUG_ON(head_dim < 2 || head_dim > ATTN_MAX_D || head_dim & 1,
               "%s: head_dim %u is not an even number up to %d", kernel, head_dim, ATTN_MAX_D);
    VKM_BUG_ON(!n_kv || !heads || heads / n_kv * n_kv != heads, "%s: %u heads over %u kv heads",
               kernel, heads, n_kv);
}
#endif

#endif
