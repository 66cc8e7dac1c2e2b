/* Sums and products that never leave a denormal behind: src/ops/guarded.h. */
#ifndef VKM_GUARDED_GLSL
#define VKM_GUARDED_GLSL

float mulc(float x, float y) {
    precise float r = x * y;
    return vkm_canon(r);
}
float addc(float x, float y) {
    precise float r = x + y;
    return vkm_canon(r);
}
float subc(float x, float y) {
    precise float r = x - y;
    return vkm_canon(r);
}

#endif
