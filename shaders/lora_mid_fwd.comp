#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_mid_fwd.glsl"
#include "lora.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint FOURS = 0u; /* 1: four ranks of t lie where one load finds them all */

/* Four columns of row of t, of which `n` exist; row and the others are 0 where they do not. */
vec4 columns(uint row, uint col, uint n) {
    uint from = min(row, pc.n_rows - 1u) * pc.ldt + col;
    vec4 x;
    if (FOURS != 0u) {
        x = uintBitsToFloat(vkm_words4(pc.t, from / 4u));
    } else {
        [[unroll]] for (uint i = 0u; i < 4u; i++) x[i] = LD_t(from + min(i, n - 1u));
    }
    return vkm_first_of(x, row < pc.n_rows ? n : 0u);
}

/* Words of four elements of two rows into columns col to col + 3 of uh. */
void store_uh(uint row, uint col, uint kp, vec4 x0, vec4 x1) {
    uint to = vkm_op_word(row, col / 2u, kp) / 2u;
    vkm_store2(pc.uh, to, uvec2(vkm_bf16_pair(x0.x, x0.y), vkm_bf16_pair(x1.x, x1.y)));
    vkm_store2(pc.uh, to + 8u, uvec2(vkm_bf16_pair(x0.z, x0.w), vkm_bf16_pair(x1.z, x1.w)));
}

void store_h(uint row, uint i, uint n, vec4 h) {
    if (row >= pc.n_rows) return;
    [[unroll]] for (uint e = 0u; e < 4u; e++)
        if (e < n) ST_h(row * pc.n_experts * pc.rank + i + e, h[e]);
}

/* Whether the row counts in ht: no padding. */
bool counts(uint row) {
    return row < pc.n_rows && LD_row_seq(min(row, pc.n_rows - 1u)) != 0xffffffffu;
}

void store_ht(uint row, uint i, uint n, uint tp, vec4 h0, vec4 h1) {
    if (row >= tp) return;
    h0 = counts(row) ? h0 : vec4(0.0);
    h1 = counts(row + 1u) ? h1 : vec4(0.0);
    uvec4 w;
    [[unroll]] for (uint e = 0u; e < 4u; e++) w[e] = vkm_bf16_pair(h0[e], h1[e]);
    if (FOURS != 0u) {
        vkm_store4(pc.ht, vkm_op_word(i, row / 2u, tp) / 4u, w);
    } else {
        [[unroll]] for (uint e = 0u; e < 4u; e++)
            if (e < n) STW_ht(vkm_op_word(i + e, row / 2u, tp), w[e]);
    }
}

/* One invocation makes four ranks of an expert, two rows: u = dA x and h = A0 x + u. Those behind all of
 * them write the pad rows of ht. */
void main() {
    uint at = vkm_flat_id(), er = pc.n_experts * pc.rank, half_cols = vkm_half_of(pc.rank);
    uint kp = pc.n_experts * 2u * half_cols, tp = (pc.n_rows + 7u) / 8u * 8u;
    uint quads = half_cols / 4u, panel = 8u * pc.n_experts * quads;
    uint n = (pc.n_rows + 15u) / 16u * panel;
    if (at >= n) {
        uint pads = (er + 15u) / 16u * 16u - er;
        at -= n;
        if (pc.has_ht != 0u && at < pads * tp / 2u)
            STW_ht(vkm_op_word(er + at % pads, at / pads, tp), 0u);
        return;
    }
    uint row = at / panel * 16u + at % 8u * 2u, quad = at % panel / 8u;
    uint expert = quad / quads, j = quad % quads * 4u, i = expert * pc.rank + j;
    uint live = min(pc.rank - j, 4u), col = expert * 2u * half_cols + j;
    vec4 u0 = columns(row, i, live), u1 = columns(row + 1u, i, live);
    precise vec4 h0 = columns(row, er + i, live) + u0;
    precise vec4 h1 = columns(row + 1u, er + i, live) + u1;
    store_uh(row, col, kp, u0, u1);
    store_uh(row, col + half_cols, kp, h0, h1);
    if (pc.has_h != 0u) {
        store_h(row, i, live, h0);
        store_h(row + 1u, i, live, h1);
    }
    if (pc.has_ht != 0u) store_ht(row, i, live, tp, h0, h1);
}
