/* Storage formats: conversions between fp32, row-major bf16 and operand panels. */
#include "ops/twin.h"

#ifndef VKM_TWIN64
void vkm_op_f32_to_bf16(vkm_stream *s, const vkm_args_f32_to_bf16 *a) {
    vkm_args_f32_to_bf16 b = *a;
    b.x = vkm_need(a->x, 2ull * a->n_words, "f32_to_bf16", "x");
    b.y = vkm_need(a->y, 2ull * a->n_words, "f32_to_bf16", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_f32_to_bf16], &b,
                      vkm_launch_flat(a->n_words, 64, 50.0 * a->n_words));
}
#endif

VKM_REF(f32_to_bf16) {
    const real *x = ref_f32(a->x);
    bf16 *y = ref_bf16(a->y);
    FOR_PART(i, 2ull * a->n_words) y[i] = stb(x[i]);
}
