/* The adapter's order: where a column of an adapter operand comes from (src/ops/lora.c). */
#ifndef VKM_LORA_GLSL
#define VKM_LORA_GLSL

/* Columns of an expert. */
uint vkm_lora_kper(uint rank) {
    return (rank + 3u) / 4u * 8u;
}

/* Column of rank index i, counted over all experts; that of its second part is two further. */
uint vkm_lora_column(uint i, uint rank) {
    uint j = i % rank;
    return i / rank * vkm_lora_kper(rank) + j / 2u * 4u + j % 2u;
}

/* Of a column: which part, and the rank index over all experts or, where there is none, 0xffffffff. */
uvec2 vkm_lora_source(uint col, uint n_experts, uint rank) {
    uint kper = vkm_lora_kper(rank), expert = col / kper, j = col % kper / 4u * 2u + col % 2u;
    return uvec2(col / 2u % 2u, expert < n_experts && j < rank ? expert * rank + j : 0xffffffffu);
}

/* Word w of an operand of padded length kp: its row and its first column. */
uvec2 vkm_op_place(uint w, uint kp) {
    uint panel = w / (8u * kp), in_panel = w % (8u * kp);
    return uvec2(panel * 16u + in_panel % 16u, in_panel / 16u * 2u);
}

/* Words of an operand of (rows, k). */
uint vkm_op_words(uint rows, uint kp) {
    return (rows + 15u) / 16u * 8u * kp;
}

#endif
