/* Sampling: every draw against a brute-force sort, frequencies against the exact distribution,
 * independence of the batch, and the bookkeeping of the rows. */
#include <math.h>

#include "bench.h"

#include "base/philox.h"
#include "ops/lmhead.h"
#include "ops/softmath.h"

enum { SEED = 77, STEP = 3 };

/* The buffers of one decoding loop that only samples. */
typedef struct loop {
    bench b;
    vkm_tensor logits, mb, lb, sb, params, eos, state, tokens, logp;
    uint32_t n_rows, n_vocab, max_new;
} loop;

static const uint32_t no_eos[] = {0};

/* Rows start anew; row i decodes rollouts[i], or i. */
static void loop_reset(loop *l, const uint32_t *rollouts) {
    uint32_t *state = calloc(l->n_rows, sizeof(uint32_t) * VKM_ROW_WORDS);
    for (uint32_t i = 0; i < l->n_rows; i++)
        state[i * VKM_ROW_WORDS + VKM_ROW_ROLLOUT] = rollouts ? rollouts[i] : i;
    bench_write(&l->b, l->state, state);
    free(state);
}

static loop loop_open(vkm_backend_id backend, uint32_t n_rows, uint32_t n_vocab, uint32_t max_new,
                      const float *logits, const uint32_t *rollouts, uint32_t n_rollouts,
                      const uint32_t *eos) {
    loop l = {.b = bench_open(backend), .n_rows = n_rows, .n_vocab = n_vocab, .max_new = max_new};
    uint64_t nb = (uint64_t)n_rows * vkm_n_blocks(n_vocab);
    l.logits = bench_f32(&l.b, (uint64_t)n_rows * n_vocab, logits);
    l.mb = bench_new(&l.b, VKM_F32, nb);
    l.lb = bench_new(&l.b, VKM_F32, nb);
    l.sb = bench_new(&l.b, VKM_F32, nb);
    l.params = bench_new(&l.b, VKM_U32, VKM_SAMPLE_WORDS);
    l.eos = bench_u32(&l.b, eos[0] + 1, eos);
    l.state = bench_new(&l.b, VKM_U32, (uint64_t)n_rows * VKM_ROW_WORDS);
    l.tokens = bench_new(&l.b, VKM_U32, (uint64_t)n_rollouts * max_new);
    l.logp = bench_new(&l.b, VKM_F32, (uint64_t)n_rollouts * max_new);
    loop_reset(&l, rollouts);
    return l;
}

static void loop_run(loop *l, const vkm_sampling *p, uint32_t n_tokens) {
    vkm_err err = {0};
    uint32_t words[VKM_SAMPLE_WORDS];
    bench_check(vkm_sampling_words(p, SEED, STEP, 0, words, &err), &err);
    bench_write(&l->b, l->params, words);
    VKM_OP(l->b.s, lse_block, .logits = l->logits, .mb = l->mb, .lb = l->lb, .sb = l->sb,
           .n_rows = l->n_rows, .n_vocab = l->n_vocab);
    for (uint32_t i = 0; i < n_tokens; i++)
        VKM_OP(l->b.s, sample, .logits = l->logits, .mb = l->mb, .lb = l->lb, .params = l->params,
               .eos = l->eos, .state = l->state, .tokens = l->tokens, .logp = l->logp,
               .n_rows = l->n_rows, .n_vocab = l->n_vocab, .max_new = l->max_new);
    bench_run(&l->b);
}

/* ---- the rule once more, by sorting ------------------------------------------------------------
 */
typedef struct entry {
    float x;
    uint32_t id, kept;
    uint64_t weight;
} entry;

static int by_value(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return x->x != y->x ? (x->x < y->x) - (x->x > y->x) : (x->id > y->id) - (x->id < y->id);
}
static int by_id(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Marks what top-k, top-p and min-p keep; entries come back in id order. */
static void brute_force(entry *e, uint32_t n, const float *x, const vkm_sampling *p) {
    uint32_t k = p->temperature == 0 ? 1 : p->top_k;
    float max = x[0], inv_t = p->temperature == 0 ? 1 : (float)(1 / p->temperature);
    for (uint32_t i = 1; i < n; i++) max = x[i] > max ? x[i] : max;
    for (uint32_t i = 0; i < n; i++) {
        float d = vkm_canon(vkm_canon(x[i] - max) * inv_t);
        e[i] = (entry){x[i], i, 1, (uint64_t)((double)vkm_exp(d) * 0x1p30)};
    }
    qsort(e, n, sizeof *e, by_value);
    uint64_t all = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        e[i].kept = !k || i < k;
        all += e[i].kept ? e[i].weight : 0;
    }
    long double share = (long double)all * (uint64_t)(p->top_p * 0x1p32 + 0.5) / 0x1p32L;
    for (uint32_t i = 0; i < n; i++) {
        if (p->temperature != 0 && p->top_p < 1 && sum >= share) e[i].kept = 0;
        sum += e[i].weight;
        if ((double)e[i].weight < p->min_p * 0x1p30) e[i].kept = 0;
    }
    qsort(e, n, sizeof *e, by_id);
}

static uint32_t brute_draw(const entry *e, uint32_t n, uint32_t rollout, uint32_t position) {
    uint32_t u = vkm_random4(SEED, 0, VKM_RNG_SAMPLE, STEP, rollout, position, 0).x, i = 0;
    uint64_t total = 0, before = 0;
    for (uint32_t j = 0; j < n; j++) total += e[j].kept ? e[j].weight : 0;
    uint64_t target = (uint64_t)((unsigned __int128)total * u >> 32);
    for (;; i++) {
        before += e[i].kept ? e[i].weight : 0;
        if (before > target) return i;
    }
}

static const vkm_sampling settings[] = {
    {0, 0, 1, 0},       {1, 0, 1, 0},     {0.6, 20, 0.95, 0}, {1, 0, 0.9, 0},
    {1, 0, 0.001, 0},   {1.5, 5, 1, 0.3}, {0.7, 200, 0.8, 0}, {1, 200, 1, 0},
    {2, 0, 0.999, 0.1}, {1, 0, 1, 0.2},   {0.8, 50, 0.5, 0},  {1, 1000000, 1, 0},
};

static vkm_backend_id backend_of(void **state) {
    return *(const vkm_backend_id *)*state;
}

static void draws_equal_a_sort(void **state) {
    static const uint32_t vocabs[] = {1, 2, 100, 300, 1031};
    enum { ROWS = 12, TOKENS = 3 };
    uint64_t rng = 42;
    for (size_t v = 0; v < VKM_COUNTOF(vocabs); v++) {
        uint32_t n = vocabs[v], tokens[ROWS * TOKENS];
        float *x = malloc(sizeof(float) * ROWS * n);
        entry *e = malloc(sizeof *e * n);
        for (uint32_t i = 0; i < ROWS * n; i++) { /* plain, many ties, peaked, all equal */
            double z = bench_normal(&rng);
            uint32_t shape = i / n % 4;
            x[i] = (float)(shape == 0 ? z : shape == 1 ? round(2 * z) : shape == 2 ? 6 * z : 1);
        }
        loop l = loop_open(backend_of(state), ROWS, n, TOKENS, x, NULL, ROWS, no_eos);
        for (size_t p = 0; p < VKM_COUNTOF(settings); p++) {
            loop_reset(&l, NULL);
            loop_run(&l, &settings[p], TOKENS);
            bench_read(&l.b, l.tokens, tokens);
            for (uint32_t i = 0; i < ROWS; i++) {
                brute_force(e, n, x + i * n, &settings[p]);
                for (uint32_t t = 0; t < TOKENS; t++)
                    assert_int_equal(tokens[i * TOKENS + t], brute_draw(e, n, i, t));
            }
        }
        bench_close(&l.b);
        free(x), free(e);
    }
}

/* ---- frequencies -------------------------------------------------------------------------------
 */
static void frequencies(void **state) {
    (void)state;
    enum { VOCAB = 300, ROWS = 500, TOKENS = 40, DRAWS = ROWS * TOKENS };
    float *x = malloc(sizeof(float) * ROWS * VOCAB);
    uint32_t *tokens = malloc(sizeof *tokens * DRAWS), seen[VOCAB];
    entry e[VOCAB];
    uint64_t rng = 7;
    for (uint32_t i = 0; i < VOCAB; i++) x[i] = (float)(1.5 * bench_normal(&rng));
    for (uint32_t i = VOCAB; i < ROWS * VOCAB; i++) x[i] = x[i - VOCAB];
    for (size_t p = 1; p < VKM_COUNTOF(settings); p++) {
        loop l = loop_open(VKM_CPU, ROWS, VOCAB, TOKENS, x, NULL, ROWS, no_eos);
        loop_run(&l, &settings[p], TOKENS);
        bench_read(&l.b, l.tokens, tokens);
        bench_close(&l.b);
        brute_force(e, VOCAB, x, &settings[p]);
        memset(seen, 0, sizeof seen);
        for (uint32_t i = 0; i < DRAWS; i++) seen[tokens[i]]++;
        double total = 0, chi = 0, rare_want = 0, rare_seen = 0;
        uint32_t df = 0;
        for (uint32_t i = 0; i < VOCAB; i++) /* in double, not by the integer weights */
            total += e[i].kept ? exp(x[i] / settings[p].temperature) : 0;
        for (uint32_t i = 0; i < VOCAB; i++) {
            double want = e[i].kept ? DRAWS * exp(x[i] / settings[p].temperature) / total : 0;
            if (!e[i].kept) assert_int_equal(seen[i], 0);
            if (want >= 20) assert_true(seen[i] > 0);
            if (want >= 5) {
                chi += (seen[i] - want) * (seen[i] - want) / want;
                df++;
            } else {
                rare_want += want;
                rare_seen += seen[i];
            }
        }
        if (rare_want >= 5) {
            chi += (rare_seen - rare_want) * (rare_seen - rare_want) / rare_want;
            df++;
        }
        /* Wilson-Hilferty: beyond z = 4 once in 30,000 */
        double k = df > 1 ? df - 1 : 1, z = (cbrt(chi / k) - (1 - 2 / (9 * k))) / sqrt(2 / (9 * k));
        print_message("T %g top_k %u top_p %g min_p %g: %u cells, chi-square %.1f, z %.2f\n",
                      settings[p].temperature, settings[p].top_k, settings[p].top_p,
                      settings[p].min_p, df, chi, z);
        assert_true(z < 4);
    }
    free(x), free(tokens);
}

/* ---- batch, log-probability, bookkeeping -------------------------------------------------------
 */
static void alone_or_among_others(void **state) {
    enum { ROWS = 9, VOCAB = 300, TOKENS = 4 };
    float x[ROWS * VOCAB], logp[ROWS * TOKENS], one_logp[ROWS * TOKENS];
    uint32_t tokens[ROWS * TOKENS], one[ROWS * TOKENS];
    uint64_t rng = 3;
    for (uint32_t i = 0; i < ROWS * VOCAB; i++) x[i] = (float)bench_normal(&rng);
    loop l = loop_open(backend_of(state), ROWS, VOCAB, TOKENS, x, NULL, ROWS, no_eos);
    loop_run(&l, &settings[2], TOKENS);
    bench_read(&l.b, l.tokens, tokens);
    bench_read(&l.b, l.logp, logp);
    bench_close(&l.b);
    l = loop_open(backend_of(state), 1, VOCAB, TOKENS, x, NULL, ROWS, no_eos);
    for (uint32_t i = 0; i < ROWS; i++) {
        bench_write(&l.b, l.logits, x + (size_t)i * VOCAB);
        loop_reset(&l, &i);
        loop_run(&l, &settings[2], TOKENS);
        bench_read(&l.b, l.tokens, one);
        bench_read(&l.b, l.logp, one_logp);
        assert_memory_equal(tokens + i * TOKENS, one + i * TOKENS, sizeof(uint32_t) * TOKENS);
        assert_memory_equal(logp + i * TOKENS, one_logp + i * TOKENS, sizeof(float) * TOKENS);
    }
    bench_close(&l.b);
}

static void logp_is_the_training_one(void **state) {
    enum { ROWS = 20, VOCAB = 700 };
    float x[ROWS * VOCAB], sampled[ROWS], trained[ROWS];
    uint64_t rng = 5;
    for (uint32_t i = 0; i < ROWS * VOCAB; i++) x[i] = (float)(3 * bench_normal(&rng));
    loop l = loop_open(backend_of(state), ROWS, VOCAB, 1, x, NULL, ROWS, no_eos);
    vkm_tensor m = bench_new(&l.b, VKM_F32, ROWS), sum = bench_new(&l.b, VKM_F32, ROWS);
    vkm_tensor logp = bench_new(&l.b, VKM_F32, ROWS), entropy = bench_new(&l.b, VKM_F32, ROWS);
    loop_run(&l, &settings[2], 1);
    VKM_OP(l.b.s, lse_combine, .logits = l.logits, .mb = l.mb, .lb = l.lb, .sb = l.sb,
           .targets = l.tokens, .m = m, .l = sum, .logp = logp, .entropy = entropy, .n_rows = ROWS,
           .n_vocab = VOCAB);
    bench_run(&l.b);
    bench_read(&l.b, l.logp, sampled);
    bench_read(&l.b, logp, trained);
    bench_close(&l.b);
    assert_memory_equal(sampled, trained, sizeof sampled);
    assert_true(sampled[0] < 0);
}

static void rows_finish(void **state) {
    enum { ROWS = 3, VOCAB = 70, MAX_NEW = 4 };
    static const uint32_t eos[] = {2, 69, 7};
    float x[ROWS * VOCAB] = {0};
    uint32_t rows[ROWS * VKM_ROW_WORDS], tokens[ROWS * MAX_NEW];
    x[7] = 1;         /* row 0 ends at once */
    x[VOCAB + 5] = 1; /* row 1 runs to max_new */
    /* row 2, all equal: greedy takes the lowest id */
    loop l = loop_open(backend_of(state), ROWS, VOCAB, MAX_NEW, x, NULL, ROWS, eos);
    loop_run(&l, &settings[0], 2);
    bench_read(&l.b, l.state, rows);
    assert_int_equal(rows[VKM_ROW_N_OWN], 1);
    assert_int_equal(rows[VKM_ROW_TOKEN], 7);
    assert_int_equal(rows[VKM_ROW_FINISHED], 1);
    assert_int_equal(rows[VKM_ROW_WORDS + VKM_ROW_N_OWN], 2);
    assert_int_equal(rows[VKM_ROW_WORDS + VKM_ROW_FINISHED], 0);
    loop_run(&l, &settings[0], 7);
    bench_read(&l.b, l.state, rows);
    bench_read(&l.b, l.tokens, tokens);
    bench_close(&l.b);
    static const uint32_t want[] = {7, 0, 0, 0, 5, 5, 5, 5, 0, 0, 0, 0};
    assert_memory_equal(tokens, want, sizeof want);
    assert_int_equal(rows[VKM_ROW_N_OWN], 1);
    for (uint32_t i = 1; i < ROWS; i++) {
        assert_int_equal(rows[i * VKM_ROW_WORDS + VKM_ROW_N_OWN], MAX_NEW);
        assert_int_equal(rows[i * VKM_ROW_WORDS + VKM_ROW_FINISHED], 1);
    }
}

static void bad_settings(void **state) {
    (void)state;
    static const vkm_sampling bad[] = {{-1, 0, 1, 0},  {NAN, 0, 1, 0},     {1, 0, 0, 0},
                                       {1, 0, 1.5, 0}, {1, 0, NAN, 0},     {1, 0, 1, -0.1},
                                       {1, 0, 1, 2},   {INFINITY, 0, 1, 0}};
    for (size_t i = 0; i < VKM_COUNTOF(bad); i++) {
        uint32_t words[VKM_SAMPLE_WORDS];
        vkm_err err = {0};
        assert_int_equal(vkm_sampling_words(&bad[i], 0, 0, 0, words, &err), VKM_USAGE);
        assert_true(err.msg[0] != 0);
    }
}

int main(void) {
    static const vkm_backend_id cpu = VKM_CPU, vulkan = VKM_VULKAN;
    const struct CMUnitTest tests[] = {
        {"draws_equal_a_sort, cpu", draws_equal_a_sort, NULL, NULL, (void *)(uintptr_t)&cpu},
        {"draws_equal_a_sort, vulkan", draws_equal_a_sort, NULL, NULL, (void *)(uintptr_t)&vulkan},
        cmocka_unit_test(frequencies),
        {"alone_or_among_others, cpu", alone_or_among_others, NULL, NULL, (void *)(uintptr_t)&cpu},
        {"alone_or_among_others, vulkan", alone_or_among_others, NULL, NULL,
         (void *)(uintptr_t)&vulkan},
        {"logp_is_the_training_one, cpu", logp_is_the_training_one, NULL, NULL,
         (void *)(uintptr_t)&cpu},
        {"logp_is_the_training_one, vulkan", logp_is_the_training_one, NULL, NULL,
         (void *)(uintptr_t)&vulkan},
        {"rows_finish, cpu", rows_finish, NULL, NULL, (void *)(uintptr_t)&cpu},
        {"rows_finish, vulkan", rows_finish, NULL, NULL, (void *)(uintptr_t)&vulkan},
        cmocka_unit_test(bad_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
