/* Tuned tiles: what is tried can be used, the file goes to disk and back, bad files are left out.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/tiles.h"
#include "tmpdir.h"

#include "program.h"

static vkm_dev *dev;

static int open_device(void **state) {
    vkm_err err = {0};
    vkm_dev_options o = {.backend = VKM_VULKAN};
    if (tmpdir_make(state)) return -1;
    assert_int_equal(setenv("XDG_CACHE_HOME", tmpdir, 1), 0);
    if (vkm_dev_open(&o, &dev, &err)) print_message("no Vulkan device: %s\n", err.msg);
    return 0;
}

static int close_device(void **state) {
    vkm_dev_close(dev);
    return tmpdir_remove(state);
}

static void candidates_are_usable(void **state) {
    (void)state;
    if (!dev) skip();
    static const uint32_t sizes[][2] = {{8, 2048}, {64, 2048}, {512, 512}, {4096, 4096}};
    for (size_t i = 0; i < VKM_COUNTOF(sizes); i++) {
        vkm_tile v[512], again;
        uint32_t n = vkm_tile_candidates(dev, sizes[i][0], sizes[i][1], v, VKM_COUNTOF(v));
        assert_true(n > 0 && n < VKM_COUNTOF(v));
        for (uint32_t j = 0; j < n; j++) {
            char text[64];
            vkm_tile_write(v[j], text);
            assert_true(vkm_tile_read(dev, text, &again));
            assert_memory_equal(&v[j], &again, sizeof again);
        }
    }
}

static const vkm_tile_choice choices[] = {
    {8, UINT64_MAX, 2, {VKM_FORM_plain, 8, 4, 4, 0, 1}},
    {UINT32_MAX, 1000, 1, {VKM_FORM_plain, 16, 8, 4, 0, 2}},
};

static void expect_tile(uint32_t products, uint32_t m, uint32_t n, vkm_tile want) {
    vkm_tile got = vkm_tile_for(dev, products, m, n);
    assert_memory_equal(&got, &want, sizeof got);
}

/* The first choice that fits goes before the table, which keeps what none fits. */
static void choices_come_first(void **state) {
    (void)state;
    if (!dev) skip();
    vkm_tile table = vkm_tile_for(dev, 2, 100, 10), decoding = vkm_tile_for(dev, 2, 8, 5000);
    vkm_tiles_set(dev, choices, VKM_COUNTOF(choices));
    expect_tile(2, 8, 5000, choices[0].tile);
    expect_tile(1, 100, 10, choices[1].tile);
    expect_tile(2, 100, 10, table);
    vkm_tiles_set(dev, NULL, 0);
    expect_tile(2, 8, 5000, decoding);
    assert_memory_not_equal(&decoding, &choices[0].tile, sizeof decoding);
    assert_null(vkm_dev_tiles(dev));
}

static void file_goes_to_disk_and_back(void **state) {
    (void)state;
    if (!dev) skip();
    vkm_err err = {0};
    if (vkm_tiles_save(dev, choices, VKM_COUNTOF(choices), &err)) fail_msg("%s", err.msg);
    vkm_tiles_load(dev);
    expect_tile(2, 8, 5000, choices[0].tile);
    expect_tile(1, 100, 10, choices[1].tile);
    vkm_tiles_set(dev, NULL, 0);
}

static void bad_files_are_left_out(void **state) {
    (void)state;
    if (!dev) skip();
    static const char *const bad[] = {
        "",
        "{}",
        "{\"format\": \"vkmoe tiles 2\", \"tiles\": []}",
        "{\"format\": \"vkmoe tiles 1\", \"tiles\": {}}",
        "{\"format\": \"vkmoe tiles 1\", \"tiles\": [{\"max_m\": 0, \"max_outputs\": 1, "
        "\"max_products\": 1, \"tile\": \"plain,8,4,4,0,1\"}]}",
        "{\"format\": \"vkmoe tiles 1\", \"tiles\": [{\"max_m\": 1, \"max_outputs\": 1, "
        "\"max_products\": 1, \"tile\": \"plain,8,5,4,0,1\"}]}",
        "{\"format\": \"vkmoe tiles 1\", \"tiles\": [{\"max_m\": 1, \"tile\": "
        "\"plain,8,4,4,0,1\"}]}",
    };
    char path[4096];
    vkm_tiles_path(dev, path);
    for (size_t i = 0; i < VKM_COUNTOF(bad); i++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(bad[i], f) >= 0);
        assert_int_equal(fclose(f), 0);
        vkm_tiles_load(dev);
        assert_null(vkm_dev_tiles(dev));
    }
}

/* One class on the machine's own driver: it measures, tells, and keeps nothing. */
static void the_command_runs(void **state) {
    (void)state;
    if (!dev) skip();
    char path[4096];
    vkm_tiles_path(dev, path);
    assert_int_equal(unlink(path), 0);
    works(vkmoe("tune 'decoding, 8' --min-ms 0 --repeat 1 --json"));
    assert_non_null(strstr(out, "\"class\":\"decoding, 8 rows\""));
    assert_false(vkm_file_exists(path));
    fails_with(vkmoe("tune nonsense"), 2, "no class of outputs");
    fails_with(vkmoe("tune --backend cpu"), 2, "the cpu backend has none");
    fails_with(vkmoe("tune --numerics nonsense"), 2, "exact|fast");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_are_usable), cmocka_unit_test(choices_come_first),
        cmocka_unit_test(file_goes_to_disk_and_back), cmocka_unit_test(bad_files_are_left_out),
        cmocka_unit_test(the_command_runs)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
