#version 460
#extension GL_GOOGLE_include_directive : require
#include "rank_grad.glsl"
#include "lora.glsl"
#include "rule5_private.glsl"

/* One invocation a sequence and rank index j: h = A x of the deployed expert, as its operand holds
 * it, times p = v + z = B^T dy. */
void main() {
    uint at = vkm_flat_id();
    if (at >= pc.n_seq * pc.rank) return;
    uint s = at / pc.rank, j = at % pc.rank;
    uint row0 = LD_seqs(4u * s), n = LD_seqs(4u * s + 1u);
    uint kt = pc.n_experts * vkm_lora_kper(pc.rank), k = vkm_lora_column(j, pc.rank);
    VKM_RULE5_ZERO(lane);
    for (uint i = 0u; i < n; i++) {
        uint row = row0 + i, w = LDW_uh(vkm_op_word(row, k / 2u + 1u, pc.kpu));
        precise float p = LD_t(row * kt + k) + LD_t(row * kt + k + 2u);
        precise float x = vkm_canon(p) * (k % 2u == 0u ? vkm_bf16_lo(w) : vkm_bf16_hi(w));
        VKM_RULE5_ADD(lane, i, vkm_canon(x));
    }
    VKM_RULE5_TREE(lane);
    ST_pooled((s * pc.n_modules + pc.module) * pc.rank + j, lane[0]);
}
