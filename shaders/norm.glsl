/* RMS norm over n elements, shared by the row and the head form:
 * dx = rstd * (gain * dy) - x * (rstd^3 / n * sum(gain * dy * x)). Every product that may be tiny is
 * canonicalised before it is added: a device that flushes denormals sees the same terms. */
#ifndef VKM_NORM_GLSL
#define VKM_NORM_GLSL
#include "reduce.glsl"
#include "softmath.h"

float vkm_product(float x, float y) {
    precise float p = x * y;
    return vkm_canon(p);
}

float vkm_square(float x) { return vkm_product(x, x); }

/* 1 / rms, from the sum of squares. */
float vkm_norm_rstd(float sum, uint n, float eps) {
    precise float t = vkm_div(sum, float(int(n)));
    t = t + eps;
    return vkm_rsqrt(t);
}

/* The factor of x in the gradient, from the sum. */
float vkm_norm_pull(float rstd, float sum, uint n) {
    precise float t = rstd * rstd;
    t = t * rstd;
    t = vkm_div(t, float(int(n)));
    return vkm_product(t, sum);
}

float vkm_norm_dx(float dy, float x, float gain, float rstd, float pull) {
    precise float d = vkm_product(rstd, vkm_product(gain, dy));
    d = d - vkm_product(x, pull);
    return vkm_canon(d);
}

#endif
