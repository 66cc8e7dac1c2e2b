#include <math.h>

#include "ops/optim.h"
#include "verify/verify.h"

VKM_CASES(sumsq) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099, 65535, 65536, 65537, 200000) {
        vkm_args_sumsq a = {.n = n};
        a.x = vkm_v_f32(v, n, n % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.y = vkm_v_f32_out(v, vkm_n_sum_blocks(n));
        VKM_V_RUN(v, sumsq, &a);
    }
}

VKM_CASES(sum5) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099, 65536) {
        vkm_args_sum5 a = {.n = n};
        a.x = vkm_v_f32(v, n, n % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.y = vkm_v_f32_out(v, 1);
        VKM_V_RUN(v, sum5, &a);
    }
}

VKM_CASES(clip_coef) {
    static const float special[] = {0, 0x1p126f, INFINITY, NAN};
    FOR_SIZES(n, 1, 63, 64, 65, 127) {
        vkm_args_clip_coef a = {.n = n, .max_norm = n == 65 ? 0 : 1.0f, .inv_scale = 0x1p-3f};
        a.sums = vkm_v_f32(v, n, VKM_FILL_POSITIVE);
        a.clip = vkm_v_f32_out(v, VKM_CLIP_WORDS);
        VKM_V_RUN(v, clip_coef, &a);
    }
    for (size_t i = 0; i < VKM_COUNTOF(special); i++) {
        float sums[] = {1, special[i], special[i]};
        vkm_args_clip_coef a = {.n = 3, .max_norm = 1.0f, .inv_scale = 0x1p-24f};
        a.sums = vkm_v_f32_data(v, sums, 3);
        a.clip = vkm_v_f32_out(v, VKM_CLIP_WORDS);
        VKM_V_RUN(v, clip_coef, &a);
    }
}

static vkm_tensor clip_of(vkm_verify *v) {
    static const float clip[VKM_CLIP_WORDS] = {3.0f, 0.33333334f, 1.0f};
    return vkm_v_f32_data(v, clip, VKM_CLIP_WORDS);
}

VKM_CASES(adamw) {
    for (uint32_t stride = 0; stride < 2; stride++) FOR_SIZES(n, 1, 63, 64, 65, 127, 4099) {
            vkm_args_adamw a = {.n = n,
                                .v_stride = stride,
                                .lr = 7e-5f,
                                .b1 = 0.9f,
                                .b2 = 0.99f,
                                .eps = 1e-8f,
                                .wd = 0.1f,
                                .bias1 = 10,
                                .bias2 = 100,
                                .inv_scale = 0x1p-24f};
            vkm_fill fill = n % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL;
            a.p = vkm_v_f32(v, n, fill);
            a.g = vkm_v_f32(v, n, fill);
            a.m = vkm_v_f32(v, n, fill);
            a.v = vkm_v_f32(v, stride ? n : 1, VKM_FILL_POSITIVE);
            a.clip = clip_of(v);
            VKM_V_RUN(v, adamw, &a);
        }
}

VKM_CASES(adam_tensor_v) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099, 20000003) {
        vkm_args_adam_tensor_v a = {.n = n, .b2 = 0.99f, .inv_scale = 0x1p-24f};
        a.sum = vkm_v_f32(v, 1, VKM_FILL_POSITIVE);
        a.v = vkm_v_f32(v, 1, VKM_FILL_POSITIVE);
        a.clip = clip_of(v);
        VKM_V_RUN(v, adam_tensor_v, &a);
    }
}

VKM_CASES(accumulate) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099) {
        vkm_args_accumulate a = {.n = n};
        a.group = vkm_v_f32(v, n, VKM_FILL_WIDE);
        a.total = vkm_v_f32(v, n, VKM_FILL_WIDE);
        VKM_V_RUN(v, accumulate, &a);
    }
}
