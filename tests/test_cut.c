/* How the Vulkan backend cuts long dispatches: slices tile the grid and keep what shaders rely on,
 * and the gates of kernels with all sorts of grids hold when every dispatch is cut in up to eight.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "verify/verify.h"
#include "vk/vk_private.h"

static const vkm_backend *honest;
static uint64_t n_nodes;

/* Says of every node that it takes 0.8 s, eight times what a submit may hold. */
static vkm_status run_cut(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err) {
    vk_dev *vk = vkm_vk_of(dev);
    vkm_nodes slow = *nodes;
    slow.v = malloc(nodes->n * sizeof *slow.v);
    if (!slow.v) return vkm_fail(err, VKM_FAILED, "no memory");
    memcpy(slow.v, nodes->v, nodes->n * sizeof *slow.v);
    for (uint32_t i = 0; i < slow.n; i++) slow.v[i].how.work = 0.8e9;
    for (uint32_t i = 0; i < vk->n_kernels; i++) vk->kernels[i].rate = 1e9;
    vkm_status st = honest->run(dev, &slow, err);
    n_nodes += slow.n;
    free(slow.v);
    return st;
}

static vkm_dev *open_dev(void) {
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    if (!vkm_dev_open(&(vkm_dev_options){.backend = VKM_VULKAN}, &dev, &err)) return dev;
    if (!strstr(err.msg, "--backend cpu, which needs none")) fail_msg("%s", err.msg);
    print_message("SKIP: %s\n", err.msg);
    skip();
    return NULL;
}

static void test_gates_hold_when_cut(void **state) {
    (void)state;
    static const char *const gates[] = {
        "kernel/round_bf16", "kernel/gemm",      "kernel/rmsnorm_fwd", "kernel/qk_fwd",
        "kernel/attn_dr",    "kernel/lse_block", "kernel/router_fwd",  "kernel/adamw",
    };
    vkm_err err = {0};
    vkm_dev *dev = open_dev();
    vkm_backend cutting = *dev->backend;
    honest = dev->backend;
    cutting.run = run_cut;
    dev->backend = &cutting;
    for (size_t i = 0; i < VKM_COUNTOF(gates); i++) {
        vkm_verify_options o = {.dev = dev, .select = gates[i], .seed = 11};
        if (vkm_verify_run(&o, stdout, &err)) fail_msg("%s: %s", gates[i], err.msg);
    }
    assert_true(dev->n_dispatches > 2 * n_nodes);
    dev->backend = honest;
    vkm_dev_close(dev);
}

/* Each group of the grid in one slice exactly; a cut inside x only where there is one row. */
static void check_slices(const uint32_t *g, const vk_slice *v, uint32_t n, unsigned char *seen) {
    size_t groups = (size_t)g[0] * g[1] * g[2];
    memset(seen, 0, groups);
    for (uint32_t i = 0; i < n; i++) {
        const vk_slice *s = &v[i];
        if (g[1] > 1) assert_true(s->base[0] == 0 && s->count[0] == g[0]);
        assert_int_equal(s->split, memcmp(s->count, g, sizeof s->count) != 0);
        for (uint32_t z = s->base[2]; z < s->base[2] + s->count[2]; z++)
            for (uint32_t y = s->base[1]; y < s->base[1] + s->count[1]; y++)
                for (uint32_t x = s->base[0]; x < s->base[0] + s->count[0]; x++) {
                    assert_true(x < g[0] && y < g[1] && z < g[2]);
                    assert_int_equal(seen[((size_t)z * g[1] + y) * g[0] + x]++, 0);
                }
    }
    for (size_t i = 0; i < groups; i++) assert_int_equal(seen[i], 1);
}

static void test_slices_tile_the_grid(void **state) {
    (void)state;
    enum { MAX_GROUPS = 12 * 12 * 12, CAP = 4096, ROUNDS = 2000 };
    static vk_slice v[CAP];
    static unsigned char seen[MAX_GROUPS];
    vkm_dev *dev = open_dev();
    vk_dev *vk = vkm_vk_of(dev);
    vkm_err err = {0};
    uint32_t r = 99;
    for (int round = 0; round < ROUNDS; round++) {
        vkm_node node = {.kernel = &vkm_kernels[VKM_K_round_bf16], .barrier = 1};
        vkm_nodes nodes = {&node, 1, 1};
        vk_cursor at = {0};
        uint32_t n = 0;
        for (int d = 0; d < 3; d++) {
            r = r * 1664525u + 1013904223u;
            node.how.groups[d] = (r >> 28 & 1) ? 1 : 1 + (r >> 8) % 12;
        }
        node.how.work = 1e7 * (double)(r >> 20 & 1023); /* up to 10 s at the first guess */
        while (at.node < 1) {
            uint32_t more;
            if (vkm_vk_slices_next(vk, &nodes, &at, v + n, CAP - n, &more, &err))
                fail_msg("%s", err.msg);
            double seconds = 0;
            for (uint32_t i = n; i < n + more; i++) seconds += v[i].estimate_s;
            assert_true(more > 0);
            assert_true(seconds < 0.26 || more == 1);
            n += more;
        }
        assert_true(v[0].barrier);
        for (uint32_t i = 1; i < n; i++) assert_false(v[i].barrier);
        check_slices(node.how.groups, v, n, seen);
    }
    vkm_dev_close(dev);
}

/* What a driver's verdict becomes: the status, and the kernels that were in flight. */
static void test_errors_are_told_apart(void **state) {
    (void)state;
    vkm_dev *dev = open_dev();
    vk_dev *vk = vkm_vk_of(dev);
    vkm_err err = {0};
    vk_slot *slot = &vk->slots[vk->next_slot];
    const vkm_kernel_id flying[] = {VKM_K_gemm, VKM_K_gemm, VKM_K_round_bf16};
    for (uint32_t i = 0; i < VKM_COUNTOF(flying); i++)
        if (vkm_vk_kernel_get(vk, &vkm_kernels[flying[i]], VKM_FORM_plain, &slot->slices[i].kernel,
                              &err))
            fail_msg("%s", err.msg);
    slot->value = 1;
    slot->n_slices = VKM_COUNTOF(flying);
    assert_int_equal(vkm_vk_fail(vk, &err, VK_ERROR_DEVICE_LOST, "a test"), VKM_DEVICE_LOST);
    assert_non_null(strstr(err.msg, "last kernels submitted: gemm, round_bf16;"));
    assert_non_null(strstr(err.msg, dev->name));
    err = (vkm_err){0};
    assert_int_equal(vkm_vk_fail(vk, &err, VK_TIMEOUT, "a test"), VKM_DEVICE_LOST);
    err = (vkm_err){0};
    assert_int_equal(vkm_vk_fail(vk, &err, VK_ERROR_OUT_OF_DEVICE_MEMORY, "a test"), VKM_FAILED);
    assert_non_null(strstr(err.msg, "out of device memory"));
    slot->value = slot->n_slices = 0; /* it was not really so */
    vk->lost = 0;
    vkm_dev_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_errors_are_told_apart),
                                       cmocka_unit_test(test_slices_tile_the_grid),
                                       cmocka_unit_test(test_gates_hold_when_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
