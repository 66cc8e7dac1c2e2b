/* What a GPU's compiler makes of the shaders, without the GPU: registers, spills, workgroup memory
 * and estimates, from VK_KHR_pipeline_executable_properties.
 *
 *   VKMOE_CLASS=gpu vkmoe bench ROW --verbose 2>&1 | gpu_stats build/gen
 *
 * with the environment of a driver that compiles for a device which is not there
 * (docs/performance.md). Reads the lines "pipeline NAME.FORM CONSTANTS: ..." from stdin; the first
 * argument is the folder of the .spv files. Columns are the driver's own figures. Exit 3 if there
 * is no device, 1 if a pipeline cannot be made. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "vk/kernel.h"
#include "vk/vk_private.h"

typedef struct bench {
    VkInstance instance;
    VkPhysicalDevice physical;
    VkDevice device;
} bench;

static void must(VkResult r, const char *what) {
    if (!r) return;
    fprintf(stderr, "gpu_stats: %s: VkResult %d\n", what, r);
    exit(1);
}

static void no_device(void) {
    fprintf(stderr, "gpu_stats: no Vulkan device\n");
    exit(3);
}

static void open_bench(bench *b) {
    const VkApplicationInfo app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                                   .apiVersion = VK_API_VERSION_1_3};
    const VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
                                       .pApplicationInfo = &app};
    uint32_t n = 1;
    if (volkInitialize() || vkCreateInstance(&info, NULL, &b->instance)) no_device();
    volkLoadInstance(b->instance);
    VkResult r = vkEnumeratePhysicalDevices(b->instance, &n, &b->physical);
    if (n == 0 || (r && r != VK_INCOMPLETE)) no_device();
    VkPhysicalDeviceProperties p;
    vkGetPhysicalDeviceProperties(b->physical, &p);
    printf("%s\n", p.deviceName);

    const float priority = 1;
    const VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                           .queueCount = 1,
                                           .pQueuePriorities = &priority};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR stats = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    const char *extensions[2] = {VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME};
    uint32_t n_extensions = 1;
#ifdef VK_KHR_cooperative_matrix
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    if (vkm_vk_has_extension(b->physical, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) {
        stats.pNext = &matrix;
        extensions[n_extensions++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    }
#endif
    VkPhysicalDeviceVulkan13Features f13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, .pNext = &stats};
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &f13};
    VkPhysicalDeviceVulkan11Features f11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES, .pNext = &f12};
    VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                     .pNext = &f11};
    vkGetPhysicalDeviceFeatures2(b->physical, &all);
    all.features.robustBufferAccess = VK_FALSE;
    const VkDeviceCreateInfo device = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                       .pNext = &all,
                                       .queueCreateInfoCount = 1,
                                       .pQueueCreateInfos = &queue,
                                       .enabledExtensionCount = n_extensions,
                                       .ppEnabledExtensionNames = extensions};
    must(vkCreateDevice(b->physical, &device, NULL, &b->device), "vkCreateDevice");
    volkLoadDevice(b->device);
}

/* A pipeline of that shader; not destroyed, the program ends soon. */
static VkPipeline make(const bench *b, const char *path, const uint32_t *spec) {
    vkm_err err = {0};
    char *code = NULL;
    size_t n = 0;
    if (vkm_file_read(path, 1 << 24, &code, &n, &err)) {
        fprintf(stderr, "gpu_stats: %s\n", err.msg);
        exit(1);
    }
    const VkShaderModuleCreateInfo shader = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO,
                                             .codeSize = n,
                                             .pCode = (const uint32_t *)(const void *)code};
    VkShaderModule module;
    must(vkCreateShaderModule(b->device, &shader, NULL, &module), path);
    const VkPushConstantRange range = {VK_SHADER_STAGE_COMPUTE_BIT, 0, VKM_MAX_PUSH};
    const VkPipelineLayoutCreateInfo layout_info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
        .pushConstantRangeCount = 1,
        .pPushConstantRanges = &range};
    VkPipelineLayout layout;
    must(vkCreatePipelineLayout(b->device, &layout_info, NULL, &layout), path);
    VkSpecializationMapEntry entries[VKM_MAX_SPEC];
    uint32_t n_entries = 0;
    for (uint32_t i = 0; i < VKM_MAX_SPEC; i++)
        if (spec[i]) entries[n_entries++] = (VkSpecializationMapEntry){i, i * 4, 4};
    const VkSpecializationInfo special = {n_entries, entries, VKM_MAX_SPEC * sizeof *spec, spec};
    /* of cooperative matrices (shaders/matrix.glsl); 0 elsewhere */
    const uint32_t subgroup = spec[9];
    const VkPipelineShaderStageRequiredSubgroupSizeCreateInfo size = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = subgroup};
    const VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = subgroup ? &size : NULL,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main",
                  .pSpecializationInfo = &special},
        .layout = layout};
    VkPipeline pipeline;
    must(vkCreateComputePipelines(b->device, VK_NULL_HANDLE, 1, &info, NULL, &pipeline), path);
    free(code);
    return pipeline;
}

static void print_stats(const bench *b, VkPipeline pipeline) {
    enum { MOST = 64 };
    VkPipelineExecutableStatisticKHR v[MOST];
    uint32_t n = MOST;
    const VkPipelineExecutableInfoKHR of = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                            .pipeline = pipeline};
    for (uint32_t i = 0; i < n; i++)
        v[i] = (VkPipelineExecutableStatisticKHR){
            .sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR};
    VkResult r = vkGetPipelineExecutableStatisticsKHR(b->device, &of, &n, v);
    must(r == VK_INCOMPLETE ? VK_SUCCESS : r, "vkGetPipelineExecutableStatisticsKHR");
    for (uint32_t i = 0; i < n; i++)
        if (v[i].format == VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR &&
            !strstr(v[i].name, "ash"))
            printf("  %s %llu", v[i].name, (unsigned long long)v[i].value.u64);
    printf("\n");
}

int main(int argc, char **argv) {
    char line[512], name[128], path[VKM_PATH_MAX];
    bench b = {0};
    if (argc != 2) {
        fprintf(stderr, "usage: gpu_stats FOLDER_OF_SPV <LINES\n");
        return 2;
    }
    open_bench(&b);
    while (fgets(line, sizeof line, stdin)) {
        uint32_t spec[VKM_MAX_SPEC] = {0};
        const char *at = strstr(line, "pipeline ");
        int used = 0;
        if (!at || sscanf(at, "pipeline %127s%n", name, &used) != 1 || !strchr(name, '.')) continue;
        char *next = line + (at - line) + used;
        for (uint32_t i = 0; i < VKM_MAX_SPEC && *next == ' '; i++)
            spec[i] = (uint32_t)strtoul(next, &next, 10);
        printf("%s", name);
        for (uint32_t i = 0; i < VKM_MAX_SPEC; i++) printf(" %u", spec[i]);
        snprintf(path, sizeof path, "%s/%s.spv", argv[1], name);
        print_stats(&b, make(&b, path, spec));
    }
    if (fflush(stdout)) return 1;
    _Exit(0); /* a device that is not there need not close cleanly */
}
