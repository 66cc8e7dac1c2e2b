/* What the fast tier's shaders have in common: cooperative matrices (VK_KHR_cooperative_matrix) of
 * MAT_M x MAT_N x MAT_K, products summed in fp32 in the device's own order.
 *
 * Operands are bf16. Where the device multiplies fp16 instead, what is staged is lifted by a power of
 * two so that its largest element lies in [2^14, 2^15); of elements 2^28 below that, bits are lost. A
 * power is named by the exponent field of the largest bf16 element, its top. */
#ifndef VKM_MATRIX_GLSL
#define VKM_MATRIX_GLSL
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#ifdef VKM_FORM_HALF
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define ELEMENT float16_t
#else
#extension GL_EXT_bfloat16 : require
#define ELEMENT bfloat16_t
#endif

layout(constant_id = 6) const uint MAT_M = 8;
layout(constant_id = 7) const uint MAT_N = 8;
layout(constant_id = 8) const uint MAT_K = 8;
layout(constant_id = 9) const uint SUBGROUP = 8; /* invocations */

#define MATRIX_A   coopmat<ELEMENT, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA>
#define MATRIX_B   coopmat<ELEMENT, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>

const int NO_TOP = 32; /* below that of any operand: they have none below 77 */

#ifdef VKM_FORM_HALF
const bool LIFTS = true;

uint exponent(uvec4 x) {
    uvec4 e = max(x >> 7u & 0xffu, x >> 23u & 0xffu);
    return max(max(e.x, e.y), max(e.z, e.w));
}
/* 2^(field - 127) for a field of 1 to 254, 0 below. */
float power(int field) {
    return vkm_from_bits(uint(max(field, 0)) << 23);
}
/* What elements of a top are multiplied by, and what brings their products back. */
float lift(int top) {
    return power(268 - top); /* 2^(14 + 127 - top) */
}
float unit(int top) {
    return power(top - 14); /* 2^(top - 141) */
}
/* The same for products of elements of two tops; finite, and 0 below 2^-126. */
float unit(int top, int top_2) {
    return power(min(top + top_2 - 155, 254)); /* 2^(top - 141 + top_2 - 141) */
}
/* For sums of elements whose top has grown. */
float shrink(int old, int now) {
    return power(127 + old - now);
}
/* The top of what has no bf16 form. */
uint exponent(vec4 x) {
    x = abs(x);
    return vkm_bits(max(max(x.x, x.y), max(x.z, x.w))) >> 23u;
}
uint pair(vec2 x, float by) {
    return packHalf2x16(x * by);
}
/* Exact but for what lies 2^28 below the largest, which a driver rounds as it likes: fast tier only. */
uint element_pair(uint word, float by) {
    return pair(vec2(vkm_bf16_lo(word), vkm_bf16_hi(word)), by);
}
#else
const bool LIFTS = false;

uint exponent(uvec4 x) {
    return 0u;
}
float lift(int top) {
    return 1.0;
}
float unit(int top) {
    return 1.0;
}
float unit(int top, int top_2) {
    return 1.0;
}
float shrink(int old, int now) {
    return 1.0;
}
uint exponent(vec4 x) {
    return 0u;
}
/* vkm_bf16_pair for what need not become 0 when it is small. */
uint pair(vec2 x, float by) {
    uvec2 u = uvec2(vkm_bits(x.x), vkm_bits(x.y));
    u += 0x7fffu + (u >> 16u & 1u);
    u.x = x.x == x.x ? u.x : 0x7fc00000u;
    u.y = x.y == x.y ? u.y : 0x7fc00000u;
    return u.x >> 16u | (u.y & 0xffff0000u);
}
uint element_pair(uint word, float by) {
    return word;
}
#endif
uvec4 eight(vec4 x, vec4 y, float by) {
    return uvec4(pair(x.xy, by), pair(x.zw, by), pair(y.xy, by), pair(y.zw, by));
}
uvec4 elements(uvec4 words, float by) {
    return uvec4(element_pair(words.x, by), element_pair(words.y, by), element_pair(words.z, by),
                 element_pair(words.w, by));
}

/* The tops of the two operands that a workgroup stages, of two stages by turns; `slot` is the stage's.
 * note_tops, then a barrier, then read_tops and another barrier before the next note. */
shared uint stage_tops[4];
uint slot = 0u;

void clear_tops() {
    if (gl_LocalInvocationID.x < 4u) stage_tops[gl_LocalInvocationID.x] = 0u;
}
void note_tops(uint a, uint b) {
    a = subgroupMax(a);
    b = subgroupMax(b);
    if (subgroupElect()) {
        atomicMax(stage_tops[2u * slot], a);
        atomicMax(stage_tops[2u * slot + 1u], b);
    }
}
void read_tops(inout int a, inout int b) {
    a = max(a, int(stage_tops[2u * slot]));
    b = max(b, int(stage_tops[2u * slot + 1u]));
    slot ^= 1u;
    if (gl_LocalInvocationID.x < 2u) stage_tops[2u * slot + gl_LocalInvocationID.x] = 0u;
}

#endif
