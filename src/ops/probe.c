/* Kernels that ask a device whether it computes as the contract demands: rounding, the liberties
 * that compilers take with sums, and the software functions. */
#include "ops/twin.h"

#ifndef VKM_TWIN64
void vkm_op_softmath_probe(vkm_stream *s, const vkm_args_softmath_probe *a) {
    vkm_args_softmath_probe b = *a;
    b.x = vkm_need(a->x, a->n, "softmath_probe", "x");
    b.y = vkm_need(a->y, a->n, "softmath_probe", "y");
    b.z = vkm_need(a->z, a->n, "softmath_probe", "z");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_softmath_probe], &b,
                      vkm_launch_flat(a->n, 64, 100.0 * a->n));
}

void vkm_op_arith_probe(vkm_stream *s, const vkm_args_arith_probe *a) {
    vkm_args_arith_probe b = *a;
    b.x = vkm_need(a->x, a->n, "arith_probe", "x");
    b.y = vkm_need(a->y, a->n, "arith_probe", "y");
    b.w = vkm_need(a->w, a->n, "arith_probe", "w");
    b.z = vkm_need(a->z, a->n, "arith_probe", "z");
    vkm_stream_launch(s, &vkm_kernels[VKM_K_arith_probe], &b,
                      vkm_launch_flat(a->n, 64, 20.0 * a->n));
}

/* function 10: the first word of a draw, as a number in [0, 1) */
static float draw(float x, float y, uint64_t i) {
    return vkm_unit(vkm_random4(vkm_bits(x), vkm_bits(y), VKM_RNG_TEST, 1, 2, (uint)i, 3).x);
}
#else
static double draw(double x, double y, uint64_t i) {
    return (void)x, (void)y, (void)i, 0.0;
}
#endif

VKM_REF(softmath_probe) {
    const real *x = ref_f32(a->x), *y = ref_f32(a->y);
    real *z = ref_f32(a->z);
#define EACH(expression)                                                                           \
    FOR_PART(i, a->n) z[i] = canon(expression);                                                    \
    break
    switch (a->function) {
    case 0:
        EACH(vkm_exp(x[i]));
    case 1:
        EACH(vkm_log(x[i]));
    case 2:
        EACH(vkm_div(x[i], y[i]));
    case 3:
        EACH(vkm_sqrt(x[i]));
    case 4:
        EACH(vkm_rsqrt(x[i]));
    case 5:
        EACH(vkm_sin(x[i]));
    case 6:
        EACH(vkm_cos(x[i]));
    case 7:
        EACH(vkm_sigmoid(x[i]));
    case 8:
        EACH(vkm_silu(x[i]));
    case 9:
        EACH(vkm_softplus(x[i]));
    case 10:
        EACH(draw(x[i], y[i], i));
    default:
        EACH(0);
    }
#undef EACH
}

/* Traps 8 and up tell how a device computes what the contract leaves open; see ops/device.c. */
VKM_REF(arith_probe) {
    const real *x = ref_f32(a->x), *y = ref_f32(a->y), *w = ref_f32(a->w);
    real *z = ref_f32(a->z);
    const real big = 12582912; /* 1.5 * 2^23 */
    FOR_PART(i, a->n) {
        real r = 0;
        switch (a->trap) {
        case 0: /* plain operations */
            r = x[i] + y[i];
            break;
        case 1:
            r = x[i] * y[i];
            break;
        case 2: /* mul, then add, both rounded */
        case 8: /* the same by fma() */
            r = x[i] * y[i];
            r = r + w[i];
            break;
        case 3: /* rounds to a whole number: not x */
            r = x[i] + big;
            r = r - big;
            break;
        case 4: /* not x */
            r = x[i] + w[i];
            r = r - w[i];
            break;
        case 5: /* not x * (y + w) */
            r = x[i] * y[i] + x[i] * w[i];
            break;
        case 6: /* NaN for Inf and NaN */
            r = x[i] * 0;
            break;
        case 7:
            r = x[i] - x[i];
            break;
        case 9: /* passes a denormal: 0 where those are flushed */
            r = x[i] * y[i];
            r = r * w[i];
            break;
        }
        z[i] = canon(r);
    }
}
