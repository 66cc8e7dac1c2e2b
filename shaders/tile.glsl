/* Products by tiles: what gemm, linear, linear_bf16 and gemm_seg have in common. The forms of a shader
 * (vk/kernel.h) differ in the file that is included here. Each gives
 *   TILE_N                     outputs of an invocation
 *   vkm_tile_i(at), _j(at)     row and column of its output `at`; columns come in adjacent pairs
 *   vkm_tile_rule4(a, b, k, y) y[at] = rule 4 of row i of a and row j of b, over k elements, a multiple
 *                              of 8. Rows past an operand's end repeat its last ones: what comes out
 *                              there is not stored.
 * Products of bf16 values are exact, so fma is the same whether the device fuses it or not, and no
 * constant of a tile changes the order of additions in an output. The matrix form is not of the exact
 * tier: it adds in an order of the device's own. */
#ifndef VKM_TILE_GLSL
#define VKM_TILE_GLSL
#include "words.glsl"

/* One operand: its address, rows, K as stored, and the first k / 2 to read. */
struct vkm_operand {
    uvec2 addr;
    uint rows, kp, k2;
};

#if defined(VKM_FORM_SHARED)
#include "tile_shared.glsl"
#elif defined(VKM_FORM_SPLIT)
#include "tile_split.glsl"
#elif defined(VKM_FORM_HALF) || defined(VKM_FORM_BF16)
#include "tile_matrix.glsl"
#else
#include "tile_plain.glsl"
#endif

/* y + f * d; a denormal product or sum counts as zero. A factor of 0 adds nothing, whatever d is. */
float vkm_add_scaled(float y, float f, float d) {
    precise float p = f * d;
    p = f == 0.0 ? 0.0 : vkm_canon(p);
    precise float s = y + p;
    return vkm_canon(s);
}

/* Runs `statement` for every output of the invocation: row i, column j, value index at. A real loop,
 * because unrolled it would be most of the code. */
#define VKM_FOR_TILE(statement)                                                                    \
    [[dont_unroll]] for (uint at = 0u; at < TILE_N; at++) {                                        \
        uint i = vkm_tile_i(at), j = vkm_tile_j(at);                                               \
        statement;                                                                                 \
    }
/* For loads: an index that is never outside, since drivers load ahead of tests. */
#define VKM_ROW(i) min(i, pc.m - 1u)
#define VKM_AT(i, j) (min(i, pc.m - 1u) * pc.n + min(j, pc.n - 1u))

#endif
