/* Build tool: writes, for every line of kernels.def, <out>/<name>.glsl (the push-constant block and
 * the typed accessors LD_<param>, ST_<param>) and one spirv.S that embeds the compiled shaders.
 * The further arguments name the forms that are built: KERNEL.FORM; every kernel has the plain one.
 * A parameter declared IN gets no ST_, so an undeclared write does not compile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vk/kernel.h"

typedef struct kernel_line {
    const char *name;
    const vkm_param *params;
    size_t n;
} kernel_line;

#define IN(type, name)         {#name, VKM_P_IN, VKM_PT_##type},
#define OUT(type, name)        {#name, VKM_P_OUT, VKM_PT_##type},
#define INOUT(type, name)      {#name, VKM_P_INOUT, VKM_PT_##type},
#define U32(name)              {#name, VKM_P_U32, VKM_PT_scalar},
#define F32(name)              {#name, VKM_P_F32, VKM_PT_scalar},
#define KERNEL(name, doc, ...) static const vkm_param params_##name[] = {__VA_ARGS__};
#include "ops/kernels.def"
#undef KERNEL
static const kernel_line lines[] = {
#define KERNEL(name, doc, ...) {#name, params_##name, VKM_COUNTOF(params_##name)},
#include "ops/kernels.def"
#undef KERNEL
};

static FILE *open_out(const char *folder, const char *name, const char *ending) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s%s", folder, name, ending);
    FILE *f = fopen(path, "w");
    if (!f) {
        perror(path);
        exit(1);
    }
    return f;
}

static void accessors(FILE *f, const vkm_param *p) {
    const char *n = p->name;
    int reads = p->kind != VKM_P_OUT, writes = p->kind != VKM_P_IN;
    switch (p->type) {
    case VKM_PT_u32:
        if (reads) fprintf(f, "#define LD_%s(at_) (U32_R(pc.%s).v[at_])\n", n, n);
        if (writes) fprintf(f, "#define ST_%s(at_, x_) U32_W(pc.%s).v[at_] = (x_)\n", n, n);
        break;
    case VKM_PT_f32:
        if (reads) fprintf(f, "#define LD_%s(at_) (F32_R(pc.%s).v[at_])\n", n, n);
        if (writes)
            fprintf(f, "#define ST_%s(at_, x_) F32_W(pc.%s).v[at_] = vkm_canon(x_)\n", n, n);
        break;
    default: /* bf16 pairs, addressed by word */
        if (reads) fprintf(f, "#define LDW_%s(at_) (U32_R(pc.%s).v[at_])\n", n, n);
        if (writes) fprintf(f, "#define STW_%s(at_, w_) U32_W(pc.%s).v[at_] = (w_)\n", n, n);
    }
}

/* A form of a kernel, from the file KERNEL.FORM.spv if it is among those built. */
static void embed(FILE *s, const char *kernel, const char *form, char **built, int n_built) {
    char file[256];
    snprintf(file, sizeof file, "%s.%s", kernel, form);
    int is = !strcmp(form, vkm_form_name(VKM_FORM_plain));
    for (int i = 0; i < n_built; i++) is |= !strcmp(built[i], file);
    fprintf(s, ".balign 16\n.global vkm_%s_%s, vkm_%s_end_%s\nvkm_%s_%s:\n", form, kernel, form,
            kernel, form, kernel);
    if (is) fprintf(s, ".incbin \"%s.spv\"\n", file);
    fprintf(s, "vkm_%s_end_%s:\n", form, kernel);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    for (size_t i = 0; i < VKM_COUNTOF(lines); i++) {
        FILE *f = open_out(argv[1], lines[i].name, ".glsl");
        uint32_t bytes = 0;
        fprintf(f, "/* generated from kernels.def */\n#include \"kernel.glsl\"\n");
        fprintf(f, "layout(push_constant, std430) uniform PC {\n");
        for (size_t j = 0; j < lines[i].n; j++) {
            const vkm_param *p = &lines[i].params[j];
            (void)vkm_param_push_offset(&bytes, p->kind);
            const char *type = p->kind == VKM_P_U32   ? "uint"
                               : p->kind == VKM_P_F32 ? "float"
                                                      : "uvec2";
            fprintf(f, "    %s %s;\n", type, p->name);
        }
        fprintf(f, "} pc;\n");
        if (bytes > VKM_MAX_PUSH) {
            fprintf(stderr,
                    "kernels.def: %s needs %u bytes of push constants, %d are portable; put "
                    "scalars in a small buffer\n",
                    lines[i].name, bytes, VKM_MAX_PUSH);
            return 1;
        }
        for (size_t j = 0; j < lines[i].n; j++)
            if (vkm_param_is_pointer(lines[i].params[j].kind)) accessors(f, &lines[i].params[j]);
        if (fclose(f)) return 1;
    }
    FILE *s = open_out(argv[2], "spirv", ".S");
    fprintf(s, ".section .note.GNU-stack,\"\",%%progbits\n.section .rodata\n");
    for (size_t i = 0; i < VKM_COUNTOF(lines); i++)
        for (int f = 0; f < VKM_N_FORMS; f++)
            embed(s, lines[i].name, vkm_form_name((vkm_form)f), argv + 3, argc - 3);
    return fclose(s) != 0;
}
