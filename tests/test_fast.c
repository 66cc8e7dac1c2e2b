/* The fast tier, where the build and the device have it (tools/sid.sh makes such a place): products
 * and attention by cooperative matrices against the reference, and what happens elsewhere. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "ops/device.h"
#include "ops/tiles.h"
#include "verify/verify.h"

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
        cmocka_unit_test(the_cpu_has_none), cmocka_unit_test(the_exact_tier_has_none)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
