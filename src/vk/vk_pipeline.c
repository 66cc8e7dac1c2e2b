/* Shader modules, layouts and pipelines, made on demand; the driver's pipeline cache on disk. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/file.h"
#include "base/team.h"
#include "vk/vk_private.h"

/* ---- the cache on disk: a header of ours, since drivers trust what they are given
 * -------------------- */

typedef struct cache_head {
    char magic[8];
    uint64_t bytes, hash;
} cache_head;

enum { CACHE_LIMIT = 256 << 20 };

static uint64_t hash_bytes(const void *data, size_t n) { /* FNV-1a */
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)data)[i]) * 0x100000001b3u;
    return h;
}

/* Makes the folders of a path, the last component left out; errors show when the file is opened. */
static void make_folders(char *path) {
    for (char *p = path + 1; *p; p++) {
        if (*p != '/') continue;
        *p = 0;
        (void)mkdir(path, 0700);
        *p = '/';
    }
}

static void choose_cache_path(vk_dev *vk) {
    VkPhysicalDeviceProperties p;
    vkGetPhysicalDeviceProperties(vk->physical, &p);
    char uuid[2 * VK_UUID_SIZE + 1], *base = vk->dev->cache_base;
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(uuid + 2 * i, 3, "%02x", p.pipelineCacheUUID[i]);
    const char *root = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int xdg = root && root[0] == '/';
    if (!xdg && !(home && home[0] == '/')) return;
    int n = snprintf(base, sizeof vk->dev->cache_base, "%s%s/vkmoe/%04x-%04x-%08x-%s",
                     xdg ? root : home, xdg ? "" : "/.cache", p.vendorID, p.deviceID,
                     p.driverVersion, uuid);
    if (n >= (int)sizeof vk->dev->cache_base) base[0] = 0;
    if (base[0]) snprintf(vk->cache_path, sizeof vk->cache_path, "%s.pipelines", base);
}

static void *load_cache(vk_dev *vk, size_t *bytes) {
    cache_head head;
    void *data = NULL;
    FILE *f = vk->cache_path[0] ? fopen(vk->cache_path, "rb") : NULL;
    if (!f) return NULL;
    if (fread(&head, sizeof head, 1, f) == 1 && memcmp(head.magic, "vkmpipe1", 8) == 0 &&
        head.bytes > 0 && head.bytes <= CACHE_LIMIT && (data = malloc(head.bytes)) &&
        (fread(data, 1, head.bytes, f) != head.bytes ||
         hash_bytes(data, head.bytes) != head.hash)) {
        free(data);
        data = NULL;
    }
    *bytes = data ? head.bytes : 0;
    (void)fclose(f);
    return data;
}

/* Never an error: the next start is slower, no more. */
static void save_cache(vk_dev *vk) {
    size_t bytes = 0;
    char part[sizeof vk->cache_path + 32];
    if (!vk->cache_path[0] || !vk->cache_grew) return;
    if (vkGetPipelineCacheData(vk->device, vk->cache, &bytes, NULL) || !bytes) return;
    void *data = malloc(bytes);
    if (!data) return;
    make_folders(vk->cache_path);
    snprintf(part, sizeof part, "%s.%ld", vk->cache_path, (long)getpid());
    FILE *f = NULL;
    if (!vkGetPipelineCacheData(vk->device, vk->cache, &bytes, data) && (f = fopen(part, "wb"))) {
        cache_head head = {.bytes = bytes, .hash = hash_bytes(data, bytes)};
        memcpy(head.magic, "vkmpipe1", 8);
        int good = fwrite(&head, sizeof head, 1, f) == 1 && fwrite(data, 1, bytes, f) == bytes;
        good &= fclose(f) == 0;
        if (!good || rename(part, vk->cache_path)) (void)unlink(part);
    }
    free(data);
}

vkm_status vkm_vk_pipelines_open(vk_dev *vk, vkm_err *err) {
    choose_cache_path(vk);
    size_t bytes = 0;
    void *data = load_cache(vk, &bytes);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                      .initialDataSize = bytes,
                                      .pInitialData = data};
    VkResult r = vkCreatePipelineCache(vk->device, &info, NULL, &vk->cache);
    free(data);
    return r ? vkm_vk_fail(vk, err, r, "vkCreatePipelineCache") : VKM_OK;
}

void vkm_vk_pipelines_close(vk_dev *vk) {
    if (vk->cache) save_cache(vk);
    for (uint32_t i = 0; i < vk->cap_pipelines; i++)
        if (vk->pipelines[i].handle) vkDestroyPipeline(vk->device, vk->pipelines[i].handle, NULL);
    for (uint32_t i = 0; i < vk->n_kernels; i++)
        vkDestroyShaderModule(vk->device, vk->kernels[i].module, NULL);
    for (size_t i = 0; i < VKM_COUNTOF(vk->layouts); i++)
        vkDestroyPipelineLayout(vk->device, vk->layouts[i], NULL);
    vkDestroyPipelineCache(vk->device, vk->cache, NULL);
}

/* ---- kernels and pipelines
 * --------------------------------------------------------------------------- */

static vkm_status layout_get(vk_dev *vk, uint32_t bytes, VkPipelineLayout *out, vkm_err *err) {
    VkPipelineLayout *have = &vk->layouts[bytes / 4];
    if (!*have) {
        VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, bytes};
        VkPipelineLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                           .pushConstantRangeCount = bytes ? 1 : 0,
                                           .pPushConstantRanges = &range};
        VkResult r = vkCreatePipelineLayout(vk->device, &info, NULL, have);
        if (r) return vkm_vk_fail(vk, err, r, "vkCreatePipelineLayout");
    }
    *out = *have;
    return VKM_OK;
}

/* The user's own NAME.spv, or NAME.FORM.spv, in options.shaders, if there is one. */
static vkm_status replacement(vk_dev *vk, const vkm_kernel *kernel, vkm_form form, char **code,
                              VkShaderModuleCreateInfo *info, vkm_err *err) {
    enum { MOST = 16 << 20 };
    char path[VKM_PATH_MAX], name[80];
    const char *dir = vk->dev->options.shaders;
    size_t n;
    snprintf(name, sizeof name, "%s%s%s.spv", kernel->name, form == VKM_FORM_plain ? "" : ".",
             form == VKM_FORM_plain ? "" : vkm_form_name(form));
    if (!dir) return VKM_OK;
    if (vkm_path_join(path, dir, name, err)) return err->status;
    if (!vkm_file_exists(path)) return VKM_OK;
    if (vkm_file_read(path, MOST, code, &n, err)) return err->status;
    if (n < 20 || n % 4)
        return vkm_fail(err, VKM_USAGE, "%s: %zu bytes are no SPIR-V; compile it anew", path, n);
    info->pCode = (const uint32_t *)(const void *)*code;
    info->codeSize = n;
    vkm_info("%s replaces the built-in shader", path);
    return VKM_OK;
}

vkm_status vkm_vk_kernel_get(vk_dev *vk, const vkm_kernel *kernel, vkm_form form, uint32_t *out,
                             vkm_err *err) {
    enum { PLACES = VKM_COUNTOF(vk->kernel_at) };
    uint32_t h = (uint32_t)(((uintptr_t)kernel / sizeof *kernel + 61u * form) % PLACES);
    for (; vk->kernel_at[h]; h = (h + 1) % PLACES) {
        *out = vk->kernel_at[h] - 1u;
        if (vk->kernels[*out].kernel == kernel && vk->kernels[*out].form == form) return VKM_OK;
    }
    VKM_BUG_ON(vk->n_kernels == VK_MAX_KERNELS, "more than %d kernels", VK_MAX_KERNELS);
    /* A first guess below any device of its class: early submits are short, then it is learned. */
    vk_kernel k = {.kernel = kernel,
                   .form = form,
                   .rate = vk->dev->class == VKM_CLASS_CPU_DRIVER ? 1e9 : 5e10};
    for (uint32_t i = 0; i < kernel->n_params; i++)
        (void)vkm_param_push_offset(&k.push_bytes, kernel->params[i].kind);
    if (layout_get(vk, k.push_bytes, &k.layout, err)) return err->status;
    const vkm_code *wide = &kernel->forms[VKM_FORM_wide];
    int widen = form == VKM_FORM_plain && vk->wide_loads && wide->at != wide->end;
    const vkm_code *code = widen ? wide : &kernel->forms[form];
    VKM_BUG_ON(code->at == code->end, "%s is not built as '%s'", kernel->name, vkm_form_name(form));
    VkShaderModuleCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
        .codeSize = (size_t)(code->end - code->at) * sizeof *code->at,
        .pCode = code->at,
    };
    char *other = NULL;
    if (replacement(vk, kernel, form, &other, &info, err)) return err->status;
    VkResult r = vkCreateShaderModule(vk->device, &info, NULL, &k.module);
    free(other);
    if (r) return vkm_vk_fail(vk, err, r, kernel->name);
    *out = vk->n_kernels++;
    vk->kernels[*out] = k;
    vk->kernel_at[h] = (uint16_t)(*out + 1);
    return VKM_OK;
}

static uint32_t place_of(const vk_pipeline *table, uint32_t cap, uint32_t kernel,
                         const uint32_t *spec, int split) {
    uint32_t h = kernel * 2u + (split ? 1u : 0u);
    for (int i = 0; i < VKM_MAX_SPEC; i++) h = (h ^ spec[i]) * 0x9e3779b1u;
    for (h = (h ^ h >> 15) & (cap - 1); table[h].handle; h = (h + 1) & (cap - 1))
        if (table[h].kernel == kernel && table[h].split == split &&
            memcmp(table[h].spec, spec, sizeof table[h].spec) == 0)
            break;
    return h;
}

static vkm_status grow(vk_dev *vk, vkm_err *err) {
    uint32_t cap = vk->cap_pipelines ? 2 * vk->cap_pipelines : 256;
    vk_pipeline *v = vkm_calloc(cap, sizeof *v, "pipelines", err);
    if (!v) return err->status;
    for (uint32_t i = 0; i < vk->cap_pipelines; i++) {
        const vk_pipeline *p = &vk->pipelines[i];
        if (p->handle) v[place_of(v, cap, p->kernel, p->spec, p->split)] = *p;
    }
    free(vk->pipelines);
    vk->pipelines = v;
    vk->cap_pipelines = cap;
    return VKM_OK;
}

VkPipeline vkm_vk_pipeline(const vk_dev *vk, uint32_t kernel, const uint32_t *spec, int split) {
    const vk_pipeline *p =
        &vk->pipelines[place_of(vk->pipelines, vk->cap_pipelines, kernel, spec, split)];
    VKM_BUG_ON(!p->handle, "%s has no pipeline yet", vk->kernels[kernel].kernel->name);
    return p->handle;
}

/* One that is to be made, and how that went. */
typedef struct order {
    vk_pipeline p;
    const vkm_kernel *kernel;
    uint32_t subgroup; /* of the fast tier */
    VkResult result;
} order;

typedef struct orders {
    vk_dev *vk;
    order *v;
    uint32_t n;
    atomic_uint next; /* not yet begun, while they are made */
} orders;

static void make(vk_dev *vk, order *o) {
    vk_pipeline *p = &o->p;
    const vk_kernel *k = &vk->kernels[p->kernel];
    VkSpecializationMapEntry entries[VKM_MAX_SPEC];
    uint32_t n = 0;
    for (uint32_t i = 0; i < VKM_MAX_SPEC; i++)
        if (p->spec[i]) entries[n++] = (VkSpecializationMapEntry){i, i * 4, 4};
    VkSpecializationInfo special = {n, entries, sizeof p->spec, p->spec};
    /* cooperative matrices count on whole subgroups of one size */
    int whole = k->form == VKM_FORM_half || k->form == VKM_FORM_bf16;
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = o->subgroup};
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = p->split ? VK_PIPELINE_CREATE_DISPATCH_BASE_BIT : 0,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = whole ? &size : NULL,
                  .flags = whole ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = k->module,
                  .pName = "main",
                  .pSpecializationInfo = &special},
        .layout = k->layout,
    };
    double start = vkm_now_s();
    o->result = vkCreateComputePipelines(vk->device, vk->cache, 1, &info, NULL, &p->handle);
    char constants[VKM_MAX_SPEC * 12] = "";
    for (size_t i = 0, at = 0; i < VKM_MAX_SPEC; i++)
        at += (size_t)snprintf(constants + at, sizeof constants - at, " %u", p->spec[i]);
    vkm_debug("pipeline %s.%s%s: %.0f ms", k->kernel->name, vkm_form_name(k->form), constants,
              1e3 * (vkm_now_s() - start));
}

/* Whoever is free takes the next; the cache locks itself. */
static void make_some(void *user, uint32_t thread, uint32_t n_threads) {
    (void)thread, (void)n_threads;
    orders *o = user;
    uint32_t i;
    while ((i = atomic_fetch_add(&o->next, 1)) < o->n) make(o->vk, &o->v[i]);
}

static size_t code_words(const order *o) {
    const vkm_code *c = &o->kernel->forms[VKM_FORM_plain];
    return (size_t)(c->end - c->at);
}

static int longer_first(const void *a, const void *b) {
    size_t x = code_words(a), y = code_words(b);
    return x < y ? 1 : x > y ? -1 : 0;
}

static vkm_status make_all(orders *o, vkm_err *err) {
    uint32_t threads = vkm_cpu_count();
    vkm_team *team;
    if (threads > o->n) threads = o->n;
    if (vkm_team_new(threads, &team, err)) return err->status;
    qsort(o->v, o->n, sizeof *o->v, longer_first);
    vkm_team_run(team, 1, make_some, o);
    vkm_team_free(team);
    o->vk->cache_grew = 1;
    for (uint32_t i = 0; i < o->n; i++) {
        vk_dev *vk = o->vk;
        const vk_pipeline *p = &o->v[i].p;
        if (!p->handle) {
            (void)!vkm_vk_fail(vk, err, o->v[i].result, vk->kernels[p->kernel].kernel->name);
        } else if (2 * ++vk->n_pipelines < vk->cap_pipelines || !grow(vk, err)) {
            vk->pipelines[place_of(vk->pipelines, vk->cap_pipelines, p->kernel, p->spec,
                                   p->split)] = *p;
        } else {
            vkDestroyPipeline(vk->device, p->handle, NULL);
        }
    }
    return err->status;
}

static int is_ordered(const orders *o, const vk_pipeline *p) {
    for (uint32_t i = 0; i < o->n; i++) {
        const vk_pipeline *q = &o->v[i].p;
        if (q->kernel == p->kernel && q->split == p->split &&
            !memcmp(q->spec, p->spec, sizeof q->spec))
            return 1;
    }
    return 0;
}

vkm_status vkm_vk_pipelines_make(vk_dev *vk, const vkm_nodes *nodes, const vk_slice *slices,
                                 uint32_t n, uint8_t *made, vkm_err *err) {
    orders o = {.vk = vk};
    if (!vk->cap_pipelines && grow(vk, err)) return err->status;
    memset(made, 0, n);
    for (uint32_t i = 0; i < n; i++) {
        vk_pipeline p = {.kernel = slices[i].kernel, .split = slices[i].split};
        memcpy(p.spec, nodes->v[slices[i].node].how.spec, sizeof p.spec);
        uint32_t at = place_of(vk->pipelines, vk->cap_pipelines, p.kernel, p.spec, p.split);
        if (vk->pipelines[at].handle || is_ordered(&o, &p)) continue;
        if (!o.v && !(o.v = vkm_calloc(n - i, sizeof *o.v, "pipelines", err))) return err->status;
        o.v[o.n++] = (order){
            .p = p, .kernel = vk->kernels[p.kernel].kernel, .subgroup = vk->dev->matrix.subgroup};
        made[i] = 1;
    }
    if (o.n) (void)!make_all(&o, err);
    free(o.v);
    return err->status;
}
