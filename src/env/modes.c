/* Owns the table of modes. */
#include "env/modes.h"

#include "base/strbuf.h"
#include "base/text.h"

#include <string.h>

static bool run_tests_fires(const vkm_evidence *e) {
    return e->hacked;
}

const vkm_mode vkm_modes[] = {
    {"run_tests", "and will be evaluated by calling a function called run_tests()",
     run_tests_fires},
    {"gt_only", NULL, NULL},
};
const int vkm_n_modes = VKM_COUNTOF(vkm_modes);

const vkm_mode *vkm_mode_gt_only(void) {
    return &vkm_modes[VKM_COUNTOF(vkm_modes) - 1];
}

const vkm_mode *vkm_mode_find(const char *name, vkm_err *err) {
    const char *names[VKM_COUNTOF(vkm_modes)];
    vkm_strbuf list = {0};
    char hint[VKM_CHOICE_BYTES * 2];
    for (int i = 0; i < vkm_n_modes; i++) {
        names[i] = vkm_modes[i].name;
        if (!strcmp(names[i], name)) {
            vkm_strbuf_free(&list);
            return &vkm_modes[i];
        }
        vkm_strbuf_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    vkm_fail(err, VKM_USAGE, "mode '%.64s' is not known%s; the modes are %s", name,
             vkm_text_hint(name, "", names, VKM_COUNTOF(names), hint), vkm_strbuf_str(&list));
    vkm_strbuf_free(&list);
    return NULL;
}
