/* One element of y = x W^T + the experts' scaled terms; for the push constants of linear. */
float vkm_linear_at(uint i, uint j) {
    float y = vkm_rule4(pc.a, vkm_op_word(i, 0u, pc.k), pc.b, vkm_op_word(j, 0u, pc.k), pc.k);
    uint k2 = pc.n_experts * pc.kper;
    for (uint e = 0u; e < pc.n_experts; e++) {
        uint seq = LD_row_seq(i);
        float f = seq == 0xffffffffu ? 0.0 : LD_scale(min(seq, 0xfffffffeu) * pc.n_experts + e);
        float d = vkm_rule4(pc.a2, vkm_op_word(i, e * pc.kper / 2u, k2), pc.b2,
                            vkm_op_word(j, e * pc.kper / 2u, k2), pc.kper);
        y = vkm_add_scaled(y, f, d);
    }
    return y;
}
