#include "verify/verify.h"

VKM_CASES(f32_to_bf16) {
    FOR_SIZES(n, 1, 63, 64, 65, 127, 4099) {
        vkm_args_f32_to_bf16 a = {.n_words = n};
        a.x = vkm_v_f32(v, 2ull * n, VKM_FILL_SPECIAL);
        a.y = vkm_v_bf16_out(v, 2ull * n);
        VKM_V_RUN(v, f32_to_bf16, &a);
    }
}
