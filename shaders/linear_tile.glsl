/* y = x W^T + the experts' scaled terms for one tile; for the push constants of linear. The base
 * product and the experts' run through one loop, so that the tile's code stands once. Without experts
 * row_seq and scale may hold a single element. */
float vkm_factor(uint i, bool base, uint e) {
    uint seq = LD_row_seq(pc.n_experts == 0u ? 0u : VKM_ROW(i));
    bool none = base || seq == 0xffffffffu;
    float f = LD_scale(none ? 0u : seq * pc.n_experts + e);
    return none ? 0.0 : f;
}

void vkm_linear_tile(out precise float y[TILE_N]) {
    uint k2 = pc.n_experts * pc.kper;
    VKM_FOR_TILE(y[at] = 0.0)
    for (uint part = 0u; part <= pc.n_experts; part++) {
        bool base = part == 0u;
        /* drivers run ahead of the loop's end: e is never past the last expert */
        uint e = base ? 0u : min(part, max(pc.n_experts, 1u)) - 1u, skip = e * pc.kper / 2u;
        vkm_operand a = vkm_operand(base ? pc.a : pc.a2, pc.m, base ? pc.k : k2, skip);
        vkm_operand b = vkm_operand(base ? pc.b : pc.b2, pc.n, base ? pc.k : k2, skip);
        precise float d[TILE_N];
        vkm_tile_rule4(a, b, base ? pc.k : pc.kper, d);
        VKM_FOR_TILE(y[at] = base ? d[at] : vkm_add_scaled(y[at], vkm_factor(i, base, e), d[at]))
    }
}
