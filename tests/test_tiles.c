/* No choice for a device changes a bit: the products' gates with shapes of every device class,
 * forced, and every kernel's as a GPU would run it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>

#include "ops/tiles_private.h"
#include "verify/verify.h"
#include "vk/backend.h"

static vkm_dev *dev;

static int open_device(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev_options o = {.backend = VKM_VULKAN};
    if (vkm_dev_open(&o, &dev, &err)) print_message("no Vulkan device: %s\n", err.msg);
    return 0;
}

static int close_device(void **state) {
    (void)state;
    vkm_dev_close(dev);
    return 0;
}

static void gates_with(const char *tile, const char *select) {
    if (!dev) skip();
    vkm_err err = {0};
    assert_int_equal(setenv("VKMOE_TILE", tile, 1), 0);
    vkm_verify_options vo = {.dev = dev, .seed = 11, .select = select};
    vkm_status st = vkm_verify_run(&vo, stdout, &err);
    unsetenv("VKMOE_TILE");
    if (st) fail_msg("VKMOE_TILE=%s: %s", tile, err.msg);
}

static void tile_of_gpus(void **state) {
    (void)state;
    gates_with("plain,64,16,4,0,2", "kernel/gemm");
}
static void lanes_share_rows(void **state) {
    (void)state;
    gates_with("plain,8,16,4,1,4", "kernel/gemm");
}
static void two_panels_of_rows(void **state) {
    (void)state;
    gates_with("plain,8,32,4,0,1", "kernel/linear_bf16");
}

static void staged_in_workgroup_memory(void **state) {
    (void)state;
    gates_with("shared,256,8,8,16,4", "kernel/linear");
    gates_with("shared,32,4,8,8,4", "kernel/gemm");
}
static void chunks_side_by_side(void **state) {
    (void)state;
    gates_with("split,64,8,4,8,4", "kernel/linear");
    gates_with("split,32,16,4,4,1", "kernel/gemm");
    gates_with("split,16,4,4,4,2", "kernel/linear_bf16");
    gates_with("split,64,4,4,4,16", "kernel/lora_down");
}

static void kernels_of_gpus(void **state) {
    (void)state;
    if (!dev) skip();
    vkm_err err = {0};
    vkm_dev *gpu = NULL;
    assert_int_equal(setenv("VKMOE_CLASS", "gpu", 1), 0);
    vkm_dev_options o = {.backend = VKM_VULKAN};
    vkm_status st = vkm_dev_open(&o, &gpu, &err);
    unsetenv("VKMOE_CLASS");
    if (st) fail_msg("%s", err.msg);
    assert_int_equal(vkm_dev_class_of(gpu), VKM_CLASS_GPU);
    vkm_verify_options vo = {.dev = gpu, .seed = 11, .select = "kernel/"};
    if (vkm_verify_run(&vo, stdout, &err)) fail_msg("as on a GPU: %s", err.msg);
    vkm_dev_close(gpu);
}

/* Matrices as NVIDIA, AMD and Intel have them, for subgroups of 8 to 64. */
static void every_matrix_has_a_tile(void **state) {
    (void)state;
    static const vkm_matrix matrices[] = {
        {VKM_FORM_half, 16, 16, 16, 32}, {VKM_FORM_half, 16, 16, 16, 64},
        {VKM_FORM_half, 16, 8, 16, 32},  {VKM_FORM_half, 16, 8, 8, 32},
        {VKM_FORM_half, 8, 16, 16, 16},  {VKM_FORM_half, 8, 16, 16, 32},
        {VKM_FORM_half, 8, 8, 16, 8},    {VKM_FORM_half, 8, 8, 8, 8},
        {VKM_FORM_bf16, 16, 16, 32, 32}, {VKM_FORM_bf16, 16, 16, 32, 64},
    };
    static const uint32_t sizes[] = {1, 8, 16, 17, 33, 64, 65, 400, 2560, 9728, 151936};
    for (size_t i = 0; i < VKM_COUNTOF(matrices); i++)
        for (size_t m = 0; m < VKM_COUNTOF(sizes); m++)
            for (size_t n = 0; n < VKM_COUNTOF(sizes); n++) {
                vkm_dev gpu = {.class = VKM_CLASS_GPU, .matrix = matrices[i]};
                vkm_tile t = vkm_tile_for(&gpu, 2, sizes[m], sizes[n]);
                assert_true(vkm_tile_usable(t, matrices[i]));
            }
}

static void a_bad_shape_is_ignored(void **state) {
    (void)state;
    if (!dev) skip();
    vkm_tile want = vkm_tile_for(dev, 1, 100, 100);
    static const char *const bad[] = {"",
                                      "8",
                                      "plain,8,12,4,0,1",
                                      "plain,8,16,6,0,1",
                                      "plain,0,16,4,0,1",
                                      "plain,8,16,4,0,3",
                                      "plain,8,16,4,0,2,1",
                                      "round,8,16,4,0,2",
                                      "shared,256,8,8,0,8",
                                      "shared,256,8,8,15,8",
                                      "shared,256,16,16,16,4",
                                      "shared,256,8,8,16,8",
                                      "shared,32,4,8,16,8",
                                      "split,64,8,8,8,4",
                                      "split,256,32,4,8,4",
                                      "split,24,8,4,8,4",
                                      "split,64,8,4,8,32",
                                      "half,64,4,4,4,2"};
    for (size_t i = 0; i < VKM_COUNTOF(bad); i++) {
        assert_int_equal(setenv("VKMOE_TILE", bad[i], 1), 0);
        vkm_tile got = vkm_tile_for(dev, 1, 100, 100);
        unsetenv("VKMOE_TILE");
        assert_memory_equal(&got, &want, sizeof got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(tile_of_gpus),
                                       cmocka_unit_test(lanes_share_rows),
                                       cmocka_unit_test(every_matrix_has_a_tile),
                                       cmocka_unit_test(two_panels_of_rows),
                                       cmocka_unit_test(staged_in_workgroup_memory),
                                       cmocka_unit_test(chunks_side_by_side),
                                       cmocka_unit_test(kernels_of_gpus),
                                       cmocka_unit_test(a_bad_shape_is_ignored)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
