/* Streams, graphs, barriers, memory plans and device choice, on the cpu backend and on Vulkan. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/kernels.h"
#include "ops/numerics.h"
#include "vk/backend.h"

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

/* The device of a test, or a loud skip where this machine has no Vulkan. */
static vkm_dev *open_dev(vkm_dev_options o) {
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    if (!vkm_dev_open(&o, &dev, &err)) return dev;
    if (o.backend == VKM_VULKAN &&
        (strstr(err.msg, "no driver") || strstr(err.msg, "not installed"))) {
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    fail_msg("%s", err.msg);
    return NULL;
}

static vkm_backend_id backend_of(void **state) {
    return *(vkm_backend_id *)*state;
}

static vkm_mem *two(vkm_dev *dev, vkm_tensor *x, vkm_tensor *y, uint64_t n) {
    vkm_err err = {0};
    vkm_plan *p = vkm_plan_new(dev);
    vkm_mem *mem = NULL;
    vkm_plan_add(p, x, VKM_F32, n, "x");
    vkm_plan_add(p, y, VKM_BF16, n, "y");
    check(vkm_plan_commit(p, &mem, &err), &err);
    return mem;
}

static float *numbers(uint32_t n) {
    float *x = malloc(n * sizeof *x);
    uint32_t s = 12345;
    for (uint32_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(int)(s >> 8) * 0x1p-20f - 8;
    }
    return x;
}

static void test_transfers(void **state) {
    vkm_dev *dev = open_dev((vkm_dev_options){.backend = backend_of(state), .validate = 1});
    vkm_err err = {0};
    vkm_tensor x, y;
    enum { N = 6 << 20 }; /* 24 MiB: more than one staged chunk */
    vkm_mem *mem = two(dev, &x, &y, N);
    float *in = numbers(N), *out = malloc(N * sizeof *out);
    check(vkm_read(dev, x, out, &err), &err);
    for (uint32_t i = 0; i < N; i++) assert_true(out[i] == 0);
    check(vkm_write(dev, x, in, &err), &err);
    check(vkm_read(dev, x, out, &err), &err);
    assert_memory_equal(in, out, N * sizeof *in);
    /* zeroing a view of half words leaves its neighbours */
    uint16_t h[16], all[16];
    memset(all, 0xff, sizeof all);
    for (uint32_t first = 0; first < 6; first++)
        for (uint32_t n = 0; n < 8; n++) {
            check(vkm_write(dev, vkm_view(y, 0, 16), all, &err), &err);
            check(vkm_zero(dev, vkm_view(y, first, n), &err), &err);
            check(vkm_read(dev, vkm_view(y, 0, 16), h, &err), &err);
            for (uint32_t i = 0; i < 16; i++)
                assert_int_equal(h[i], i >= first && i < first + n ? 0 : 0xffff);
        }
    free(in);
    free(out);
    vkm_mem_free(mem);
    vkm_dev_close(dev);
}

/* Records y = bf16(x), as a grid of our own choice. */
static void launch(vkm_stream *s, vkm_tensor x, vkm_tensor y, uint32_t gx, uint32_t gy, uint32_t gz,
                   double work) {
    vkm_args_f32_to_bf16 a = {.x = x, .y = y, .n_words = (uint32_t)(y.n / 2)};
    vkm_stream_launch(s, &vkm_kernels[VKM_K_f32_to_bf16], &a,
                      (vkm_launch){{gx, gy, gz}, {64}, work});
}

static void flush(vkm_stream *s) {
    vkm_err err = {0};
    check(vkm_stream_flush(s, &err), &err);
}

/* A dispatch that is too long is cut along its grid, and no bit changes: every shape of grid that
 * the cut treats in its own way. */
static void test_split(void **state) {
    static const uint32_t grids[][3] = {{640, 1, 1}, {20, 32, 1}, {5, 128, 1}, {64, 10, 1}};
    enum { N = 2 * 640 * 64 - 2 };
    vkm_dev *dev = open_dev((vkm_dev_options){.backend = backend_of(state), .validate = 1});
    vkm_err err = {0};
    vkm_tensor x, y;
    vkm_stream *s = NULL;
    vkm_mem *mem = two(dev, &x, &y, N);
    float *in = numbers(N);
    uint16_t *whole = malloc(N * sizeof *whole), *cut = malloc(N * sizeof *cut);
    check(vkm_write(dev, x, in, &err), &err);
    check(vkm_stream_new(dev, &s, &err), &err);
    for (size_t i = 0; i < VKM_COUNTOF(grids); i++) {
        const uint32_t *g = grids[i];
        launch(s, x, y, g[0], g[1], g[2], 1);
        flush(s);
        check(vkm_read(dev, y, whole, &err), &err);
        check(vkm_zero(dev, y, &err), &err);
        uint64_t before = dev->n_dispatches;
        launch(s, x, y, g[0], g[1], g[2], 1e10); /* said to be long */
        flush(s);
        if (backend_of(state) == VKM_VULKAN) assert_true(dev->n_dispatches - before > 2);
        check(vkm_read(dev, y, cut, &err), &err);
        assert_memory_equal(whole, cut, N * sizeof *cut);
        assert_int_equal(whole[N - 1], vkm_bf16z(in[N - 1]));
    }
    free(in);
    free(whole);
    free(cut);
    vkm_stream_free(s);
    vkm_mem_free(mem);
    vkm_dev_close(dev);
}

int main(void) {
    static vkm_backend_id ids[] = {VKM_CPU, VKM_VULKAN};
    const struct CMUnitTest tests[] = {
        {"transfers cpu", test_transfers, NULL, NULL, &ids[0]},
        {"transfers vulkan", test_transfers, NULL, NULL, &ids[1]},
        {"split cpu", test_split, NULL, NULL, &ids[0]},
        {"split vulkan", test_split, NULL, NULL, &ids[1]},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
