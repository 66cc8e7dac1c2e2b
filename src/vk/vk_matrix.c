/* The fast tier's cooperative matrices (VK_KHR_cooperative_matrix): what a device offers, which of
 * it is used, and the features that have to be enabled. Builds whose headers or shader compiler do
 * not know them have none; CMake defines VKM_HAVE_HALF and VKM_HAVE_BF16. */
#include "vk/vk_private.h"

#if !defined(VKM_HAVE_HALF) && !defined(VKM_HAVE_BF16)

int vkm_vk_build_has_matrices(void) {
    return 0;
}

vkm_matrix vkm_vk_find_matrix(VkPhysicalDevice physical) {
    (void)physical;
    return (vkm_matrix){0};
}

void vkm_vk_matrix_features(vkm_matrix x, vk_matrix_features *out) {
    (void)x;
    *out = (vk_matrix_features){0};
}

#else

int vkm_vk_build_has_matrices(void) {
    return 1;
}

enum { MOST = 16 * 16 * 16 }; /* larger shapes hold more registers than the tiles leave */

/* What our shaders can do with a shape: whole fours of outputs for each invocation, rows of
 * operands that are whole fours of words. */
static int fits(const VkCooperativeMatrixPropertiesKHR *p, VkComponentTypeKHR factors,
                uint32_t subgroup) {
    return p->AType == factors && p->BType == factors &&
           p->CType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
           p->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR && p->scope == VK_SCOPE_SUBGROUP_KHR &&
           !p->saturatingAccumulation && p->MSize % 8 == 0 && p->NSize % 4 == 0 &&
           p->MSize * p->NSize % (4 * subgroup) == 0 &&
           (p->KSize == 8 || p->KSize == 16 || p->KSize == 32);
}

static const struct {
    vkm_form form;
    VkComponentTypeKHR factors;
    const char *extension; /* beyond VK_KHR_cooperative_matrix */
} kinds[] = {
#ifdef VKM_HAVE_BF16
    {VKM_FORM_bf16, VK_COMPONENT_TYPE_BFLOAT16_KHR, VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME},
#endif
#ifdef VKM_HAVE_HALF
    {VKM_FORM_half, VK_COMPONENT_TYPE_FLOAT16_KHR, NULL},
#endif
};

/* Extensions are names; whether they may be used, features tell. */
static int is_supported(VkPhysicalDevice physical, vkm_form form) {
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    VkPhysicalDeviceSubgroupSizeControlFeatures sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
        .pNext = &matrix};
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &sizes};
    VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                     .pNext = &f12};
    int factors = 1;
#ifdef VKM_HAVE_BF16
    VkPhysicalDeviceShaderBfloat16FeaturesKHR bf16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR};
    if (form == VKM_FORM_bf16) matrix.pNext = &bf16;
#endif
    vkGetPhysicalDeviceFeatures2(physical, &all);
    if (form == VKM_FORM_half) factors = f12.shaderFloat16 != 0;
#ifdef VKM_HAVE_BF16
    if (form == VKM_FORM_bf16)
        factors = bf16.shaderBFloat16Type && bf16.shaderBFloat16CooperativeMatrix;
#endif
    return matrix.cooperativeMatrix && sizes.subgroupSizeControl && sizes.computeFullSubgroups &&
           f12.vulkanMemoryModel && f12.vulkanMemoryModelDeviceScope && factors;
}

/* The smallest subgroup that a shader may ask for is the one that matrices are made of: where
 * others are allowed (AMD 64 beside 32, Intel 32 beside 8 or 16) each of its invocations holds
 * copies. */
static uint32_t smallest_subgroup(VkPhysicalDevice physical) {
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                       .pNext = &sizes};
    vkGetPhysicalDeviceProperties2(physical, &all);
    return sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT ? sizes.minSubgroupSize
                                                                          : 0;
}

vkm_matrix vkm_vk_find_matrix(VkPhysicalDevice physical) {
    VkCooperativeMatrixPropertiesKHR v[128];
    uint32_t n = VKM_COUNTOF(v);
    vkm_matrix best = {0};
    if (!vkm_vk_has_extension(physical, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME)) return best;
    for (uint32_t i = 0; i < n; i++)
        v[i] = (VkCooperativeMatrixPropertiesKHR){
            .sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    if (vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(physical, &n, v) < 0) return best;
    uint32_t subgroup = smallest_subgroup(physical);
    for (size_t f = 0; subgroup && f < VKM_COUNTOF(kinds) && !best.m; f++) {
        if (kinds[f].extension && !vkm_vk_has_extension(physical, kinds[f].extension)) continue;
        if (!is_supported(physical, kinds[f].form)) continue;
        for (uint32_t i = 0; i < n; i++) {
            const VkCooperativeMatrixPropertiesKHR *p = &v[i];
            if (!fits(p, kinds[f].factors, subgroup)) continue;
            uint32_t size = p->MSize * p->NSize * p->KSize;
            if (size <= MOST && size > best.m * best.n * best.k)
                best = (vkm_matrix){kinds[f].form, p->MSize, p->NSize, p->KSize, subgroup};
        }
    }
    return best;
}

void vkm_vk_matrix_features(vkm_matrix x, vk_matrix_features *out) {
    *out = (vk_matrix_features){0};
    if (!x.m) return;
    out->names[out->n_names++] = VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME;
    out->matrix = (VkPhysicalDeviceCooperativeMatrixFeaturesKHR){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .cooperativeMatrix = VK_TRUE};
    out->sizes = (VkPhysicalDeviceSubgroupSizeControlFeatures){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
        .pNext = &out->matrix,
        .subgroupSizeControl = VK_TRUE,
        .computeFullSubgroups = VK_TRUE};
    out->first = &out->sizes;
#ifdef VKM_HAVE_BF16
    out->bf16 = (VkPhysicalDeviceShaderBfloat16FeaturesKHR){
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_BFLOAT16_FEATURES_KHR,
        .pNext = out->first,
        .shaderBFloat16Type = VK_TRUE,
        .shaderBFloat16CooperativeMatrix = VK_TRUE};
    if (x.form == VKM_FORM_bf16) {
        out->names[out->n_names++] = VK_KHR_SHADER_BFLOAT16_EXTENSION_NAME;
        out->first = &out->bf16;
    }
#endif
}

#endif
