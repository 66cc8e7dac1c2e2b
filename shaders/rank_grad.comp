#version 460
#extension GL_GOOGLE_include_directive : require
#include "rank_grad.glsl"
#include "lora.glsl"
#include "reduce.glsl"

/* h = A x of the deployed expert, as its operand holds it, times p = v + z = B^T dy, at a column. */
float product_at(uint row, uint col) {
    uint at = row * pc.n_experts * vkm_lora_kper(pc.rank) + col;
    uint w = LDW_uh(vkm_op_word(row, col / 2u + 1u, pc.kpu));
    precise float p = LD_t(at) + LD_t(at + 2u);
    precise float x = vkm_canon(p) * (col % 2u == 0u ? vkm_bf16_lo(w) : vkm_bf16_hi(w));
    return vkm_canon(x);
}

/* A unit is a rank index of a sequence. */
void main() {
    uint unit = vkm_unit_id();
    if (unit >= pc.n_seq * pc.rank) return;
    uint s = unit / pc.rank, j = unit % pc.rank, col = vkm_lora_column(j, pc.rank);
    uint row0 = LD_seqs(4u * s), n = LD_seqs(4u * s + 1u);
    VKM_RULE5(sum, i, n, product_at(row0 + i, col))
    if (vkm_unit_lane() == 0u) ST_pooled((s * pc.n_modules + pc.module) * pc.rank + j, sum);
}
