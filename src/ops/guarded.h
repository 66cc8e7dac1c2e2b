/* Sums and products that never leave a denormal behind, for kernels whose intermediate values may
 * be tiny: each step goes through canon(), so flushing drivers agree with the others. In shaders:
 * shaders/guarded.glsl. Include after ops/twin.h. */
#ifndef VKM_GUARDED_H
#define VKM_GUARDED_H

static inline real mulc(real x, real y) {
    return canon(x * y);
}
static inline real addc(real x, real y) {
    return canon(x + y);
}
static inline real subc(real x, real y) {
    return canon(x - y);
}

#endif
