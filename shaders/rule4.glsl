/* Rule 4 dot products of operand rows, shared by the products (vk/tensor.h has the layout). */
#ifndef VKM_RULE4_GLSL
#define VKM_RULE4_GLSL

/* Words aw + 16 i and bw + 16 i, i < k / 2, hold elements 2i and 2i + 1 of the two rows. Products of
 * bf16 values are exact, so fma is the same whether the device fuses it or not. */
float vkm_rule4(uvec2 a, uint aw, uvec2 b, uint bw, uint k) {
    precise float total = 0.0;
    for (uint k0 = 0u; k0 < k; k0 += 256u) {
        uint k1 = min(k0 + 256u, k);
        precise float sum = 0.0;
        for (uint i = k0; i < k1; i += 2u) {
            uint x = U32_R(a).v[aw + 8u * i], y = U32_R(b).v[bw + 8u * i];
            sum = fma(vkm_bf16_lo(x), vkm_bf16_lo(y), sum);
            sum = fma(vkm_bf16_hi(x), vkm_bf16_hi(y), sum);
        }
        total = total + sum;
    }
    return total;
}

/* y + f * d; a denormal product or sum counts as zero. */
float vkm_add_scaled(float y, float f, float d) {
    precise float p = f * d;
    p = vkm_canon(p);
    precise float s = y + p;
    return vkm_canon(s);
}

#endif
