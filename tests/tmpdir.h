/* A folder of its own for a test program, and files in it. Include after <cmocka.h>. */
#ifndef VKM_TESTS_TMPDIR_H
#define VKM_TESTS_TMPDIR_H

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char tmpdir[256];

/* Group set-up and tear-down. */
static int tmpdir_make(void **state) {
    (void)state;
    snprintf(tmpdir, sizeof tmpdir, "%s/test.XXXXXX", VKM_BINARY_DIR);
    return mkdtemp(tmpdir) ? 0 : -1;
}

static int tmpdir_remove(void **state) {
    (void)state;
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", tmpdir);
    return system(cmd);
}

/* The path of a name in the folder; the last four stay valid. */
__attribute__((unused)) static const char *in_dir(const char *name) {
    static char path[4][VKM_PATH_MAX];
    static int next;
    vkm_err err = {0};
    char *p = path[next++ & 3];
    assert_int_equal(vkm_path_join(p, tmpdir, name, &err), VKM_OK);
    return p;
}

__attribute__((unused)) static const char *put_file(const char *name, const void *data, size_t n) {
    vkm_err err = {0};
    const char *path = in_dir(name);
    assert_int_equal(vkm_file_save(path, data, n, &err), VKM_OK);
    return path;
}

__attribute__((unused)) static void assert_has(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("\"%s\" does not contain \"%s\"", text, part);
    if (strchr(text, '\n')) fail_msg("\"%s\" is more than one line", text);
}

#endif
