/* The tiled products equal the definition bit for bit: every instruction set, odd sizes, K that
 * ends anywhere in a chunk, denormals flushed or not, NaN and Inf. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "ops/attention.h"
#include "ops/gemm_tiled.h"
#include "ops/oprow.h"

static uint32_t state = 1;
static uint32_t random_u32(void) { /* xorshift; test data only */
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
}

/* bf16 of either sign with exponents from 2^-50 to 2^40; now and then zero. */
static uint16_t random_bf16(int special) {
    uint32_t r = random_u32(), e = 77 + (r >> 8) % 91;
    if (r % 13 == 0) return 0;
    if (special && r % 301 == 0) return r & 0x1000 ? 0x7f80 : 0x7fc0;
    return (uint16_t)(vkm_bf16z(vkm_from_bits((r & 1) << 31 | e << 23 | (r >> 9 & 0x7fffff))));
}

static uint16_t *operand(uint32_t rows, uint32_t kp, int special) {
    uint64_t n = vkm_op_size(rows, kp);
    uint16_t *x = calloc(n, sizeof *x);
    assert_non_null(x);
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t k = 0; k < kp; k++) x[vkm_op_index(i, k, kp)] = random_bf16(special);
    return x;
}

static int same(float x, float y) {
    return vkm_bits(x) == vkm_bits(y) || (x != x && y != y);
}

enum { MOST_ROWS = 127 };

/* All tiles of a run; scale (m) or NULL. */
static void run_tiles(const vkm_tiler *t, vkm_operand a, uint32_t m, vkm_operand b, uint32_t n,
                      uint32_t k, const float *scale, float *out, uint32_t ld) {
    for (uint32_t i = 0; i < m; i += VKM_TILE_ROWS)
        t->run(a, i, m - i < VKM_TILE_ROWS ? m - i : VKM_TILE_ROWS, b, 0, n, k,
               scale ? scale + i : NULL, out + (uint64_t)i * ld, ld);
}

static void compare(const char *name, const float *got, const float *want, uint32_t m, uint32_t n,
                    uint32_t k, uint32_t ld) {
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++)
            if (!same(got[(uint64_t)i * ld + j], want[(uint64_t)i * ld + j]))
                fail_msg("%s m %u n %u k %u: (%u, %u) is %a, the definition has %a", name, m, n, k,
                         i, j, (double)got[(uint64_t)i * ld + j],
                         (double)want[(uint64_t)i * ld + j]);
}

static void check(uint32_t m, uint32_t n, uint32_t k, uint32_t kp, int special) {
    uint32_t ld = (uint32_t)vkm_round_up(n, VKM_PANEL);
    uint16_t *a = operand(m, kp, special), *b = operand(n, kp, special);
    float *want = calloc((size_t)m * ld, sizeof *want), *got = calloc((size_t)m * ld, sizeof *got);
    float *sum = calloc((size_t)m * ld, sizeof *sum), scale[MOST_ROWS];
    assert_true(want && got && sum && m <= MOST_ROWS);
    vkm_operand oa = {a, kp}, ob = {b, kp};
    vkm_rule4_naive(oa, 0, m, ob, 0, n, k, want, ld);
    /* tiny ones make products and sums that must become +0 */
    for (uint32_t i = 0; i < m; i++) scale[i] = i % 3 == 0 ? 0 : i % 3 == 1 ? 0.37f : 0x1p-100f;
    for (uint32_t i = 0; i < m; i++)
        for (uint32_t j = 0; j < n; j++) {
            float *s = &sum[(uint64_t)i * ld + j];
            *s = i % 2 ? 0x1p-120f : 0.75f;
            if (scale[i] != 0)
                *s = vkm_canon(*s + vkm_canon(scale[i] * want[(uint64_t)i * ld + j]));
        }
    for (uint32_t t = 0; t < vkm_n_tilers; t++) {
        if (!vkm_tilers[t].usable()) continue;
        for (uint64_t i = 0; i < (uint64_t)m * ld; i++) got[i] = 1e30f;
        run_tiles(&vkm_tilers[t], oa, m, ob, n, k, NULL, got, ld);
        compare(vkm_tilers[t].name, got, want, m, n, k, ld);
        if (k > VKM_CHUNK) continue;
        for (uint64_t i = 0; i < (uint64_t)m * ld; i++) got[i] = i / ld % 2 ? 0x1p-120f : 0.75f;
        run_tiles(&vkm_tilers[t], oa, m, ob, n, k, scale, got, ld);
        compare(vkm_tilers[t].name, got, sum, m, n, k, ld);
    }
    free(a), free(b), free(want), free(got), free(sum);
}

static void tiled_is_naive(void **unused) {
    (void)unused;
    static const uint32_t rows[] = {1, 2, 3, 7, 8, 15, 17, 31, 63, 64, 65, 127};
    static const uint32_t cols[] = {1, 15, 16, 17, 33, 48, 49, 65, 193};
    static const uint32_t depth[] = {0, 8, 248, 256, 264, 520, 1032};
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++)
        for (size_t j = 0; j < VKM_COUNTOF(cols); j++)
            check(rows[i], cols[j], depth[(i + j) % VKM_COUNTOF(depth)],
                  depth[(i + j) % VKM_COUNTOF(depth)] + 8 * (uint32_t)(j % 3), 0);
    for (size_t d = 0; d < VKM_COUNTOF(depth); d++) check(19, 35, depth[d], depth[d] + 16, 0);
}

static void nan_and_inf(void **unused) {
    (void)unused;
    check(65, 65, 520, 520, 1);
    check(5, 17, 256, 256, 1);
}

/* The sum really is cut at 256: these numbers differ from a plain sequential sum. */
static void chunks_count(void **unused) {
    (void)unused;
    enum { K = 512 };
    uint16_t *a = calloc(16 * K, 2), *b = calloc(16 * K, 2);
    assert_true(a && b);
    for (uint32_t k = 0; k < K; k++) {
        /* 2^24 first, then ones that vanish against it unless they meet in a chunk of their own */
        a[vkm_op_index(0, k, K)] = (uint16_t)vkm_bf16z(k ? 1.0f : 16777216.0f);
        b[vkm_op_index(0, k, K)] = (uint16_t)vkm_bf16z(1.0f);
    }
    float out[VKM_PANEL];
    vkm_rule4_naive((vkm_operand){a, K}, 0, 1, (vkm_operand){b, K}, 0, 1, K, out, VKM_PANEL);
    assert_true(out[0] == 16777216.0f + 256.0f);
    vkm_tiler_best()((vkm_operand){a, K}, 0, 1, (vkm_operand){b, K}, 0, 1, K, NULL, out, VKM_PANEL);
    assert_true(out[0] == 16777216.0f + 256.0f);
    free(a), free(b);
}

/* The plain store of a panel's block and the transposed one write the same lines. */
static void blocks_are_stored_alike(void **unused) {
    (void)unused;
    uint16_t block[16][16], line[2][256];
    for (uint32_t i = 0; i < 256; i++) block[i / 16][i % 16] = (uint16_t)(i * 257 + 3);
    for (int limit = 0; limit < 2; limit++) {
        vkm_lanes_limit = limit;
        vkm_block_store(line[limit], block);
    }
    vkm_lanes_limit = 2;
    for (uint32_t k = 0; k < 16; k++)
        for (uint32_t r = 0; r < 16; r++) {
            assert_int_equal(line[0][k / 2 * 32 + 2 * r + k % 2], block[r][k]);
            assert_int_equal(line[1][k / 2 * 32 + 2 * r + k % 2], block[r][k]);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_stored_alike), cmocka_unit_test(tiled_is_naive),
        cmocka_unit_test(nan_and_inf), cmocka_unit_test(chunks_count)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
