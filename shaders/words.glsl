/* Loads and stores of two and four words. In the wide form they are of 64 bits, for a driver that
 * takes component by component (vk/kernel.h). */
#ifndef VKM_WORDS_GLSL
#define VKM_WORDS_GLSL

/* x as another invocation of the subgroup has it; which one is a constant. lavapipe 22.3, for which rows
 * are spread over lanes, makes a loop of a broadcast and one instruction of a shuffle. */
#ifdef VKM_FORM_WIDE
#extension GL_KHR_shader_subgroup_shuffle : require
#define VKM_FROM_LANE(x, lane) subgroupShuffle(x, lane)
#else
#extension GL_KHR_shader_subgroup_ballot : require
#define VKM_FROM_LANE(x, lane) subgroupBroadcast(x, lane)
#endif

/* The first n of four elements; zeros in place of the others. */
vec4 vkm_first_of(vec4 x, uint n) {
    return vec4(n > 0u ? x.x : 0.0, n > 1u ? x.y : 0.0, n > 2u ? x.z : 0.0, n > 3u ? x.w : 0.0);
}

/* The address of word `at`: from there loads that lie a constant further need no sum of their own. */
uvec2 vkm_address(uvec2 addr, uint at) {
    uint carry, low = uaddCarry(addr.x, at << 2, carry);
    return uvec2(low, addr.y + (at >> 30) + carry);
}

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
/* A place that a loop carries along: lavapipe 22.3 loads lane by lane, and LLVM computes for every lane
 * anew, from vectors that it stores for that, whatever sum the address is. What comes around a loop is
 * no sum. In the plain form the place is an index of pairs of words. */
#define VKM_PLACE uint64_t
VKM_PLACE vkm_place(uvec2 addr, uint pair) {
    return packUint2x32(addr) + 8ul * pair;
}
VKM_PLACE vkm_further(VKM_PLACE p, uint pairs) {
    return p + 8ul * pairs;
}
uvec2 vkm_words2_at(uvec2 addr, VKM_PLACE p) {
    return unpackUint2x32(U64_R(p).v[0]);
}
uvec4 vkm_words4_at(uvec2 addr, VKM_PLACE p) {
    u64vec2 w = U64x2_R(p).v[0];
    return uvec4(unpackUint2x32(w.x), unpackUint2x32(w.y));
}
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
#define VKM_PLACE uint
VKM_PLACE vkm_place(uvec2 addr, uint pair) {
    return pair;
}
VKM_PLACE vkm_further(VKM_PLACE p, uint pairs) {
    return p + pairs;
}
uvec2 vkm_words2_at(uvec2 addr, VKM_PLACE p) {
    return vkm_words2(addr, p);
}
uvec4 vkm_words4_at(uvec2 addr, VKM_PLACE p) {
    return vkm_words4(addr, p / 2u);
}
#endif

#endif
