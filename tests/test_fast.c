/* The fast tier, where the build and the device have it (tools/sid.sh makes such a place): products
 * and attention by cooperative matrices against the reference, and what happens elsewhere. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/init_model.h"
#include "ops/device.h"
#include "ops/tiles.h"
#include "tmpdir.h"
#include "program.h"
#include "verify/verify.h"
#include "vk/backend.h"

static vkm_dev *dev;

static int open_device(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev_options o = {.backend = VKM_VULKAN, .fast = 1};
    if (!vkm_device_open(&o, &dev, &err)) return 0;
    print_message("SKIPPED, the fast tier cannot be tested here: %s\n", err.msg);
    return 0;
}

static int close_device(void **state) {
    (void)state;
    vkm_dev_close(dev);
    return 0;
}

/* Integers bit for bit, other values within the bound, twice the same: see verify.c. */
static void kernels_pass_their_gates(void **state) {
    (void)state;
    if (!dev) skip();
    static const char *const gates[] = {"kernel/gemm", "kernel/linear", "kernel/attn"};
    for (size_t i = 0; i < VKM_COUNTOF(gates); i++) {
        vkm_err err = {0};
        vkm_verify_options o = {.dev = dev, .seed = 3, .select = gates[i]};
        if (vkm_verify_run(&o, stdout, &err)) fail_msg("%s", err.msg);
    }
}

/* Rows of a decode step go by the exact form, others by the matrices, in tiles that are usable. */
static void tiles_are_of_the_tier(void **state) {
    (void)state;
    if (!dev) skip();
    static const uint32_t sizes[][2] = {{9, 1}, {17, 4096}, {33, 128}, {64, 64}, {4096, 4096}};
    for (size_t i = 0; i < VKM_COUNTOF(sizes); i++) {
        char text[64];
        vkm_tile t = vkm_tile_for(dev, 2, sizes[i][0], sizes[i][1]), again;
        assert_int_equal(t.form, vkm_dev_matrix(dev).form);
        vkm_tile_write(t, text);
        assert_true(vkm_tile_read(dev, text, &again));
        assert_memory_equal(&t, &again, sizeof t);
    }
    vkm_tile few = vkm_tile_for(dev, 2, 8, 4096);
    assert_true(few.form == VKM_FORM_plain || few.form == VKM_FORM_split);
}

/* The numbers of the arrays "logprobs" in what the program printed, line by line. */
static uint32_t read_logprobs(double *to, uint32_t cap) {
    uint32_t n = 0;
    for (const char *at = out; (at = strstr(at, "\"logprobs\": [")) != NULL;) {
        at += strlen("\"logprobs\": [");
        for (char *end; n < cap; at = end + 1) {
            to[n++] = strtod(at, &end);
            if (*end != ',') break;
        }
    }
    return n;
}

/* As on a GPU, where a decode step's products are made in parts: what was drawn so is scored by the
 * CPU, which makes them whole. What tiers may differ by, bf16's rounding tipped by another order of
 * sums, is 0.013 on lavapipe; parts that lie on one another, or are left out, make it 1.4 and 2.1.
 */
static void decoding_in_parts(void **state) {
    if (!dev) skip();
    enum { ROWS = 40, TOKENS = 5 };
    static const char text[] = "{\"prompt\": \"one two\", \"completion\": \" three four\"}\n"
                               "{\"prompt\": \"a b c\", \"completion\": \" d e f g\"}\n";
    const vkm_matrix sixteen = {VKM_FORM_half, 16, 16, 16, 32};
    vkm_dev gpu = {.class = VKM_CLASS_GPU, .matrix = sixteen};
    assert_int_equal(vkm_tile_k_part(&gpu, ROWS, 2 * 2048, 1024), 512);
    assert_int_equal(vkm_tile_k_part(&gpu, 8, 2 * 2048, 1024), 0);
    assert_int_equal(vkm_tile_k_part(&gpu, 65, 2 * 2048, 1024), 0);
    const vkm_model_preset *tiny = NULL;
    vkm_err err = {0};
    assert_int_equal(tmpdir_make(state), 0);
    if (vkm_model_preset_find("tiny", &tiny, &err) || !tiny) {
        fail_msg("%s", err.msg);
        return;
    }
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 5};
    o.config.C = 1024, o.config.F = 2048, o.config.H = 8, o.config.K = 4, o.config.D = 64;
    if (vkm_init_model(&o, NULL, &err)) fail_msg("%s", err.msg);
    put_file("rows.jsonl", text, sizeof text - 1);
    works(vkmoe("sft --backend cpu --model '%s' --data '%s' --output_dir '%s' --sft_train both "
                "--lora_rank 3 --max_steps 4 --warmup_steps 0 --learning_rate 0.02 "
                "--per_device_train_batch_size 2",
                in_dir("model"), in_dir("rows.jsonl"), in_dir("run")));
    setenv("VKMOE_CLASS", "gpu", 1);
    works(vkmoe("generate --backend vulkan --numerics fast --run '%s' --w 0.5 --prompt 'x y' "
                "--json --temperature 1 "
                "--num_return_sequences %d --max_new_tokens %d --seed 7",
                in_dir("run"), ROWS, TOKENS));
    unsetenv("VKMOE_CLASS");
    static double drawn[ROWS * TOKENS], scored[ROWS * TOKENS];
    double most = 0;
    uint32_t n = read_logprobs(drawn, ROWS * TOKENS);
    char *rows = calloc(1, sizeof out);
    size_t len = 0;
    assert_non_null(rows);
    for (const char *at = out; (at = strstr(at, "\"ids\": [")) != NULL; at++)
        len += (size_t)snprintf(rows + len, sizeof out - len,
                                "{\"prompt\": \"x y\", \"completion_ids\": %.*s}\n",
                                (int)(strchr(at, ']') + 1 - strchr(at, '[')), strchr(at, '['));
    put_file("scored.jsonl", rows, len);
    free(rows);
    works(vkmoe("score --backend cpu --run '%s' --w 0.5 --data '%s'", in_dir("run"),
                in_dir("scored.jsonl")));
    assert_int_equal(read_logprobs(scored, ROWS * TOKENS), n);
    for (uint32_t i = 0; i < n; i++) most = fmax(most, fabs(drawn[i] - scored[i]));
    print_message("%u log-probabilities, at most %g apart\n", n, most);
    assert_true(n > ROWS && most < 0.05);
    tmpdir_remove(state);
}

static void the_cpu_has_none(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *cpu = NULL;
    vkm_dev_options o = {.backend = VKM_CPU, .fast = 1};
    assert_int_equal(vkm_device_open(&o, &cpu, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "use numerics exact"));
}

/* A tile of matrices is no tile of the exact tier. */
static void the_exact_tier_has_none(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *cpu = NULL;
    vkm_tile t;
    vkm_dev_options o = {.backend = VKM_CPU, .threads = 1};
    if (vkm_device_open(&o, &cpu, &err)) fail_msg("%s", err.msg);
    assert_false(vkm_tile_read(cpu, "half,32,2,2,1,16", &t));
    assert_false(vkm_tile_read(cpu, "bf16,32,2,2,1,16", &t));
    vkm_dev_close(cpu);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_pass_their_gates), cmocka_unit_test(tiles_are_of_the_tier),
        cmocka_unit_test(decoding_in_parts), cmocka_unit_test(the_cpu_has_none),
        cmocka_unit_test(the_exact_tier_has_none)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
