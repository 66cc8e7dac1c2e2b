/* Loads and stores of two and four words. In the wide form they are of 64 bits, for a driver that
 * takes component by component (vk/kernel.h). */
#ifndef VKM_WORDS_GLSL
#define VKM_WORDS_GLSL

/* x as another invocation of the subgroup has it; which one is a constant. lavapipe 22.3 makes a loop
 * of a broadcast and one instruction of a shuffle, lavapipe 26 the other way round. */
#ifdef VKM_FORM_WIDE
#extension GL_KHR_shader_subgroup_shuffle : require
#define VKM_FROM_LANE(x, lane) subgroupShuffle(x, lane)
#else
#extension GL_KHR_shader_subgroup_ballot : require
#define VKM_FROM_LANE(x, lane) subgroupBroadcast(x, lane)
#endif

/* Words 2 at and 2 at + 1, words 4 at to 4 at + 3 of a buffer, which lies on a multiple of as many. */
#ifdef VKM_FORM_WIDE
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer U64_R {
    uint64_t v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer U64x2_R {
    u64vec2 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer U64_W { uint64_t v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U64x2_W { u64vec2 v[]; };
uvec2 vkm_words2(uvec2 addr, uint at) {
    return unpackUint2x32(U64_R(addr).v[at]);
}
uvec4 vkm_words4(uvec2 addr, uint at) {
    u64vec2 w = U64x2_R(addr).v[at];
    return uvec4(unpackUint2x32(w.x), unpackUint2x32(w.y));
}
void vkm_store2(uvec2 addr, uint at, uvec2 x) {
    U64_W(addr).v[at] = packUint2x32(x);
}
void vkm_store4(uvec2 addr, uint at, uvec4 x) {
    U64x2_W(addr).v[at] = u64vec2(packUint2x32(x.xy), packUint2x32(x.zw));
}
#else
layout(buffer_reference, std430, buffer_reference_align = 8) readonly buffer U32x2_R {
    uvec2 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer U32x4_R {
    uvec4 v[];
};
layout(buffer_reference, std430, buffer_reference_align = 8) buffer U32x2_W { uvec2 v[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer U32x4_W { uvec4 v[]; };
uvec2 vkm_words2(uvec2 addr, uint at) {
    return U32x2_R(addr).v[at];
}
uvec4 vkm_words4(uvec2 addr, uint at) {
    return U32x4_R(addr).v[at];
}
void vkm_store2(uvec2 addr, uint at, uvec2 x) {
    U32x2_W(addr).v[at] = x;
}
void vkm_store4(uvec2 addr, uint at, uvec4 x) {
    U32x4_W(addr).v[at] = x;
}
#endif

#endif
