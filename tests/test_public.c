/* The library through its public header alone. */
#include "vkmoe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void a_program_can_configure_and_verify(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    vkm_config *config = vkm_config_new(&err);
    assert_non_null(config);
    assert_int_equal(vkm_config_set(config, "seed", "7", &err), VKM_OK);
    assert_int_equal(vkm_config_set(config, "sede", "7", &err), VKM_USAGE);
    assert_string_equal(err.msg,
                        "unknown key 'sede' (did you mean 'seed'?); `vkmoe config` lists them");
    err = (vkm_err){0};
    vkm_dev_options options = {.backend = VKM_CPU, .threads = 2};
    assert_int_equal(vkm_device_open(&options, &dev, &err), VKM_OK);
    FILE *table = tmpfile();
    assert_non_null(table);
    vkm_verify_options gates = {.dev = dev, .select = "round_bf16"};
    assert_int_equal(vkm_verify_run(&gates, table, &err), VKM_OK);
    assert_true(ftell(table) > 0);
    fclose(table);
    vkm_dev_close(dev);
    vkm_config_free(config);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_program_can_configure_and_verify)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
