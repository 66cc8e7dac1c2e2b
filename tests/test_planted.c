/* The gates can fail: a planted change of one unit in the last place of one stored value, in any
 * shader, is found by that kernel's gate on the software driver. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "tmpdir.h"

/* kernel, and the line of its generated accessors that stores: what stands behind " = " */
static const struct {
    const char *kernel, *store, *planted;
} plants[] = {
    {"rmsnorm_fwd", "v[at_] = (w_)", "v[at_] = (w_) + (at_ == 0u ? 1u : 0u)"},
    {"linear", "v[at_] = vkm_canon(x_)",
     "v[at_] = vkm_from_bits(vkm_bits(vkm_canon(x_)) + (at_ == 0u ? 1u : 0u))"},
    {"attn_fwd", "v[at_] = (w_)", "v[at_] = (w_) + (at_ == 0u ? 1u : 0u)"},
    {"lse_combine", "v[at_] = vkm_canon(x_)",
     "v[at_] = vkm_from_bits(vkm_bits(vkm_canon(x_)) + (at_ == 0u ? 1u : 0u))"},
    {"adamw", "v[at_] = vkm_canon(x_)",
     "v[at_] = vkm_from_bits(vkm_bits(vkm_canon(x_)) + (at_ == 0u ? 1u : 0u))"},
    {"router_fwd", "v[at_] = vkm_canon(x_)",
     "v[at_] = vkm_from_bits(vkm_bits(vkm_canon(x_)) + (at_ == 0u ? 1u : 0u))"},
    {"swiglu_bwd", "v[at_] = (w_)", "v[at_] = (w_) + (at_ == 0u ? 1u : 0u)"},
};

static int run(const char *fmt, ...) {
    char cmd[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(cmd, sizeof cmd, fmt, ap);
    va_end(ap);
    int status = system(cmd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The generated header with every store changed. */
static void plant(const char *kernel, const char *store, const char *planted) {
    char path[VKM_PATH_MAX], name[80], *text;
    size_t n;
    vkm_err err = {0};
    vkm_strbuf out = {0};
    snprintf(path, sizeof path, "%s/gen/%s.glsl", VKM_BINARY_DIR, kernel);
    if (vkm_file_read(path, 1 << 20, &text, &n, &err)) fail_msg("%s", err.msg);
    const char *from = text, *at;
    assert_non_null(strstr(text, store));
    for (; (at = strstr(from, store)); from = at + strlen(store)) {
        vkm_strbuf_add(&out, from, (size_t)(at - from));
        vkm_strbuf_add(&out, planted, strlen(planted));
    }
    vkm_strbuf_add(&out, from, strlen(from));
    snprintf(name, sizeof name, "%s.glsl", kernel);
    put_file(name, out.data, out.n);
    vkm_strbuf_free(&out);
    free(text);
}

static int verify(const char *kernel, const char *shaders) {
    return run("'%s/vkmoe' verify kernel/%s --device lavapipe --quiet %s%s >/dev/null 2>&1",
               VKM_BINARY_DIR, kernel, shaders ? "--shaders " : "", shaders ? shaders : "");
}

static void every_plant_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < VKM_COUNTOF(plants); i++) {
        const char *k = plants[i].kernel;
        if (verify(k, NULL) != 0) skip(); /* no driver here, or a real failure that verify shows */
        plant(k, plants[i].store, plants[i].planted);
        assert_int_equal(
            run("glslangValidator --quiet -V -Od --target-env vulkan1.2 -I'%s' -I'%s/shaders' "
                "-I'%s/gen' -I'%s/src/ops' -I'%s/src/base' -o '%s/%s.spv' '%s/shaders/%s.comp'",
                tmpdir, VKM_SOURCE_DIR, VKM_BINARY_DIR, VKM_SOURCE_DIR, VKM_SOURCE_DIR, tmpdir, k,
                VKM_SOURCE_DIR, k),
            0);
        if (verify(k, tmpdir) != VKM_FAILED) fail_msg("the plant in %s was not found", k);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_plant_is_found)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
