#include "vk/backend.h"
vkm_status vkm_vulkan_open(vkm_dev *dev, vkm_err *err) {
    (void)dev;
    return vkm_fail(err, VKM_FAILED, "vulkan: not yet");
}
