/* Drawing the next token of every decoding row, and the bookkeeping of the row.
 *
 * Everything that decides is an integer, so no order of summation enters and the shader and the
 * reference may search in different ways:
 *   key(x)     the logit's bits made order-preserving; equal keys rank by lower id;
 *   weight(x)  trunc(2^30 exp((x - M) / T)), at most 2^30; sums are 64-bit and exact;
 *   top-k      the first k of the order (value descending, id ascending);
 *   top-p      of these the shortest prefix whose weight is >= p times theirs (p as a fraction of
 *              2^32), so a token stays if the ones before it weigh less than that;
 *   min-p      of these the ones with weight >= min_p 2^30;
 *   draw       floor(u W / 2^32) of the kept weight W, u one Philox word: the first token in
 *              ascending id whose cumulative weight exceeds it.
 * A set that top-k and top-p leave is (key > at) or (key == at and id < below). The recorded
 * log-probability is the untempered one, by the formula of lse_combine. */
#include <stdlib.h>

#include "ops/twin.h"
#include "base/philox.h"
#include "ops/guarded.h"
#include "ops/lmhead.h"

enum { SEED_LO, SEED_HI, STEP, DRAW, INV_T, TOP_K, TOP_P, MIN_WEIGHT };

#ifndef VKM_TWIN64
vkm_status vkm_sampling_words(const vkm_sampling *p, uint64_t seed, uint32_t step, uint32_t draw,
                              uint32_t words[VKM_SAMPLE_WORDS], vkm_err *err) {
    if (!(p->temperature >= 0 && p->temperature <= 1e6))
        return vkm_fail(err, VKM_USAGE, "temperature is %g; it must be 0 (greedy) to 1e6",
                        p->temperature);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return vkm_fail(err, VKM_USAGE, "top_p is %g; it must be above 0 and at most 1 (off)",
                        p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return vkm_fail(err, VKM_USAGE, "min_p is %g; it must be 0 (off) to 1", p->min_p);
    int greedy = p->temperature < 1e-6;
    double share = p->top_p * 4294967296.0 + 0.5;
    words[SEED_LO] = (uint32_t)seed;
    words[SEED_HI] = (uint32_t)(seed >> 32);
    words[STEP] = step;
    words[DRAW] = draw;
    words[INV_T] = vkm_bits(greedy ? 1.0f : (float)(1.0 / p->temperature));
    words[TOP_K] = greedy ? 1 : p->top_k;
    words[TOP_P] = greedy || share >= 4294967296.0 ? 0 : share < 1 ? 1 : (uint32_t)share;
    words[MIN_WEIGHT] = (uint32_t)(p->min_p * 0x1p30 + 0.5);
    return VKM_OK;
}

void vkm_op_sample(vkm_stream *s, const vkm_args_sample *a) {
    vkm_args_sample b = *a;
    uint64_t n = a->n_rows, nb = vkm_n_blocks(a->n_vocab);
    b.logits = vkm_need(a->logits, n * a->n_vocab, "sample", "logits");
    b.mb = vkm_need(a->mb, n * nb, "sample", "mb");
    b.lb = vkm_need(a->lb, n * nb, "sample", "lb");
    b.params = vkm_need(a->params, VKM_SAMPLE_WORDS, "sample", "params");
    b.state = vkm_need(a->state, n * VKM_ROW_WORDS, "sample", "state");
    VKM_BUG_ON(a->n_rows > 65535, "sample: %u rows", a->n_rows);
    int gpu = vkm_dev_class_of(vkm_stream_dev(s)) == VKM_CLASS_GPU;
    uint32_t lanes = gpu ? 256 : a->n_vocab > 4096 ? 64 : 8;
    vkm_stream_launch(s, &vkm_kernels[VKM_K_sample], &b,
                      (vkm_launch){{a->n_rows, 1, 1}, {lanes}, 20.0 * (double)n * a->n_vocab});
}
#endif

static uint32_t key_of(real x) {
    uint32_t u = vkm_bits((float)x);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

static uint32_t weight_of(real x, real m, real inv_t) {
    float e = (float)vkm_exp(mulc(subc(x, m), inv_t));
    return vkm_bits(e) >= 0x3f800000u ? 1u << 30 : (uint32_t)(int32_t)(e * 0x1p30f);
}

/* The set (key > at) or (key == at and id < below). */
typedef struct kept_set {
    uint32_t at, below;
} kept_set;

typedef struct row_view {
    const uint32_t *key, *weight;
    uint32_t *scratch;
    uint32_t n;
} row_view;

static int contains(const row_view *v, kept_set s, uint32_t i) {
    return (i < s.below && v->key[i] == s.at) || v->key[i] > s.at;
}

/* Shrinks a set to its shortest prefix that measures at least `goal`, in tokens or in weight.
 * Candidates for its last token are told apart by a digit of the key after the other, then by id.
 */
static void shrink(const row_view *v, kept_set *s, uint64_t goal, int by_weight) {
    uint32_t n = 0, *c = v->scratch;
    uint64_t above = 0;                 /* of those that come before all candidates */
    for (uint32_t i = 0; i < v->n; i++) /* what weighs nothing comes behind the goal */
        if (contains(v, *s, i) && (!by_weight || v->weight[i])) c[n++] = i;
    for (int shift = 24; n > 1 && shift >= 0; shift -= 8) {
        uint64_t sum[256] = {0};
        uint32_t digit = 255, kept = 0;
        for (uint32_t i = 0; i < n; i++)
            sum[v->key[c[i]] >> shift & 255] += by_weight ? v->weight[c[i]] : 1;
        while (digit && above + sum[digit] < goal) above += sum[digit--];
        for (uint32_t i = 0; i < n; i++)
            if ((v->key[c[i]] >> shift & 255) == digit) c[kept++] = c[i];
        n = kept;
    }
    uint32_t i = 0;
    for (; i < n - 1; i++) {
        above += by_weight ? v->weight[c[i]] : 1;
        if (above >= goal) break;
    }
    *s = (kept_set){v->key[c[i]], c[i] + 1};
}

/* The k-th largest of n keys. */
static uint32_t kth_largest(const uint32_t *key, uint32_t n, uint32_t k) {
    uint32_t least = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        uint32_t reach = 0;
        for (uint32_t i = 0; i < n; i++) reach += key[i] >= (least | bit);
        if (reach >= k) least |= bit;
    }
    return least;
}

/* Keeps of n tokens' keys, in ascending order, those that may be among the k largest: that reach
 * the k-th largest of the maxima of GROUP neighbours, which k tokens do. id: whose they are.
 * Returns how many. */
static uint32_t keep_candidates(uint32_t *key, uint32_t *id, uint32_t *scratch, uint32_t n,
                                uint32_t k) {
    enum { GROUP = 16 };
    uint32_t groups = vkm_div_up(n, GROUP), least = 0, kept = 0;
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t end = n - g * GROUP < GROUP ? n : (g + 1) * GROUP, most = 0;
        for (uint32_t i = g * GROUP; i < end; i++) most = key[i] > most ? key[i] : most;
        scratch[g] = most;
    }
    if (k && k <= groups) least = kth_largest(scratch, groups, k);
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t end = n - g * GROUP < GROUP ? n : (g + 1) * GROUP;
        for (uint32_t i = g * GROUP; i < end && scratch[g] >= least; i++) {
            if (key[i] < least) continue;
            key[kept] = key[i];
            id[kept++] = i;
        }
    }
    return kept;
}

/* floor(fraction * x / 2^32), x < 2^63. */
static uint64_t scale(uint32_t fraction, uint64_t x) {
    return (x >> 32) * fraction + (((x & 0xffffffffu) * fraction) >> 32);
}

/* What the tokens [from, to) of a set weigh that weigh at least `least` each. */
static inline uint64_t weight_kept(const row_view *v, kept_set s, uint32_t least, uint32_t from,
                                   uint32_t to) {
    uint64_t sum = 0;
    for (uint32_t i = from; i < to; i++) {
        uint32_t kept = (v->key[i] > s.at) | ((v->key[i] == s.at) & (i < s.below));
        sum += v->weight[i] & (0u - (kept & (v->weight[i] >= least)));
    }
    return sum;
}

static inline uint32_t draw_token(const row_view *v, const uint32_t *params, uint32_t u) {
    enum { STRIDE = 1024 };
    kept_set s = {0, v->n};
    if (params[TOP_K] && params[TOP_K] < v->n) shrink(v, &s, params[TOP_K], 0);
    if (params[TOP_P]) {
        uint64_t all = weight_kept(v, s, 0, 0, v->n);
        uint64_t goal = scale(params[TOP_P], all);
        goal += (uint32_t)((all & 0xffffffffu) * params[TOP_P]) != 0; /* rounds up */
        shrink(v, &s, goal, 1);
    }
    uint32_t least = params[MIN_WEIGHT], token = 0;
    uint64_t left = scale(u, weight_kept(v, s, least, 0, v->n)); /* the first token beyond it */
    for (uint32_t from = 0, step = STRIDE; from < v->n;) {
        uint32_t to = v->n - from < step ? v->n : from + step;
        uint64_t here = weight_kept(v, s, least, from, to);
        if (here > left) {
            token = from;
            if (step == 1) break;
            step = 1;
        } else {
            left -= here;
            from = to;
        }
    }
    return token;
}

VKM_REF(sample) {
    uint32_t n_vocab = a->n_vocab, nb = vkm_n_blocks(n_vocab);
    const uint32_t *params = ref_u32(a->params), *eos = ref_u32(a->eos);
    uint32_t *key = malloc(16ull * n_vocab), *weight = key + n_vocab;
    uint32_t *scratch = weight + n_vocab, *id = scratch + n_vocab;
    VKM_BUG_ON(!key, "no memory for a row of %u logits", n_vocab);
    real inv_t = vkm_from_bits(params[INV_T]);
    FOR_PART(r, a->n_rows) {
        uint32_t *state = ref_u32(a->state) + r * VKM_ROW_WORDS, n_own = state[VKM_ROW_N_OWN];
        if (state[VKM_ROW_FINISHED] || n_own >= a->max_new) continue;
        const real *x = ref_f32(a->logits) + r * n_vocab;
        const real *mb = ref_f32(a->mb) + r * nb, *lb = ref_f32(a->lb) + r * nb;
        real m = mb[0], l = 0;
        for (uint32_t b = 1; b < nb; b++) m = mb[b] > m ? mb[b] : m;
        for (uint32_t b = 0; b < nb; b++) l = l + mulc(lb[b], vkm_exp(subc(mb[b], m)));
        for (uint32_t i = 0; i < n_vocab; i++) key[i] = key_of(x[i]);
        row_view v = {key, weight, scratch, n_vocab};
        if (params[TOP_K]) {
            v.n = keep_candidates(key, id, scratch, n_vocab, params[TOP_K]);
            for (uint32_t i = 0; i < v.n; i++) weight[i] = weight_of(x[id[i]], m, inv_t);
        } else {
            for (uint32_t i = 0; i < n_vocab; i++) weight[i] = weight_of(x[i], m, inv_t);
        }
        vkm_u4 random = vkm_random4(params[SEED_LO], params[SEED_HI], VKM_RNG_SAMPLE, params[STEP],
                                    state[VKM_ROW_ROLLOUT], n_own, params[DRAW]);
        uint32_t token = draw_token(&v, params, random.x);
        if (params[TOP_K]) token = id[token];
        uint64_t at = (uint64_t)state[VKM_ROW_ROLLOUT] * a->max_new + n_own;
        ref_u32(a->tokens)[at] = token;
        ref_f32(a->logp)[at] = subc(subc(x[token], m), vkm_log(l));
        state[VKM_ROW_TOKEN] = token;
        state[VKM_ROW_N_OWN] = n_own + 1;
        uint32_t done = n_own + 1 == a->max_new;
        for (uint32_t i = 1; i <= eos[0]; i++) done |= eos[i] == token;
        state[VKM_ROW_FINISHED] = done;
    }
    free(key);
}
