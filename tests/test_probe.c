/* The device probes: they pass where they should, and each finds the defect it is there for. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/device.h"
#include "ops/kernels.h"
#include "vk/backend.h"

static vkm_probe_report probe(vkm_dev *dev) {
    vkm_probe_report r;
    vkm_err err = {0};
    if (vkm_probe_run(dev, &r, &err)) fail_msg("%s", err.msg);
    return r;
}

static vkm_dev *open_cpu(void) {
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    if (vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 2}, &dev, &err))
        fail_msg("%s", err.msg);
    return dev;
}

static void test_cpu_passes(void **state) {
    (void)state;
    vkm_dev *dev = open_cpu();
    vkm_err err = {0};
    vkm_probe_report r = probe(dev);
    assert_true(r.n > 15);
    assert_int_equal(r.n_failed, 0);
    assert_int_equal(vkm_probe_verdict(dev, &r, &err), VKM_OK);
    assert_null(vkm_dev_probes(dev)); /* the reference is not probed when it is opened */
    vkm_dev_close(dev);
}

/* What config.json of a run will hold: a row for each probe. */
static void check_kept_report(const vkm_dev *dev) {
    vkm_json *doc;
    vkm_err err = {0};
    size_t n = 0;
    const char *text = vkm_dev_probes(dev);
    assert_non_null(text);
    if (vkm_json_parse(text, strlen(text), "probes", NULL, &doc, &err)) fail_msg("%s", err.msg);
    for (vkm_jv row = vkm_json_first(vkm_json_root(doc)); row.v; row = vkm_json_next(row), n++) {
        const char *name;
        bool required, passed;
        assert_int_equal(vkm_json_get_str(row, "name", VKM_JSON_REQ, &name, &err), VKM_OK);
        assert_int_equal(vkm_json_get_bool(row, "required", VKM_JSON_REQ, &required, &err), VKM_OK);
        assert_int_equal(vkm_json_get_bool(row, "passed", VKM_JSON_REQ, &passed, &err), VKM_OK);
        assert_true(passed || !required);
    }
    assert_true(n > 15);
    vkm_json_free(doc);
}

static void test_vulkan_opens(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    if (vkm_device_open(&(vkm_dev_options){.backend = VKM_VULKAN}, &dev, &err)) {
        if (!strstr(err.msg, "--backend cpu, which needs none")) fail_msg("%s", err.msg);
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    check_kept_report(dev);
    vkm_dev_close(dev);
}

/* ---- a device with a defect: the reference, whose arith_probe takes a liberty ---- */

static const vkm_backend *honest;
static uint32_t liberty; /* the trap that is computed wrongly */

static float wrong(uint32_t trap, float x, float y, float w) {
    switch (trap) {
    case 2: /* contracted */
        return fmaf(x, y, w);
    case 3: /* the constant, or the value, cancelled */
    case 4:
        return x;
    case 5: /* factored out */
        return x * (y + w);
    default: /* another unit in the last place */
        return nextafterf(trap == 0 ? x + y : x * y, 1);
    }
}

static vkm_status run_with_a_defect(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err) {
    vkm_status st = honest->run(dev, nodes, err);
    for (uint32_t i = 0; i < nodes->n; i++) {
        vkm_args_arith_probe a;
        if (nodes->v[i].kernel != &vkm_kernels[VKM_K_arith_probe]) continue;
        memcpy(&a, nodes->v[i].args, sizeof a);
        const float *x = (const float *)(uintptr_t)a.x.addr,
                    *y = (const float *)(uintptr_t)a.y.addr;
        const float *w = (const float *)(uintptr_t)a.w.addr;
        float *z = (float *)(uintptr_t)a.z.addr;
        for (uint32_t j = 0; j < a.n && a.trap == liberty; j++)
            z[j] = wrong(a.trap, x[j], y[j], w[j]);
    }
    return st;
}

static void test_defects_are_found(void **state) {
    (void)state;
    static const char *const names[] = {
        "add", "mul", "mul_add", "reassociate", "reassociate_value", "distribute"};
    for (uint32_t trap = 0; trap < VKM_COUNTOF(names); trap++) {
        vkm_dev *dev = open_cpu();
        vkm_err err = {0};
        vkm_backend bad = *dev->backend;
        honest = dev->backend;
        liberty = trap;
        bad.run = run_with_a_defect;
        dev->backend = &bad;
        vkm_probe_report r = probe(dev);
        assert_true(r.n_failed >= 1);
        int named = 0;
        for (uint32_t i = 0; i < r.n; i++)
            named |= !r.rows[i].passed && strcmp(r.rows[i].name, names[trap]) == 0;
        if (!named) fail_msg("the defect of '%s' was not found by its probe", names[trap]);
        assert_int_equal(vkm_probe_verdict(dev, &r, &err), VKM_FAILED);
        assert_non_null(strstr(err.msg, names[trap]));
        assert_non_null(strstr(err.msg, vkm_dev_driver(dev)));
        dev->backend = honest;
        vkm_dev_close(dev);
    }
}

/* Every probe compares what it says: one bit of each result changed, and all required ones fail. */
static vkm_status read_with_a_flip(vkm_dev *dev, uint64_t addr, void *dst, uint64_t bytes,
                                   vkm_err *err) {
    vkm_status st = honest->read(dev, addr, dst, bytes, err);
    if (bytes >= 16) ((unsigned char *)dst)[bytes - 4] ^= 1;
    return st;
}

static void test_every_probe_can_fail(void **state) {
    (void)state;
    vkm_dev *dev = open_cpu();
    vkm_backend bad = *dev->backend;
    honest = dev->backend;
    bad.read = read_with_a_flip;
    dev->backend = &bad;
    vkm_probe_report r = probe(dev);
    for (uint32_t i = 0; i < r.n; i++)
        if (r.rows[i].required && (r.rows[i].passed || r.rows[i].n_bad != 1))
            fail_msg("probe '%s' did not see a changed bit", r.rows[i].name);
    dev->backend = honest;
    vkm_dev_close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cpu_passes),
        cmocka_unit_test(test_vulkan_opens),
        cmocka_unit_test(test_defects_are_found),
        cmocka_unit_test(test_every_probe_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
