#include "verify/verify.h"

VKM_CASES(softmath_probe) {
    FOR_SIZES(function, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10) {
        FOR_SIZES(fill, VKM_FILL_NORMAL, VKM_FILL_WIDE, VKM_FILL_SPECIAL) {
            vkm_args_softmath_probe a = {.n = 4099, .function = function};
            a.x = vkm_v_f32(v, a.n, (vkm_fill)fill);
            a.y = vkm_v_f32(v, a.n, (vkm_fill)fill);
            a.z = vkm_v_f32_out(v, a.n);
            VKM_V_RUN(v, softmath_probe, &a);
        }
    }
}

/* Traps 0 to 5 are for all devices the same; the others may differ (ops/device.c). */
VKM_CASES(arith_probe) {
    FOR_SIZES(trap, 0, 1, 2, 3, 4, 5) {
        vkm_args_arith_probe a = {.n = 4099, .trap = trap};
        a.x = vkm_v_f32(v, a.n, VKM_FILL_NORMAL);
        a.y = vkm_v_f32(v, a.n, VKM_FILL_NORMAL);
        a.w = vkm_v_f32(v, a.n, VKM_FILL_NORMAL);
        a.z = vkm_v_f32_out(v, a.n);
        VKM_V_RUN(v, arith_probe, &a);
    }
}
