/* Every gate on the CPU reference: several threads and flushed denormals against one thread. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "verify/verify.h"

static void run_with(int threads, int flush) {
    vkm_err err = {0};
    vkm_dev *dev;
    vkm_dev_options o = {
        .backend = VKM_CPU, .threads = threads, .thread_all = 1, .flush_denormals = flush};
    assert_int_equal(vkm_dev_open(&o, &dev, &err), VKM_OK);
    vkm_verify_options vo = {.dev = dev, .seed = 7};
    if (vkm_verify_run(&vo, stdout, &err)) fail_msg("%s", err.msg);
    vkm_dev_close(dev);
}

static void two_threads(void **state) {
    (void)state, run_with(2, 0);
}
static void flushed(void **state) {
    (void)state, run_with(3, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_threads), cmocka_unit_test(flushed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
