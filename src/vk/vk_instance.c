/* The loader, the instance with its validation messages, the list of devices, and the choice. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "vk/vk_private.h"

#define VALIDATION_LAYER "VK_LAYER_KHRONOS_validation"

static const char *const driver_help =
    "install a driver (AMD, Intel or the CPU driver lavapipe: mesa-vulkan-drivers on Debian and "
    "Fedora, vulkan-radeon, vulkan-intel or vulkan-swrast on Arch; NVIDIA: nvidia-driver and "
    "nvidia-vulkan-icd on Debian, akmod-nvidia from RPM Fusion on Fedora, nvidia-utils on Arch; in "
    "a container also NVIDIA_DRIVER_CAPABILITIES=all), or run with --backend cpu, which needs none";

static const struct {
    VkResult r;
    const char *text;
} results[] = {
    {VK_ERROR_OUT_OF_HOST_MEMORY, "out of host memory"},
    {VK_ERROR_OUT_OF_DEVICE_MEMORY, "out of device memory"},
    {VK_ERROR_DEVICE_LOST, "the device was lost"},
    {VK_ERROR_INITIALIZATION_FAILED, "initialization failed"},
    {VK_ERROR_LAYER_NOT_PRESENT, "a layer is not installed"},
    {VK_ERROR_EXTENSION_NOT_PRESENT, "an extension is missing"},
    {VK_ERROR_FEATURE_NOT_PRESENT, "a feature is missing"},
    {VK_ERROR_INCOMPATIBLE_DRIVER, "no compatible driver"},
    {VK_ERROR_TOO_MANY_OBJECTS, "too many objects"},
    {VK_ERROR_MEMORY_MAP_FAILED, "memory could not be mapped"},
    {VK_ERROR_INVALID_SHADER_NV, "the driver rejected a shader"},
    {VK_TIMEOUT, "no answer in time"},
};

vkm_status vkm_vk_fail(vk_dev *vk, vkm_err *err, VkResult r, const char *what) {
    char text[64] = "", flying[256];
    for (size_t i = 0; i < VKM_COUNTOF(results); i++)
        if (results[i].r == r) snprintf(text, sizeof text, "%s", results[i].text);
    if (!text[0]) snprintf(text, sizeof text, "VkResult %d", (int)r);
    if (r != VK_ERROR_DEVICE_LOST && r != VK_TIMEOUT)
        return vkm_fail(err, VKM_FAILED, "vulkan: %s failed on %s: %s", what, vk->dev->name, text);
    vk->lost = 1;
    vkm_vk_name_in_flight(vk, flying, sizeof flying);
    return vkm_fail(err, VKM_DEVICE_LOST,
                    "vulkan: %s: %s (%s) during %s; last kernels submitted: %s; restart from the "
                    "last checkpoint, and see the kernel log (dmesg) for the driver's reason",
                    vk->dev->name, text, vk->dev->driver, what, flying);
}

static VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                      VkDebugUtilsMessageTypeFlagsEXT types,
                                      const VkDebugUtilsMessengerCallbackDataEXT *data,
                                      void *user) {
    (void)severity, (void)types;
    vk_message_box *box = user;
    vkm_warn("validation: %s", data->pMessage);
    if (box->n++ == 0) snprintf(box->first, sizeof box->first, "%s", data->pMessage);
    return VK_FALSE;
}

vkm_status vkm_vk_check_messages(vk_dev *vk, vkm_err *err) {
    uint32_t n = vk->messages.n;
    vk->messages.n = 0;
    if (!n) return VKM_OK;
    return vkm_fail(err, VKM_FAILED, "vulkan: %u validation messages, the first: %s", n,
                    vk->messages.first);
}

static int has_layer(const char *name) {
    uint32_t n = 0;
    int found = 0;
    if (vkEnumerateInstanceLayerProperties(&n, NULL)) return 0;
    VkLayerProperties *v = calloc(n + 1, sizeof *v);
    if (v && !vkEnumerateInstanceLayerProperties(&n, v))
        for (uint32_t i = 0; i < n; i++) found |= strcmp(v[i].layerName, name) == 0;
    free(v);
    return found;
}

vkm_status vkm_vk_instance_new(int validate, vk_message_box *box, VkInstance *out,
                               VkDebugUtilsMessengerEXT *messenger, vkm_err *err) {
    *out = VK_NULL_HANDLE;
    *messenger = VK_NULL_HANDLE;
    if (volkInitialize())
        return vkm_fail(err, VKM_FAILED,
                        "vulkan: the loader libvulkan.so.1 is not installed (libvulkan1 on Debian, "
                        "vulkan-loader on Fedora, vulkan-icd-loader on Arch); %s",
                        driver_help);
    if (validate && !has_layer(VALIDATION_LAYER))
        return vkm_fail(err, VKM_USAGE,
                        "vulkan: " VALIDATION_LAYER " is not installed; install "
                        "vulkan-validationlayers or run without validation");
    VkDebugUtilsMessengerCreateInfoEXT hear = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                           VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                       VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = box,
    };
    VkValidationFeatureEnableEXT sync = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT;
    VkValidationFeaturesEXT features = {
        .sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
        .pNext = &hear,
        .enabledValidationFeatureCount = 1,
        .pEnabledValidationFeatures = &sync,
    };
    const char *layers[] = {VALIDATION_LAYER};
    const char *extensions[] = {VK_EXT_DEBUG_UTILS_EXTENSION_NAME};
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "vkmoe",
        .apiVersion = VK_API_VERSION_1_3,
    };
    VkInstanceCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO,
        .pNext = validate ? &features : NULL,
        .pApplicationInfo = &app,
        .enabledLayerCount = validate ? 1 : 0,
        .ppEnabledLayerNames = layers,
        .enabledExtensionCount = validate ? 1 : 0,
        .ppEnabledExtensionNames = extensions,
    };
    VkResult r = vkCreateInstance(&info, NULL, out);
    if (r == VK_ERROR_INCOMPATIBLE_DRIVER)
        return vkm_fail(err, VKM_FAILED, "vulkan: no driver is installed; %s", driver_help);
    if (r)
        return vkm_fail(err, VKM_FAILED, "vulkan: vkCreateInstance failed (VkResult %d)", (int)r);
    /* All functions through the loader: several devices and instances may be open at once. */
    volkLoadInstance(*out);
    if (!validate) return VKM_OK;
    PFN_vkCreateDebugUtilsMessengerEXT create = (PFN_vkCreateDebugUtilsMessengerEXT)(void (*)(
        void))vkGetInstanceProcAddr(*out, "vkCreateDebugUtilsMessengerEXT");
    if (!create || create(*out, &hear, NULL, messenger)) {
        vkm_vk_instance_free(*out, VK_NULL_HANDLE);
        *out = VK_NULL_HANDLE;
        return vkm_fail(err, VKM_FAILED, "vulkan: the validation messenger could not be made");
    }
    return VKM_OK;
}

void vkm_vk_instance_free(VkInstance instance, VkDebugUtilsMessengerEXT messenger) {
    if (!instance) return;
    PFN_vkDestroyDebugUtilsMessengerEXT destroy = (PFN_vkDestroyDebugUtilsMessengerEXT)(void (*)(
        void))vkGetInstanceProcAddr(instance, "vkDestroyDebugUtilsMessengerEXT");
    if (messenger && destroy) destroy(instance, messenger, NULL);
    vkDestroyInstance(instance, NULL);
}

int vkm_vk_has_extension(VkPhysicalDevice physical, const char *name) {
    uint32_t n = 0;
    int found = 0;
    if (vkEnumerateDeviceExtensionProperties(physical, NULL, &n, NULL)) return 0;
    VkExtensionProperties *v = calloc(n + 1, sizeof *v);
    if (v && !vkEnumerateDeviceExtensionProperties(physical, NULL, &n, v))
        for (uint32_t i = 0; i < n; i++) found |= strcmp(v[i].extensionName, name) == 0;
    free(v);
    return found;
}

static const struct {
    uint32_t id;
    const char *name;
} vendors[] = {
    {0x1002, "AMD"},      {0x10de, "NVIDIA"},      {0x8086, "Intel"},  {0x13b5, "Arm"},
    {0x5143, "Qualcomm"}, {0x1010, "Imagination"}, {0x106b, "Apple"},  {0x10005, "Mesa"},
    {0x1ae0, "Google"},   {0x14e4, "Broadcom"},    {0x1af4, "virtio"},
};

static vkm_dev_type type_of(VkPhysicalDeviceType t) {
    switch (t) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return VKM_DEV_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return VKM_DEV_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return VKM_DEV_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return VKM_DEV_SOFTWARE;
    default:
        return VKM_DEV_OTHER;
    }
}

static int has_compute_queue(VkPhysicalDevice p) {
    VkQueueFamilyProperties v[32];
    uint32_t n = VKM_COUNTOF(v);
    vkGetPhysicalDeviceQueueFamilyProperties(p, &n, v);
    for (uint32_t i = 0; i < n; i++)
        if (v[i].queueFlags & VK_QUEUE_COMPUTE_BIT) return 1;
    return 0;
}

/* The heap of the first device-local memory type. */
static void memory_of(VkPhysicalDevice p, vkm_dev_info *info) {
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    int has_budget = vkm_vk_has_extension(p, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    VkPhysicalDeviceMemoryProperties2 m = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
        .pNext = has_budget ? &budget : NULL};
    vkGetPhysicalDeviceMemoryProperties2(p, &m);
    for (uint32_t i = 0; i < m.memoryProperties.memoryTypeCount; i++) {
        const VkMemoryType *t = &m.memoryProperties.memoryTypes[i];
        if (!(t->propertyFlags & VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT)) continue;
        uint32_t heap = t->heapIndex;
        info->memory_bytes = m.memoryProperties.memoryHeaps[heap].size;
        if (has_budget && budget.heapBudget[heap] > budget.heapUsage[heap])
            info->budget_bytes = budget.heapBudget[heap] - budget.heapUsage[heap];
        break;
    }
}

static void describe(VkPhysicalDevice p, uint32_t index, vkm_dev_info *info) {
    VkPhysicalDeviceProperties basic;
    vkGetPhysicalDeviceProperties(p, &basic);
    uint32_t api = basic.apiVersion;
    *info = (vkm_dev_info){
        .index = index,
        .vendor_id = basic.vendorID,
        .device_id = basic.deviceID,
        .api = {VK_API_VERSION_MAJOR(api), VK_API_VERSION_MINOR(api), VK_API_VERSION_PATCH(api)},
        .type = type_of(basic.deviceType),
        .shared_bytes = basic.limits.maxComputeSharedMemorySize,
        .max_invocations = basic.limits.maxComputeWorkGroupInvocations,
        .timestamps = basic.limits.timestampComputeAndGraphics != 0,
    };
    snprintf(info->name, sizeof info->name, "%s", basic.deviceName);
    snprintf(info->vendor, sizeof info->vendor, "0x%04x", basic.vendorID);
    for (size_t i = 0; i < VKM_COUNTOF(vendors); i++)
        if (vendors[i].id == basic.vendorID)
            snprintf(info->vendor, sizeof info->vendor, "%s", vendors[i].name);
    if (api < VK_API_VERSION_1_2) {
        snprintf(info->refused, sizeof info->refused, "Vulkan 1.2 is needed; it offers %u.%u",
                 info->api[0], info->api[1]);
        return;
    }
    VkPhysicalDeviceVulkan12Features f12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceFeatures2 f = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                   .pNext = &f12};
    vkGetPhysicalDeviceFeatures2(p, &f);
    VkPhysicalDeviceVulkan13Properties p13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_PROPERTIES};
    VkPhysicalDeviceVulkan12Properties p12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_PROPERTIES,
        .pNext = api >= VK_API_VERSION_1_3 ? &p13 : NULL};
    VkPhysicalDeviceVulkan11Properties p11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES, .pNext = &p12};
    VkPhysicalDeviceProperties2 props = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                         .pNext = &p11};
    vkGetPhysicalDeviceProperties2(p, &props);
    snprintf(info->driver, sizeof info->driver, "%.100s%s%.140s", p12.driverName,
             p12.driverInfo[0] ? ", " : "", p12.driverInfo);
    info->subgroup_size = p11.subgroupSize;
    info->max_alloc_bytes = p11.maxMemoryAllocationSize;
    if (p13.maxBufferSize && p13.maxBufferSize < info->max_alloc_bytes)
        info->max_alloc_bytes = p13.maxBufferSize;
    info->cooperative_matrix = vkm_vk_has_extension(p, "VK_KHR_cooperative_matrix");
    info->matrix = vkm_vk_find_matrix(p);
    memory_of(p, info);
    if (info->type == VKM_DEV_SOFTWARE) info->budget_bytes = vkm_host_memory_free();
    const char *lacks = !f12.bufferDeviceAddress ? "bufferDeviceAddress"
                        : !f12.timelineSemaphore ? "timelineSemaphore"
                        : !has_compute_queue(p)  ? "a compute queue"
                                                 : NULL;
    if (lacks) snprintf(info->refused, sizeof info->refused, "it lacks %s", lacks);
}

vkm_status vkm_vk_devices(VkInstance instance, VkPhysicalDevice **out, vkm_dev_info **info,
                          uint32_t *n, vkm_err *err) {
    *out = NULL;
    *info = NULL;
    *n = 0;
    VkResult r = vkEnumeratePhysicalDevices(instance, n, NULL);
    if (r || *n == 0)
        return vkm_fail(err, VKM_FAILED, "vulkan: no driver reports a device (VkResult %d); %s",
                        (int)r, driver_help);
    VkPhysicalDevice *devices = vkm_calloc(*n, sizeof(VkPhysicalDevice), "the devices", err);
    vkm_dev_info *list = vkm_calloc(*n, sizeof *list, "the devices", err);
    if (devices && list && (r = vkEnumeratePhysicalDevices(instance, n, devices)) < 0)
        vkm_fail(err, VKM_FAILED, "vulkan: devices could not be listed (VkResult %d)", (int)r);
    if (!devices || !list || r < 0) {
        free(devices);
        free(list);
        return err->status;
    }
    for (uint32_t i = 0; i < *n; i++) describe(devices[i], i, &list[i]);
    *out = devices;
    *info = list;
    return VKM_OK;
}

vkm_status vkm_dev_list(vkm_dev_info **out, uint32_t *n, vkm_err *err) {
    VkInstance instance;
    VkDebugUtilsMessengerEXT messenger;
    VkPhysicalDevice *physical;
    vkm_status st = vkm_vk_instance_new(0, NULL, &instance, &messenger, err);
    if (st) return st;
    st = vkm_vk_devices(instance, &physical, out, n, err);
    if (!st) free(physical);
    vkm_vk_instance_free(instance, messenger);
    return st;
}

static int name_matches(const vkm_dev_info *info, const char *wanted) {
    if (strcasecmp(wanted, "lavapipe") == 0) wanted = "llvmpipe";
    return strcasestr(info->name, wanted) || strcasestr(info->driver, wanted);
}

vkm_status vkm_vk_choose(const vkm_dev_info *info, uint32_t n, const char *wanted, uint32_t *out,
                         vkm_err *err) {
    static const vkm_dev_type order[] = {VKM_DEV_DISCRETE, VKM_DEV_INTEGRATED, VKM_DEV_VIRTUAL,
                                         VKM_DEV_OTHER, VKM_DEV_SOFTWARE};
    char list[640] = "";
    size_t at = 0;
    for (uint32_t i = 0; i < n && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%u '%s'%s%s", i ? ", " : "", i,
                               info[i].name, info[i].refused[0] ? ": " : "", info[i].refused);
    uint32_t found = n;
    char *end = NULL;
    unsigned long index = wanted ? strtoul(wanted, &end, 10) : 0;
    if (wanted && *wanted && *end == 0) {
        if (index < n) found = (uint32_t)index;
    } else {
        for (size_t o = 0; o < VKM_COUNTOF(order) && found == n; o++)
            for (uint32_t i = 0; i < n && found == n; i++)
                if (info[i].type == order[o] && (!wanted || name_matches(&info[i], wanted)) &&
                    !info[i].refused[0])
                    found = i;
    }
    if (found == n && wanted)
        return vkm_fail(
            err, VKM_USAGE,
            "vulkan: no usable device '%s'; there are: %s; --device takes the number or "
            "part of the name",
            wanted, list);
    if (found == n)
        return vkm_fail(err, VKM_FAILED, "vulkan: no usable device; there are: %s; %s", list,
                        driver_help);
    if (info[found].refused[0])
        return vkm_fail(err, VKM_FAILED, "vulkan: '%s' cannot be used: %s; there are: %s",
                        info[found].name, info[found].refused, list);
    *out = found;
    return VKM_OK;
}
