#version 460
#extension GL_GOOGLE_include_directive : require
#include "lora_mid.glsl"
#include "lora.glsl"
#include "words.glsl"

/* v, v, z, z of two ranks of a row: v = B0^T dy, z = dB^T dy; zeros where there is no row. */
vec4 t4(uint row, uint col, uint kp) {
    uvec4 w = vkm_words4(pc.t, (min(row, pc.n_rows - 1u) * kp + col) / 4u);
    return row < pc.n_rows ? uintBitsToFloat(w) : vec4(0.0);
}

/* Whether the row counts in pt and ht: no padding. */
bool counts(uint row) {
    return row < pc.n_rows && LD_row_seq(min(row, pc.n_rows - 1u)) != 0xffffffffu;
}

/* p and z of two rows into columns col to col + 3 of pz. */
void store_pz(uint row, uint col, uint kp, vec2 p0, vec2 z0, vec2 p1, vec2 z1) {
    uint to = vkm_op_word(row, col / 2u, kp) / 2u;
    vkm_store2(pc.pz, to, uvec2(vkm_bf16_pair(p0.x, p0.y), vkm_bf16_pair(p1.x, p1.y)));
    vkm_store2(pc.pz, to + 8u, uvec2(vkm_bf16_pair(z0.x, z0.y), vkm_bf16_pair(z1.x, z1.y)));
}

/* p and h of the two rows into those of pt and ht. */
void store_transposed(uint row, uint col, uint tp, vec2 p0, vec2 p1) {
    if (row >= tp) return;
    uint kper = vkm_lora_kper(pc.rank), j = col % kper / 2u, i = col / kper * pc.rank + j;
    uvec2 h = vkm_words2(pc.uh, vkm_op_word(row, col / 2u + 1u, pc.kpu) / 2u);
    vec2 h0 = vec2(vkm_bf16_lo(h.x), vkm_bf16_hi(h.x)), h1 = vec2(vkm_bf16_lo(h.y), vkm_bf16_hi(h.y));
    bool first = counts(row), second = counts(row + 1u);
    p0 = first ? p0 : vec2(0.0);
    h0 = first ? h0 : vec2(0.0);
    p1 = second ? p1 : vec2(0.0);
    h1 = second ? h1 : vec2(0.0);
    [[unroll]] for (uint e = 0u; e < 2u; e++) {
        if (j + e >= pc.rank) continue;
        STW_pt(vkm_op_word(i + e, row / 2u, tp), vkm_bf16_pair(p0[e], p1[e]));
        STW_ht(vkm_op_word(i + e, row / 2u, tp), vkm_bf16_pair(h0[e], h1[e]));
    }
}

float plus_product(float acc, float x, float y) {
    precise float p = x * y;
    p = vkm_canon(p);
    precise float s = acc + p;
    return vkm_canon(s);
}

/* The gradient of the factor of an expert at a row. */
float factor_grad(uint row, uint expert, uint kp) {
    uint n = LD_row_seq(row) == 0xffffffffu ? 0u : pc.rank;
    float acc = 0.0;
    for (uint j = 0u; j < n; j += 2u) {
        uint col = expert * vkm_lora_kper(pc.rank) + 2u * j;
        uint at = vkm_op_word(row, col / 2u, pc.kpu), u = LDW_uh(at), h = LDW_uh(at + 16u);
        vec4 x = t4(row, col, kp);
        acc = plus_product(acc, x.x, vkm_bf16_lo(u));
        acc = plus_product(acc, x.z, vkm_bf16_lo(h));
        if (j + 1u >= n) continue;
        acc = plus_product(acc, x.y, vkm_bf16_hi(u));
        acc = plus_product(acc, x.w, vkm_bf16_hi(h));
    }
    return acc;
}

/* One invocation makes two ranks of two rows; those behind all of them the pad rows of pt and ht, then
 * a row's factor of an expert. */
void main() {
    uint at = vkm_flat_id(), kp = pc.n_experts * vkm_lora_kper(pc.rank), panel = 2u * kp;
    uint tp = (pc.n_rows + 7u) / 8u * 8u, n = (pc.n_rows + 15u) / 16u * panel;
    if (at < n) {
        uint row = at / panel * 16u + at % 8u * 2u, col = at % panel / 8u * 4u;
        vec4 x0 = t4(row, col, kp), x1 = t4(row + 1u, col, kp);
        precise vec2 p0 = x0.xy + x0.zw;
        precise vec2 p1 = x1.xy + x1.zw;
        store_pz(row, col, kp, p0, x0.zw, p1, x1.zw);
        store_transposed(row, col, tp, p0, p1);
        return;
    }
    at -= n;
    uint er = pc.n_experts * pc.rank, pads = (er + 15u) / 16u * 16u - er;
    if (at < pads * tp / 2u) {
        uint to = vkm_op_word(er + at % pads, at / pads, tp);
        STW_pt(to, 0u);
        STW_ht(to, 0u);
        return;
    }
    at -= pads * tp / 2u;
    if (at < pc.n_rows * pc.n_experts)
        ST_df(at, factor_grad(at / pc.n_experts, at % pc.n_experts, kp));
}
