/* What a device computes at best: chains of multiply-adds that nothing but arithmetic holds up. */
#include "ops/peak.h"

#include "ops/attention.h"

#define LANES_BODY "ops/peak_lanes.h"
#include "ops/lanes.h"

#ifndef VKM_TWIN64
void vkm_op_fma_chains(vkm_stream *s, const vkm_args_fma_chains *a) {
    vkm_args_fma_chains b = *a;
    VKM_BUG_ON(vkm_bits(a->factor) & 0x7fffffu, "fma_chains: %g is no power of two",
               (double)a->factor);
    if (!a->n) return;
    b.x = vkm_need(a->x, a->n, "fma_chains", "x");
    b.y = vkm_need(a->y, a->n, "fma_chains", "y");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_fma_chains], &b,
                      vkm_launch_flat(a->n, 64, 2.0 * VKM_CHAINS * a->n * a->steps));
}
#endif

VKM_REF(fma_chains) {
    enum { UNIT = 16 };
    const real *x = ref_f32(a->x);
    real *y = ref_f32(a->y);
    FOR_PART(unit, vkm_div_up(a->n, UNIT)) {
        uint32_t first = (uint32_t)unit * UNIT, n = attn_min(a->n - first, UNIT);
        real in[UNIT] = {0}, out[UNIT];
        memcpy(in, x + first, n * sizeof *in);
        LANES_CALL(chains)(in, out, UNIT, a->steps, a->factor, a->term);
        for (uint32_t i = 0; i < n; i++) y[first + i] = canon(out[i]);
    }
}
