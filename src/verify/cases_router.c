#include "ops/router.h"
#include "verify/verify.h"

static const uint32_t cols[] = {1, 63, 64, 65, 127, 448, 8064};

VKM_CASES(router_fwd) {
    for (size_t i = 0; i < VKM_COUNTOF(cols); i++) FOR_SIZES(n_rows, 1, 2, 65) {
            vkm_fill fill = i % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL;
            vkm_args_router_fwd a = {.n_rows = n_rows, .n_cols = cols[i], .linear = n_rows == 2};
            a.a = vkm_v_f32(v, (uint64_t)n_rows * cols[i], fill);
            a.mu = vkm_v_f32(v, cols[i], fill);
            a.u = vkm_v_f32(v, cols[i], VKM_FILL_NORMAL);
            a.cal = vkm_v_f32(v, VKM_CAL_WORDS, VKM_FILL_NORMAL);
            a.s = vkm_v_f32_out(v, n_rows);
            a.z = vkm_v_f32_out(v, n_rows);
            a.w = vkm_v_f32_out(v, n_rows);
            a.inv = vkm_v_f32_out(v, 2ull * n_rows);
            VKM_V_RUN(v, router_fwd, &a);
        }
    /* a row at the mean, and no direction: the cosine is 0 */
    vkm_args_router_fwd a = {.n_rows = 1, .n_cols = 4};
    static const float ones[] = {1, 1, 1, 1}, zeros[] = {0, 0, 0, 0}, cal[] = {0.25f, 4};
    a.a = vkm_v_f32_data(v, ones, 4);
    a.mu = vkm_v_f32_data(v, ones, 4);
    a.u = vkm_v_f32_data(v, zeros, 4);
    a.cal = vkm_v_f32_data(v, cal, 2);
    a.s = vkm_v_f32_out(v, 1);
    a.z = vkm_v_f32_out(v, 1);
    a.w = vkm_v_f32_out(v, 1);
    a.inv = vkm_v_f32_out(v, 2);
    VKM_V_RUN(v, router_fwd, &a);
}

VKM_CASES(router_bwd) {
    for (size_t i = 0; i < VKM_COUNTOF(cols); i++) FOR_SIZES(n_rows, 1, 2, 65) {
            vkm_args_router_bwd a = {.n_rows = n_rows, .n_cols = cols[i], .linear = n_rows == 2};
            a.a = vkm_v_f32(v, (uint64_t)n_rows * cols[i], VKM_FILL_NORMAL);
            a.mu = vkm_v_f32(v, cols[i], VKM_FILL_NORMAL);
            a.u = vkm_v_f32(v, cols[i], VKM_FILL_NORMAL);
            a.cal = vkm_v_f32(v, VKM_CAL_WORDS, VKM_FILL_NORMAL);
            a.s = vkm_v_f32(v, n_rows, VKM_FILL_POSITIVE);
            a.inv = vkm_v_f32(v, 2ull * n_rows, VKM_FILL_POSITIVE);
            a.dz = vkm_v_f32(v, n_rows, i % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
            a.du = vkm_v_f32(v, cols[i], VKM_FILL_NORMAL);
            a.db = vkm_v_f32(v, 1, VKM_FILL_NORMAL);
            VKM_V_RUN(v, router_bwd, &a);
        }
}

VKM_CASES(router_dz) {
    FOR_SIZES(n, 1, 63, 64, 65, 127) {
        vkm_args_router_dz a = {.n = n};
        a.w = vkm_v_f32(v, n, VKM_FILL_POSITIVE);
        a.dw = vkm_v_f32(v, n, VKM_FILL_WIDE);
        a.dz = vkm_v_f32_out(v, n);
        VKM_V_RUN(v, router_dz, &a);
    }
}

VKM_CASES(pin_loss) {
    FOR_SIZES(n, 1, 24, 63, 64, 65, 127) {
        vkm_args_pin_loss a = {.n_pairs = n, .coef = 0.3f, .scale = 0x1p24f};
        a.z = vkm_v_f32(v, 2ull * n, n % 2 ? VKM_FILL_WIDE : VKM_FILL_NORMAL);
        a.w = vkm_v_f32(v, 2ull * n, VKM_FILL_POSITIVE);
        a.loss = vkm_v_f32_out(v, 1);
        a.dz = vkm_v_f32_out(v, 2ull * n);
        VKM_V_RUN(v, pin_loss, &a);
    }
}
