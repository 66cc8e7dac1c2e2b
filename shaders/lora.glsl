/* Where a column of an adapter operand comes from (src/ops/lora.c). */
#ifndef VKM_LORA_GLSL
#define VKM_LORA_GLSL

uint vkm_half_of(uint rank) {
    return (rank + 3u) / 4u * 4u;
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
