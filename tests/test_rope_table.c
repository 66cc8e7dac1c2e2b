/* Rotary tables against libm in double, and the rounding steps that transformers takes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/numerics.h"
#include "ops/rope_table.h"

static void compare(uint32_t max_pos, uint32_t head_dim, double theta) {
    uint32_t half = head_dim / 2, unlike = 0;
    float *c = malloc(4ull * max_pos * half), *s = malloc(4ull * max_pos * half);
    assert_non_null(c);
    assert_non_null(s);
    vkm_rope_table(c, s, max_pos, head_dim, &(vkm_rope){.theta = theta});
    for (uint32_t i = 0; i < half; i++) {
        float power = (float)pow(theta, (double)((float)(2 * i) / (float)head_dim));
        float inv_freq = 1.0f / power;
        for (uint32_t p = 0; p < max_pos; p++) {
            double angle = (double)((float)p * inv_freq);
            double want_s = sin(angle), want_c = cos(angle);
            float got_s = s[p * half + i], got_c = c[p * half + i];
            /* half a unit in the last place and a little */
            assert_true(fabs((double)got_s - want_s) <=
                        0x1.001p-25 * exp2(ceil(log2(fabs(want_s) + 1e-300))));
            assert_true(fabs((double)got_c - want_c) <=
                        0x1.001p-25 * exp2(ceil(log2(fabs(want_c) + 1e-300))));
            unlike += got_s != (float)want_s;
            unlike += got_c != (float)want_c;
            assert_int_equal(vkm_bits(vkm_canon(got_s)), vkm_bits(got_s));
        }
    }
    print_message("theta %g: %u of %u differ from rounded libm\n", theta, unlike,
                  2 * max_pos * half);
    assert_true(unlike <= 2);
    free(c);
    free(s);
}

static void test_against_libm(void **state) {
    (void)state;
    compare(4096, 128, 1e6); /* Qwen3 */
    compare(300, 64, 10000);
    compare(4096, 16, 10000);
    compare(200, 8, 1.0);
    compare(1 << 18, 2, 500000); /* large angles */
}

static void test_position_zero(void **state) {
    (void)state;
    float c[4], s[4];
    vkm_rope_table(c, s, 1, 8, &(vkm_rope){.theta = 1e6});
    for (int i = 0; i < 4; i++) {
        assert_int_equal(vkm_bits(c[i]), 0x3f800000u);
        assert_int_equal(vkm_bits(s[i]), 0);
    }
}

/* The bits of one table, so that a change of method does not pass unseen. */
static void test_bits_are_pinned(void **state) {
    (void)state;
    enum { N = 64 * 64 };
    static float c[N], s[N];
    vkm_rope_table(c, s, 64, 128, &(vkm_rope){.theta = 1e6});
    uint32_t h = 2166136261u; /* FNV-1a over words */
    for (int i = 0; i < N; i++) {
        h = (h ^ vkm_bits(c[i])) * 16777619u;
        h = (h ^ vkm_bits(s[i])) * 16777619u;
    }
    assert_int_equal(h, 0xfe89d2acu);
}

/* transformers 5.24 (modeling_rope_utils, "llama3") with the numbers of Llama 3.2: inv_freq of a
 * head of 128, which at position 1 is the angle. */
static void test_llama3_frequencies(void **state) {
    (void)state;
    static const struct {
        int i;
        double inv_freq;
    } want[] = {{0, 1},
                {1, 0x1.a11582p-1},
                {20, 0x1.0f5386p-6},
                {28, 0x1.a4ee4p-9},
                {29, 0x1.15a9fp-9},
                {30, 0x1.524f36p-10},
                {32, 0x1.c26c4p-12},
                {34, 0x1.9731eep-14},
                {35, 0x1.90d10cp-16},
                {36, 0x1.46831ap-16},
                {50, 0x1.280d96p-20},
                {63, 0x1.4985fep-24}};
    static float c[2 * 64], s[2 * 64];
    vkm_rope_table(c, s, 2, 128,
                   &(vkm_rope){.theta = 500000,
                               .factor = 32,
                               .low_freq_factor = 1,
                               .high_freq_factor = 4,
                               .original_max_pos = 8192});
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_true(s[64 + want[i].i] == (float)sin(want[i].inv_freq));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_libm),
        cmocka_unit_test(test_position_zero),
        cmocka_unit_test(test_llama3_frequencies),
        cmocka_unit_test(test_bits_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
