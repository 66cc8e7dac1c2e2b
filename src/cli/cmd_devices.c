/* `vkmoe devices`: the Vulkan devices of this machine, and what each may be used for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cli.h"
#include "ops/device.h"

static const char *const types[] = {[VKM_DEV_OTHER] = "other",
                                    [VKM_DEV_INTEGRATED] = "integrated",
                                    [VKM_DEV_DISCRETE] = "discrete",
                                    [VKM_DEV_VIRTUAL] = "virtual",
                                    [VKM_DEV_SOFTWARE] = "software"};

/* What is found out by opening a device. */
typedef struct finding {
    const char *tier; /* "exact", "refused", or "unknown" without probes */
    char why[1024];   /* of a refusal */
    vkm_probe_report probes;
} finding;

static void examine(const vkm_dev_info *info, int probe, finding *f) {
    char index[16];
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    snprintf(index, sizeof index, "%u", info->index);
    vkm_dev_options o = {.backend = VKM_VULKAN, .device = index, .skip_probes = 1};
    *f = (finding){.tier = probe ? "exact" : "unknown"};
    if (info->refused[0])
        vkm_fail(&err, VKM_FAILED, "%s", info->refused);
    else if (probe && !vkm_dev_open(&o, &dev, &err) && !vkm_probe_run(dev, &f->probes, &err))
        (void)!vkm_probe_verdict(dev, &f->probes, &err);
    vkm_dev_close(dev);
    if (!err.status) return;
    f->tier = "refused";
    snprintf(f->why, sizeof f->why, "%s", err.msg);
}

static double mib(uint64_t bytes) {
    return (double)bytes / 1048576;
}

static const char *matrix_text(const vkm_dev_info *d, char out[64]) {
    snprintf(out, 64, "%s %ux%ux%u in subgroups of %u",
             d->matrix.form == VKM_FORM_bf16 ? "bf16" : "fp16", d->matrix.m, d->matrix.n,
             d->matrix.k, d->matrix.subgroup);
    return out;
}

static void print_text(const vkm_dev_info *d, const finding *f) {
    int fast = d->matrix.m && !strcmp(f->tier, "exact");
    printf("%u  %s  [%s%s]\n", d->index, d->name, f->tier, fast ? ", fast" : "");
    printf("   %s, %s, Vulkan %u.%u.%u, driver %s\n", d->vendor, types[d->type], d->api[0],
           d->api[1], d->api[2], d->driver[0] ? d->driver : "unknown");
    if (d->memory_bytes) {
        printf("   memory %.0f MiB", mib(d->memory_bytes));
        if (d->budget_bytes) printf(" (%.0f MiB free)", mib(d->budget_bytes));
        printf(", one allocation %.0f MiB, workgroup memory %u KiB, subgroup %u\n",
               mib(d->max_alloc_bytes), d->shared_bytes / 1024, d->subgroup_size);
    }
    if (f->why[0]) printf("   refused: %s\n", f->why);
    if (!f->probes.n) return;
    printf("   probes: %u in %.0f ms, %u failed", f->probes.n, 1e3 * f->probes.seconds,
           f->probes.n_failed);
    for (uint32_t i = 0; i < f->probes.n; i++)
        if (!f->probes.rows[i].required) printf("; %s", f->probes.rows[i].detail);
    char matrix[64];
    printf("; cooperative matrices %s\n", d->matrix.m             ? matrix_text(d, matrix)
                                          : d->cooperative_matrix ? "offered, not used"
                                                                  : "not offered");
    for (uint32_t i = 0; i < f->probes.n; i++) {
        const vkm_probe_row *r = &f->probes.rows[i];
        if (r->required && !r->passed)
            printf("   failed: %s (%s): %u of %u, %s\n", r->name, r->what, r->n_bad, r->n,
                   r->detail);
    }
}

static void write_json(vkm_jw *w, const vkm_dev_info *d, const finding *f) {
    char api[48];
    snprintf(api, sizeof api, "%u.%u.%u", d->api[0], d->api[1], d->api[2]);
    vkm_jw_obj(w, NULL);
    vkm_jw_u64(w, "index", d->index);
    vkm_jw_str(w, "name", d->name);
    vkm_jw_str(w, "driver", d->driver);
    vkm_jw_str(w, "vendor", d->vendor);
    vkm_jw_u64(w, "vendor_id", d->vendor_id);
    vkm_jw_u64(w, "device_id", d->device_id);
    vkm_jw_str(w, "vulkan", api);
    vkm_jw_str(w, "type", types[d->type]);
    vkm_jw_u64(w, "memory_bytes", d->memory_bytes);
    if (d->budget_bytes)
        vkm_jw_u64(w, "free_bytes", d->budget_bytes);
    else
        vkm_jw_null(w, "free_bytes");
    vkm_jw_u64(w, "max_allocation_bytes", d->max_alloc_bytes);
    vkm_jw_u64(w, "workgroup_memory_bytes", d->shared_bytes);
    vkm_jw_u64(w, "max_workgroup_invocations", d->max_invocations);
    vkm_jw_u64(w, "subgroup_size", d->subgroup_size);
    vkm_jw_bool(w, "timestamps", d->timestamps);
    vkm_jw_bool(w, "cooperative_matrix", d->cooperative_matrix);
    char matrix[64];
    vkm_jw_str(w, "fast_tier", d->matrix.m ? matrix_text(d, matrix) : NULL);
    vkm_jw_str(w, "tier", f->tier);
    vkm_jw_str(w, "refused", f->why[0] ? f->why : NULL);
    vkm_probe_write(&f->probes, w, "probes");
    vkm_jw_end_obj(w);
}

vkm_status vkm_cmd_devices(int argc, char **argv, vkm_err *err) {
    int json = 0, quick = 0;
    vkm_opt opts[] = {
        {"no-probes", VKM_OPT_FLAG, &quick, .help = "only list; do not open and probe them"},
        VKM_CLI_JSON(&json),
    };
    vkm_dev_info *info = NULL;
    uint32_t n = 0;
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (vkm_dev_list(&info, &n, err)) return err->status;
    finding *f = vkm_calloc(n, sizeof *f, "findings", err);
    if (!f) {
        free(info);
        return err->status;
    }
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 2);
    if (json) vkm_jw_arr(&w, NULL);
    for (uint32_t i = 0; i < n; i++) {
        examine(&info[i], !quick, &f[i]);
        if (json)
            write_json(&w, &info[i], &f[i]);
        else
            print_text(&info[i], &f[i]);
    }
    if (json) vkm_jw_end_arr(&w);
    if (json && !vkm_strbuf_check(&text, "the list of devices", err)) puts(vkm_strbuf_str(&text));
    vkm_strbuf_free(&text);
    free(f);
    free(info);
    return err->status;
}
