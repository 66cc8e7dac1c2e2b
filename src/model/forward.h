/* The forward pass over token rows, and the workspace that forward, backward and decoding share. */
#ifndef VKM_FORWARD_H
#define VKM_FORWARD_H

#include "model/lora2r.h"
#include "model/weights.h"

/* One sequence of a batch: tokens[0..len); the completion is tokens[comp0..len), comp0 >= 1.
 *
 * A batch that is only read, forward, may hold prefixes: the rows of tokens[0..comp0 - 1) are then
 * those of another sequence, which holds these tokens and no completion, in the same adapter state.
 * The sequences that are prefixes come last. Of them the last layer computes keys and values only,
 * and such a batch has no padding. */
typedef struct vkm_seq {
    const uint32_t *tokens;
    uint32_t len, comp0;
    uint32_t prefix; /* 1 + that sequence's place in the batch; 0: none */
} vkm_seq;

/* Largest batch that a workspace takes. */
typedef struct vkm_work_limits {
    uint32_t rows;       /* token rows, each sequence rounded up to 16 */
    uint32_t seqs;       /* sequences, or rows of a decode */
    uint32_t logit_rows; /* rows whose logits exist at one time, a multiple of 16 */
    int trains;          /* keep every layer's input and the buffers of the backward pass */
    int keep;            /* trains: keep every layer's activations, so that none is recomputed */
    int weights;         /* trains: also the buffers of the weights' own gradients; logit_rows is at
                            least VKM_WEIGHT_LOGIT_ROWS then */
} vkm_work_limits;
enum { VKM_WEIGHT_LOGIT_ROWS = 272 };

/* Buffers of one layer's forward pass. The backward pass recomputes them layer by layer, unless the
 * workspace keeps those of every layer. */
typedef struct vkm_layer_acts {
    vkm_tensor n1, rstd1;          /* operand (T,C); (T) */
    vkm_tensor q, k, rstdq, rstdk; /* (T,H D) (T,K D) fp32; (T,H) (T,K) */
    vkm_tensor qr, kr, v;          /* row-major bf16 */
    vkm_tensor o, m, l;            /* operand (T,H D); (T,H) */
    vkm_tensor xmid;               /* (T,C) fp32 */
    vkm_tensor n2, rstd2;          /* operand (T,C); (T) */
    vkm_tensor gate, up, act;      /* (T,F) fp32, fp32, operand */
    vkm_tensor uh[VKM_N_LINEARS];  /* of a group's first: operand (T,n E kper) */
} vkm_layer_acts;

/* Buffers of one layer's backward pass, and the running gradient of the residual stream. */
typedef struct vkm_layer_grads {
    vkm_tensor dx, dn;           /* (T,C) fp32 */
    vkm_tensor dx16;             /* operand (T,C) */
    vkm_tensor dact, dgate, dup; /* (T,F) fp32, operands */
    vkm_tensor dout, dr;         /* (T,H D) bf16, (T,H) */
    vkm_tensor dq, dk, dqn, dkn; /* (T,H D) (T,K D) fp32 */
    vkm_tensor dq16, dk16, dv16; /* operands */
    vkm_tensor t;                /* (T,E kper): [v | z] */
    vkm_tensor pz, pt, ht;       /* operands (T,E kper), (E R,T), (E R,T) */
    vkm_tensor df_tok;           /* (T,E) */
    vkm_tensor in_t, dy_t;       /* operands (d_in,T), (d_out,T) of the widest Linear */
} vkm_layer_grads;

/* Completion tokens whose logits the backward pass makes at one time: token rows [row, row + n) of
 * the head. With gradients of the head's weight these hold whole blocks of 256 completion tokens of
 * a sequence, which `map` lays out at multiples of 16; `segs` are the blocks there. */
typedef struct vkm_head_chunk {
    uint32_t row, n;
    uint32_t map0, n_map, seg0, n_segs; /* ranges of vkm_weight_lists' map and segs */
} vkm_head_chunk;

/* What the weights' own gradients need to know of the batch. */
typedef struct vkm_weight_lists {
    vkm_tensor blocks, comp_blocks; /* (n,2): first row and rows of each block of 256, of token rows
                                       and of completion tokens */
    vkm_tensor map, segs;           /* rows of a chunk by column; (n,4) as seqs */
    vkm_tensor ids, id_rows;        /* (n_ids,3) token, first of its rows, rows; ascending rows */
    vkm_tensor part;                /* (blocks, widest) sums of a gain's gradient */
    vkm_tensor dlogits_t, nc_t;     /* operands (V, map), (C, map) of a chunk */
    uint32_t n_blocks, n_comp_blocks, n_ids;
    uint32_t *count, *next; /* host: of each token of the vocabulary */
} vkm_weight_lists;

typedef struct vkm_work {
    const vkm_model *model;
    uint32_t n_experts, rank;
    vkm_work_limits max;
    vkm_mem *mem;
    /* the batch */
    uint32_t n_seq, n_rows, max_len, n_comp; /* n_comp: completion tokens of all sequences */
    uint32_t n_read_seq, n_read_rows;        /* those before the prefixes */
    vkm_tensor tokens, pos, row_seq;         /* (T); row_seq 0xffffffff at padding */
    vkm_tensor seqs;     /* (B,4): row0, len, comp0, comp_len, of its own rows */
    vkm_tensor prefix;   /* (B,2): first row and rows of its prefix */
    uint32_t has_prefix; /* whether any sequence has one */
    vkm_tensor comp_rows, targets,
        comp_seq;        /* (N): the row that predicts, the token, its sequence */
    vkm_tensor f, xs, g; /* (B,E): forward, path-to-x and gradient weights */
    vkm_tensor pooled;   /* (B,M,R) */
    vkm_tensor df;       /* (B,E): dL/df times the loss scale */
    uint32_t *host;      /* staging of the index tensors */
    /* activations */
    vkm_tensor *x;        /* L+1 residual streams (T,C); without `trains` two, used in turn */
    vkm_tensor h;         /* (T, n E kper / 2): A x of a group of Linears */
    vkm_tensor parts;     /* of a decode step: base products of a group, vkm_work_parts */
    vkm_layer_acts *acts; /* of every layer with max.keep, else one that all use in turn */
    vkm_layer_grads grads;
    /* output head, over completion rows N */
    vkm_tensor xc, nc, rstdc;           /* (N,C) fp32, operand, (N) */
    vkm_tensor logits;                  /* (logit_rows, V) fp32 */
    vkm_tensor mb, lb, sb;              /* (logit_rows, V/256) */
    vkm_tensor m, l, logp, entropy;     /* (N) */
    vkm_tensor dlogits, dnc, dxc, coef; /* operand (logit_rows, V); (N,C) fp32; (N) */
    vkm_head_chunk *chunks;
    uint32_t n_chunks, max_chunks;
    vkm_weight_lists lists; /* with max.weights */
} vkm_work;

/* Whether the activations of every layer over so many rows are small beside the device's memory (a
 * quarter of what is free): a value for `keep`. */
int vkm_work_may_keep(const vkm_model *model, uint32_t rows);

/* How many of `rows` have their logits at one time, at least `least`: a value for `logit_rows`. The
 * head's weights are read once for each so many. */
uint32_t vkm_work_logit_rows(const vkm_model *model, uint32_t rows, uint32_t least);

/* adapter: NULL for none. dry: as in vkm_model_load. */
vkm_status vkm_work_new(const vkm_model *model, const vkm_adapter *adapter, vkm_work_limits max,
                        vkm_plan *dry, vkm_work **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_work_free(vkm_work *w); /* accepts NULL */

static inline vkm_layer_acts *vkm_acts_of(const vkm_work *w, uint32_t layer) {
    return &w->acts[w->max.keep ? layer : 0];
}

/* A module's columns of its group's operand: the view of the first t rows, and the operand's
 * length. */
vkm_tensor vkm_uh_of(const vkm_work *w, uint32_t layer, vkm_linear_id id, uint32_t t);
uint32_t vkm_uh_length(const vkm_work *w, vkm_linear_id id);

/* How the base product of a Linear over t rows of a decode step is made: K of its parts (gemm's
 * k_part), whose number is *n and which lie in w->parts from *at on; 0: as a whole, in linear. */
uint32_t vkm_work_parts(const vkm_work *w, vkm_linear_id id, uint32_t t, uint32_t *n, uint64_t *at);

/* Rows that a sequence of len tokens takes in a batch. */
static inline uint32_t vkm_seq_rows(uint32_t len) {
    return (uint32_t)vkm_round_up(len, 16);
}

/* Rows of its own, without padding. */
static inline uint32_t vkm_seq_own(const vkm_seq *q) {
    return q->prefix ? q->len - q->comp0 + 1 : q->len;
}

/* Lays the sequences out as token rows and uploads the index tensors. */
vkm_status vkm_work_set_batch(vkm_work *w, const vkm_seq *seqs, uint32_t n_seq,
                              vkm_err *err) VKM_MUST_CHECK;

/* Sequences of a batch that belong to one group, in the order of the batch. */
typedef struct vkm_batch_group {
    uint32_t first, n; /* sequences */
    int closes;        /* the group ends here: its sum of gradients enters the step's */
} vkm_batch_group;

/* One pass: which adapter, and where a layer's keys and values go. */
typedef struct vkm_pass {
    vkm_stream *s;
    vkm_work *w;
    const vkm_adapter *adapter;      /* NULL: the bare model */
    const vkm_weights *weights;      /* backward: whose gradients are added to; NULL: none */
    int pool;                        /* forward: w->pooled from the deployed expert's A x */
    int rank_grads;                  /* backward: w->pooled from its rank indices' gradients */
    const vkm_tensor *k, *v;         /* per layer (rows, K D) bf16; NULL: the workspace's own */
    const struct vkm_decode *decode; /* attention over a cache in place of the batch's own rows */
    const vkm_batch_group *groups;   /* of the backward pass: all sequences once */
    uint32_t n_groups;
    /* backward: records what makes w->coef of completion tokens [row, row + n) from their w->logp;
     * NULL: w->coef stands already */
    void (*loss)(const struct vkm_pass *p, uint32_t row, uint32_t n);
    const void *loss_arg;
} vkm_pass;

/* Embedding and all layers over the batch: w->x[L] (or the last used of two) holds the residual
 * stream. Returns it. */
vkm_tensor vkm_forward(const vkm_pass *p);
/* One layer, from its input to y; the backward pass calls it to recompute. */
void vkm_layer_forward(const vkm_pass *p, uint32_t layer, vkm_tensor x, vkm_tensor y);
/* Log-probability and entropy (nats) of every completion token: w->logp, w->entropy (N). */
void vkm_head_forward(const vkm_pass *p, vkm_tensor x_final);
/* Its parts: the final norm of all completion rows, and rows [row, row + n) of the head, at most
 * max.logit_rows, whose logits stand in w->logits (n, V) until the next. row: a multiple of 16. */
void vkm_head_begin(const vkm_pass *p, vkm_tensor x_final);
void vkm_head_rows(const vkm_pass *p, uint32_t row, uint32_t n);

/* The head's forward and backward, a chunk of rows after the other so that logits are made once,
 * and the backward of all layers. x_final: what vkm_forward of the same pass returned. Writes
 * w->logp and w->entropy; w->coef is dL/dlogp of each completion token times the loss scale. Adds
 * to the adapter's group gradients (scaled by w->g), which are moved to the step's where a group
 * closes, to w->df, and to the weights' gradients: sequence after sequence, so no cut into
 * micro-batches changes a bit. */
void vkm_backward(const vkm_pass *p, vkm_tensor x_final);

#endif
