/* Products by tiles: what gemm, linear, linear_bf16, lora_down and gemm_seg have in common. The forms of a shader
 * (vk/kernel.h) differ in the file that is included here. Each gives
 *   TILE_N                     outputs of an invocation; TILE_ROW_N one after the other are of a row
 *   TILE_HEIGHT                rows of a group
 *   vkm_tile_i(at), _j(at)     row and column of output `at`; columns come in fours that are neighbours
 *   vkm_tile_add(a, b, k, y)   takes the sums of each chunk of 256 of k elements, a multiple of 8, of
 *                              row i of a and row j of b into y[at] (VKM_TAKE_SUMS): from zeros on,
 *                              rule 4. Rows past an operand's end repeat its last ones: what comes
 *                              out there is not stored.
 * Products of bf16 values are exact, so fma is the same whether the device fuses it or not, and no
 * constant of a tile changes the order of additions in an output. The matrix form is not of the exact
 * tier: it adds in an order of the device's own, and all of k is one chunk. */
#ifndef VKM_TILE_GLSL
#define VKM_TILE_GLSL
#include "words.glsl"

layout(constant_id = 10) const uint TILE_QUADS = 0; /* 1: rows of outputs start at multiples of 4 */
layout(constant_id = 11) const uint TILE_PARTS = 0; /* 1: linear's base product was made in parts */

/* One operand: its address, rows, K as stored, and the first k / 2 to read. */
struct vkm_operand {
    uvec2 addr;
    uint rows, kp, k2;
};

/* y + f * d; a denormal product or sum counts as zero, but in the fast tier. A factor of 0 adds nothing,
 * whatever d is. */
float vkm_add_scaled(float y, float f, float d) {
#if defined(VKM_FORM_HALF) || defined(VKM_FORM_BF16)
    return f == 0.0 ? y : y + f * d;
#endif
    precise float p = f * d;
    p = f == 0.0 ? 0.0 : vkm_canon(p);
    precise float s = y + p;
    return vkm_canon(s);
}

/* Adds d to y, scaled by `factor`, an expression of row i that is evaluated once a stretch. */
#define VKM_ADD_SCALED(y, factor, d)                                                               \
    [[unroll]] for (uint at = 0u; at < TILE_N; at += TILE_ROW_N) {                                 \
        uint i = vkm_tile_i(at);                                                                   \
        float f = factor;                                                                          \
        [[unroll]] for (uint l = 0u; l < TILE_ROW_N; l++)                                          \
            y[at + l] = vkm_add_scaled(y[at + l], f, d[at + l]);                                   \
    }
/* How the sums of a chunk enter the outputs; a kernel may have its own way. */
#ifndef VKM_TAKE_SUMS
#define VKM_TAKE_SUMS(y, sum) [[unroll]] for (uint i = 0u; i < TILE_N; i++) y[i] = y[i] + sum[i];
#endif

#if defined(VKM_FORM_SHARED)
#include "tile_shared.glsl"
#elif defined(VKM_FORM_SPLIT)
#include "tile_split.glsl"
#elif defined(VKM_FORM_HALF) || defined(VKM_FORM_BF16)
#include "tile_matrix.glsl"
#else
#include "tile_plain.glsl"
#endif

/* Runs `statement` for every four outputs that are neighbours: row i, columns j to j + 3, value indices
 * at to at + 3. */
#define VKM_FOR_FOURS(statement)                                                                   \
    [[unroll]] for (uint at = 0u; at < TILE_N; at += 4u) {                                         \
        uint i = vkm_tile_i(at), j = vkm_tile_j(at);                                               \
        statement;                                                                                 \
    }
#define VKM_TILE_CLEAR(y) [[unroll]] for (uint i = 0u; i < TILE_N; i++) y[i] = 0.0;
#define VKM_FOUR(y) vec4(y[at], y[at + 1u], y[at + 2u], y[at + 3u])
/* For loads: an index that is never outside, since drivers load ahead of tests. */
#define VKM_ROW(i) min(i, pc.m - 1u)

/* Columns j to j + 3 of row i of a matrix of n columns, ld apart; what is outside repeats the last. */
vec4 vkm_load_four(uvec2 addr, uint i, uint j, uint n, uint ld) {
    if (TILE_QUADS != 0u) return uintBitsToFloat(vkm_words4(addr, (i * ld + min(j, n - 4u)) / 4u));
    vec4 x;
    [[unroll]] for (uint l = 0u; l < 4u; l++) x[l] = F32_R(addr).v[i * ld + min(j + l, n - 1u)];
    return x;
}
void vkm_store_four(uvec2 addr, uint i, uint j, uint n, uint ld, vec4 y) {
    if (i >= pc.m || j >= n) return;
    [[unroll]] for (uint l = 0u; l < 4u; l++) y[l] = vkm_canon(y[l]);
    if (TILE_QUADS != 0u) {
        vkm_store4(addr, (i * ld + j) / 4u, floatBitsToUint(y));
    } else {
        [[unroll]] for (uint l = 0u; l < 4u; l++)
            if (j + l < n) F32_W(addr).v[i * ld + j + l] = y[l];
    }
}

#endif
