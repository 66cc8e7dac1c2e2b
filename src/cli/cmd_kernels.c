/* `vkmoe kernels`: the kernel table as the build knows it. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "ops/kernels.h"

static const char *const kinds[] = {[VKM_P_IN] = "in",
                                    [VKM_P_OUT] = "out",
                                    [VKM_P_INOUT] = "inout",
                                    [VKM_P_U32] = "u32",
                                    [VKM_P_F32] = "f32"};
static const char *const types[] = {
    [VKM_PT_u32] = "u32", [VKM_PT_f32] = "f32", [VKM_PT_bf16] = "bf16", [VKM_PT_op16] = "op16"};

static void print_text(const vkm_kernel *k) {
    printf("%-24s %s\n%24s ", k->name, k->doc, "");
    for (uint32_t i = 0; i < k->n_params; i++) {
        const vkm_param *p = &k->params[i];
        printf("%s%s %s%s%s", i ? ", " : "", kinds[p->kind],
               vkm_param_is_pointer(p->kind) ? types[p->type] : "",
               vkm_param_is_pointer(p->kind) ? " " : "", p->name);
    }
    putchar('\n');
}

static void print_json(const vkm_kernel *k, int first) {
    printf("%s  {\"name\": \"%s\", \"what\": \"%s\", \"params\": [", first ? "" : ",\n", k->name,
           k->doc);
    for (uint32_t i = 0; i < k->n_params; i++) {
        const vkm_param *p = &k->params[i];
        printf("%s{\"name\": \"%s\", \"kind\": \"%s\"", i ? ", " : "", p->name, kinds[p->kind]);
        if (vkm_param_is_pointer(p->kind)) printf(", \"type\": \"%s\"", types[p->type]);
        putchar('}');
    }
    fputs("]}", stdout);
}

vkm_status vkm_cmd_kernels(int argc, char **argv, vkm_err *err) {
    int json = 0, shown = 0;
    const char *part = "";
    vkm_opt opts[] = {
        {"NAME", VKM_OPT_ARG_MAYBE, &part, .help = "only kernels whose name contains this"},
        VKM_CLI_JSON(&json),
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (json) puts("[");
    for (int i = 0; i < VKM_N_KERNELS; i++) {
        if (!strstr(vkm_kernels[i].name, part)) continue;
        if (json)
            print_json(&vkm_kernels[i], !shown);
        else
            print_text(&vkm_kernels[i]);
        shown++;
    }
    if (json) puts("\n]");
    if (!shown)
        return vkm_fail(err, VKM_USAGE, "no kernel's name contains '%s'; `vkmoe kernels` lists all",
                        part);
    return VKM_OK;
}
