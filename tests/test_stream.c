/* Streams, graphs, barriers, memory plans and device choice, on the cpu backend and on Vulkan. */
#include <dirent.h>
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

/* The device of a test, or a loud skip where this machine has no Vulkan. Validation is on wherever
 * its layer is installed. */
static vkm_dev *open_dev(vkm_dev_options o) {
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    vkm_status st = vkm_dev_open(&o, &dev, &err);
    if (st && o.validate && strstr(err.msg, "vulkan-validationlayers")) {
        print_message("without validation: %s\n", err.msg);
        o.validate = 0;
        err = (vkm_err){0};
        st = vkm_dev_open(&o, &dev, &err);
    }
    if (!st) return dev;
    if (o.backend == VKM_VULKAN && strstr(err.msg, "--backend cpu")) {
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

/* Records y = bf16(x) as floats in y's place, as a grid of our own choice. */
static void launch(vkm_stream *s, vkm_tensor x, vkm_tensor y, uint32_t gx, uint32_t gy, uint32_t gz,
                   double work) {
    vkm_tensor floats = {y.addr, y.n / 2, 4, VKM_F32};
    vkm_args_round_bf16 a = {.x = x, .y = floats, .n = (uint32_t)floats.n};
    vkm_stream_launch(s, &vkm_kernels[VKM_K_round_bf16], &a,
                      (vkm_launch){{gx, gy, gz}, {64}, work});
}

static void flush(vkm_stream *s) {
    vkm_err err = {0};
    check(vkm_stream_flush(s, &err), &err);
}

/* A dispatch that is too long is cut along its grid, and no bit changes. */
static void split_grid(vkm_backend_id backend, const uint32_t *g) {
    enum { N = 2 * 640 * 64 - 2 };
    vkm_dev *dev = open_dev((vkm_dev_options){.backend = backend, .validate = 1});
    vkm_err err = {0};
    vkm_tensor x, y;
    vkm_stream *s = NULL;
    vkm_mem *mem = two(dev, &x, &y, N);
    float *in = numbers(N);
    uint16_t *whole = malloc(N * sizeof *whole), *cut = malloc(N * sizeof *cut);
    check(vkm_write(dev, x, in, &err), &err);
    check(vkm_stream_new(dev, &s, &err), &err);
    launch(s, x, y, g[0], g[1], g[2], 1);
    flush(s);
    check(vkm_read(dev, y, whole, &err), &err);
    check(vkm_zero(dev, y, &err), &err);
    uint64_t before = dev->n_dispatches;
    launch(s, x, y, g[0], g[1], g[2],
           1e18); /* said to be long; a submit at a time it is unlearned */
    flush(s);
    if (backend == VKM_VULKAN) assert_true(dev->n_dispatches - before > 2);
    check(vkm_read(dev, y, cut, &err), &err);
    assert_memory_equal(whole, cut, N * sizeof *cut);
    assert_int_equal(whole[N - 1], vkm_bf16z(in[N / 2 - 1])); /* the last float's high half */
    free(in);
    free(whole);
    free(cut);
    vkm_stream_free(s);
    vkm_mem_free(mem);
    vkm_dev_close(dev);
}

static void test_split(void **state) {
    static const uint32_t grids[][3] = {{640, 1, 1}, {20, 32, 1}, {5, 128, 1}, {64, 10, 1}};
    for (size_t i = 0; i < VKM_COUNTOF(grids); i++) split_grid(backend_of(state), grids[i]);
}

/* Where a driver compiles at the first dispatch, a new kernel first runs over nothing in a submit
 * of its own, so that compiling counts in no other's time-out. */
static void test_compiled_before_it_counts(void **state) {
    (void)state;
    vkm_dev *dev = open_dev((vkm_dev_options){.backend = VKM_VULKAN, .validate = 1});
    vkm_err err = {0};
    vkm_tensor x, y;
    vkm_stream *s = NULL;
    vkm_mem *mem = two(dev, &x, &y, 256);
    check(vkm_stream_new(dev, &s, &err), &err);
    uint64_t submits[3] = {0};
    for (int i = 0; i < 3; i++) {
        uint64_t before = dev->n_submits;
        launch(s, x, y, 2, 1, 1, 1);
        flush(s);
        submits[i] = dev->n_submits - before;
    }
    assert_int_equal(submits[0], vkm_dev_class_of(dev) == VKM_CLASS_CPU_DRIVER ? 2 : 1);
    assert_int_equal(submits[1], 1);
    assert_int_equal(submits[2], 1);
    vkm_stream_free(s);
    vkm_mem_free(mem);
    vkm_dev_close(dev);
}

/* ---- barriers ---- */

enum { CHAIN = 6, WORDS = 64 };

/* A small graph on tensors of its own: reads after writes, a write after a read, a write after a
 * write, overlap by a view, and two nodes that need no barrier. Addresses are only compared. */
static vkm_node node_of(vkm_tensor x, vkm_tensor y) {
    vkm_node node = {.kernel = &vkm_kernels[VKM_K_round_bf16]};
    vkm_args_round_bf16 a = {.x = x, .y = y, .n = (uint32_t)(y.n / 2)};
    memcpy(node.args, &a, sizeof a);
    return node;
}

static vkm_tensor fake(uint64_t addr, uint32_t esz) {
    return (vkm_tensor){addr, WORDS, esz, esz == 4 ? VKM_F32 : VKM_BF16};
}

static void test_each_barrier_counts(void **state) {
    (void)state;
    vkm_tensor a = fake(0x1000, 4), b = fake(0x2000, 2), c = fake(0x3000, 2), d = fake(0x4000, 2);
    vkm_tensor b_tail = {b.addr + 64, WORDS / 4, 4, VKM_F32}, a_out = {a.addr, WORDS, 2, VKM_BF16};
    vkm_node v[CHAIN] = {
        node_of(a, b),          /* */
        node_of(a, c),          /* reads the same: none */
        node_of(b_tail, d),     /* read after write, a view */
        node_of(a, d),          /* write after write */
        node_of(b_tail, a_out), /* write after read */
        node_of(a, b),          /* read after write, write after read */
    };
    static const int expected[CHAIN] = {0, 0, 1, 1, 1, 1};
    vkm_nodes nodes = {v, CHAIN, CHAIN};
    uint32_t first, second;
    vkm_place_barriers(&nodes, 0);
    for (int i = 0; i < CHAIN; i++) assert_int_equal(v[i].barrier, expected[i]);
    assert_true(vkm_barriers_suffice(&nodes, &first, &second));
    for (int i = 0; i < CHAIN; i++) {
        if (!v[i].barrier) continue;
        v[i].barrier = 0;
        assert_false(vkm_barriers_suffice(&nodes, &first, &second));
        assert_true(first < (uint32_t)i + 1 && second >= (uint32_t)i);
        v[i].barrier = 1;
    }
    vkm_place_barriers(&nodes, 1);
    assert_true(v[0].barrier);
}

/* Placement by range sets against the definition, on random nodes. */
static void test_barriers_random(void **state) {
    (void)state;
    enum { N = 60, ROUNDS = 300 };
    static vkm_node v[N];
    uint32_t s = 1;
    for (int round = 0; round < ROUNDS; round++) {
        vkm_nodes nodes = {v, N, N};
        uint32_t since = 0, first, second, span = 64u << round % 12;
        for (int i = 0; i < N; i++) {
            vkm_tensor t[2];
            for (int j = 0; j < 2; j++) {
                s = s * 1664525u + 1013904223u;
                t[j] = (vkm_tensor){0x1000 + (s >> 8) % span * 4, 2 + (s >> 4) % 30, 4 - 2 * j,
                                    j ? VKM_BF16 : VKM_F32};
            }
            v[i] = node_of(t[0], t[1]);
        }
        vkm_place_barriers(&nodes, 0);
        for (uint32_t i = 0; i < N; i++) {
            int need = 0;
            for (uint32_t j = since; j < i; j++) need |= vkm_nodes_conflict(&v[j], &v[i]);
            assert_int_equal(v[i].barrier, need);
            if (need) since = i;
        }
        assert_true(vkm_barriers_suffice(&nodes, &first, &second));
    }
}

/* ---- graphs ---- */

/* acc[s][c] += a column sum: a kernel whose repetition shows. */
static void record_sums(vkm_stream *s, vkm_tensor x, vkm_tensor seqs, vkm_tensor acc) {
    VKM_OP(s, seq_sum, .x = x, .seqs = seqs, .acc = acc, .n_seq = 3, .n_cols = 70);
    VKM_OP(s, seq_sum, .x = acc, .seqs = seqs, .acc = x, .n_seq = 1, .n_cols = 70);
}

static void test_graph(void **state) {
    enum { TIMES = 37, X = 48 * 70, ACC = 16 * 70 };
    vkm_dev *dev = open_dev(
        (vkm_dev_options){.backend = backend_of(state), .validate = 1, .check_hazards = 1});
    vkm_err err = {0};
    vkm_tensor x, seqs, acc;
    vkm_stream *s = NULL;
    vkm_graph *g = NULL;
    vkm_mem *mem = NULL;
    vkm_plan *p = vkm_plan_new(dev);
    static const uint32_t table[12] = {0, 5, 0, 0, 16, 11, 0, 0, 32, 16, 0, 0};
    vkm_plan_add(p, &x, VKM_F32, X, "x");
    vkm_plan_add(p, &seqs, VKM_U32, 12, "seqs");
    vkm_plan_add(p, &acc, VKM_F32, ACC, "acc");
    check(vkm_plan_commit(p, &mem, &err), &err);
    check(vkm_stream_new(dev, &s, &err), &err);
    check(vkm_write(dev, seqs, table, &err), &err);
    float *in = numbers(X), want[ACC], got[ACC], want_x[X], got_x[X];
    for (int i = 0; i < X; i++) in[i] *= 0x1p-10f;
    check(vkm_write(dev, x, in, &err), &err);
    for (int t = 0; t < TIMES; t++) {
        record_sums(s, x, seqs, acc);
        flush(s);
    }
    check(vkm_read(dev, acc, want, &err), &err);
    check(vkm_read(dev, x, want_x, &err), &err);
    check(vkm_write(dev, x, in, &err), &err);
    check(vkm_zero(dev, acc, &err), &err);
    record_sums(s, x, seqs, acc);
    check(vkm_stream_take_graph(s, &g, &err), &err);
    check(vkm_graph_run(g, 1, &err), &err);
    check(vkm_graph_run(g, 0, &err), &err);
    check(vkm_graph_run(g, TIMES - 1, &err), &err);
    check(vkm_read(dev, acc, got, &err), &err);
    check(vkm_read(dev, x, got_x, &err), &err);
    assert_memory_equal(want, got, sizeof got);
    assert_memory_equal(want_x, got_x, sizeof got_x);
    assert_true(want[0] != 0);
    free(in);
    vkm_graph_free(g);
    vkm_stream_free(s);
    vkm_mem_free(mem);
    vkm_dev_close(dev);
}

/* ---- errors ---- */

static void test_bad_device(void **state) {
    (void)state;
    vkm_dev_info *info = NULL;
    vkm_err err = {0};
    uint32_t n = 0;
    vkm_dev *dev = NULL;
    if (vkm_dev_list(&info, &n, &err)) {
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    static const char *const names[] = {"no such card", "99", ""};
    for (size_t i = 0; i < 2; i++) {
        vkm_dev_options o = {.backend = VKM_VULKAN, .device = names[i]};
        err = (vkm_err){0};
        assert_int_equal(vkm_dev_open(&o, &dev, &err), VKM_USAGE);
        assert_non_null(strstr(err.msg, names[i]));
        assert_non_null(strstr(err.msg, info[0].name));
    }
    vkm_dev_options o = {.backend = VKM_VULKAN, .device = "0"};
    err = (vkm_err){0};
    if (!info[0].refused[0]) {
        check(vkm_dev_open(&o, &dev, &err), &err);
        assert_string_equal(vkm_dev_name(dev), info[0].name);
        vkm_dev_close(dev);
    }
    free(info);
}

static void test_out_of_memory(void **state) {
    vkm_dev *dev = open_dev((vkm_dev_options){.backend = backend_of(state)});
    vkm_err err = {0};
    vkm_tensor t[64], huge;
    vkm_mem *mem = NULL;
    assert_true(vkm_dev_budget(dev) > 0);
    uint64_t each = vkm_dev_budget(dev) / 32 / 4;
    if (each * 4 > dev->max_alloc_bytes / 2) each = dev->max_alloc_bytes / 8;
    vkm_plan *p = vkm_plan_new(dev);
    for (size_t i = 0; i < VKM_COUNTOF(t); i++) vkm_plan_add(p, &t[i], VKM_F32, each, "cache");
    char needed[32];
    snprintf(needed, sizeof needed, "%llu MiB", (unsigned long long)(vkm_plan_bytes(p) >> 20));
    uint64_t budget = dev->budget_bytes;
    if (vkm_plan_bytes(p) <= budget) dev->budget_bytes = vkm_plan_bytes(p) - 1;
    assert_int_equal(vkm_plan_commit(p, &mem, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, needed));
    dev->budget_bytes = budget;
    if (backend_of(state) == VKM_VULKAN) { /* one tensor above the device's allocation limit */
        err = (vkm_err){0};
        p = vkm_plan_new(dev);
        dev->budget_bytes = UINT64_MAX;
        vkm_plan_add(p, &huge, VKM_F32, dev->max_alloc_bytes / 4 + 1, "cache");
        assert_int_equal(vkm_plan_commit(p, &mem, &err), VKM_FAILED);
        assert_non_null(strstr(err.msg, "'cache'"));
        /* and the driver's own refusal */
        vkm_arena arena;
        err = (vkm_err){0};
        uint64_t left = vkm_host_memory_free();
        if (dev->class == VKM_CLASS_CPU_DRIVER && left) {
            assert_int_equal(dev->backend->alloc(dev, 1ull << 46, &arena, &err), VKM_FAILED);
            assert_non_null(strstr(err.msg, "67108864 MiB"));
        }
    }
    vkm_dev_close(dev);
}

/* Cutting relies on it: shaders read only gl_NumWorkGroups.x, as the length of a row of groups, and
 * only in shared headers. */
static void test_shaders_keep_the_cut_rule(void **state) {
    (void)state;
    DIR *folder = opendir(VKM_SOURCE_DIR "/shaders");
    int seen = 0;
    if (!folder) {
        print_message("SKIP: the sources are not at " VKM_SOURCE_DIR "\n");
        skip();
    }
    for (const struct dirent *e; folder && (e = readdir(folder));) {
        char path[512], line[512];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, VKM_SOURCE_DIR "/shaders/%s", e->d_name);
        FILE *f = fopen(path, "r");
        if (!f) fail_msg("%s cannot be read", path);
        while (f && fgets(line, sizeof line, f)) {
            const char *at = strstr(line, "gl_NumWorkGroups");
            if (!at) continue;
            seen++;
            if (strstr(e->d_name, ".comp") || strncmp(at + 16, ".x", 2) != 0)
                fail_msg("%s uses gl_NumWorkGroups: %s", e->d_name, line);
        }
        if (f) (void)fclose(f);
    }
    if (folder) (void)closedir(folder);
    assert_true(seen > 0);
}

int main(void) {
    static vkm_backend_id ids[] = {VKM_CPU, VKM_VULKAN};
    const struct CMUnitTest tests[] = {
        {"transfers cpu", test_transfers, NULL, NULL, &ids[0]},
        {"transfers vulkan", test_transfers, NULL, NULL, &ids[1]},
        {"split cpu", test_split, NULL, NULL, &ids[0]},
        {"split vulkan", test_split, NULL, NULL, &ids[1]},
        {"graph cpu", test_graph, NULL, NULL, &ids[0]},
        {"graph vulkan", test_graph, NULL, NULL, &ids[1]},
        {"out of memory cpu", test_out_of_memory, NULL, NULL, &ids[0]},
        {"out of memory vulkan", test_out_of_memory, NULL, NULL, &ids[1]},
        cmocka_unit_test(test_compiled_before_it_counts),
        cmocka_unit_test(test_each_barrier_counts),
        cmocka_unit_test(test_barriers_random),
        cmocka_unit_test(test_bad_device),
        cmocka_unit_test(test_shaders_keep_the_cut_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
