/* y = x W^T + the experts' scaled terms for one tile; for the push constants of linear. The base
 * product and the experts' run through one loop, so that the tile's code stands once. */
float vkm_factor(uint i, uint e) {
    uint seq = LD_row_seq(VKM_ROW(i));
    bool none = seq == 0xffffffffu;
    float f = LD_scale(none ? 0u : seq * pc.n_experts + e);
    return none ? 0.0 : f;
}

void vkm_linear_tile(out precise float y[TILE_N]) {
    uint k2 = pc.n_experts * pc.kper;
    [[unroll]] for (uint at = 0u; at < TILE_N; at++) y[at] = 0.0;
    for (uint part = 0u; part <= pc.n_experts; part++) {
        bool base = part == 0u;
        /* drivers run ahead of the loop's end: e is never past the last expert */
        uint e = base ? 0u : min(part, max(pc.n_experts, 1u)) - 1u, skip = e * pc.kper / 2u;
        vkm_operand a = vkm_operand(base ? pc.a : pc.a2, pc.m, base ? pc.k : pc.kpa2, skip);
        vkm_operand b = vkm_operand(base ? pc.b : pc.b2, pc.n, base ? pc.k : k2, skip);
        precise float d[TILE_N];
        vkm_tile_rule4(a, b, base ? pc.k : pc.kper, d);
        if (base) {
            [[unroll]] for (uint at = 0u; at < TILE_N; at++) y[at] = d[at];
        } else {
            VKM_ADD_SCALED(y, vkm_factor(i, e), d)
        }
    }
}
