/* Loads of two and four words. In the wide form they are of 64 bits, for a driver that loads
 * component by component (vk/kernel.h). */
#ifndef VKM_WORDS_GLSL
#define VKM_WORDS_GLSL

/* Words 2 at and 2 at + 1, words 4 at to 4 at + 3 of a buffer. */
#ifdef VKM_FORM_WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer U64_R {
    uint64_t v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer U64x2_R {
    u64vec2 v[];
};
uvec2 vkm_words2(uvec2 addr, uint at) {
    return unpackUint2x32(U64_R(addr).v[at]);
}
uvec4 vkm_words4(uvec2 addr, uint at) {
    u64vec2 w = U64x2_R(addr).v[at];
    return uvec4(unpackUint2x32(w.x), unpackUint2x32(w.y));
}
#else
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer U32x2_R {
    uvec2 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer U32x4_R {
    uvec4 v[];
};
uvec2 vkm_words2(uvec2 addr, uint at) {
    return U32x2_R(addr).v[at];
}
uvec4 vkm_words4(uvec2 addr, uint at) {
    return U32x4_R(addr).v[at];
}
#endif

#endif
