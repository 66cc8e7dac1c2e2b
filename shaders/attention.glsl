/* Arithmetic shared by the attention kernels. */
#include "softmath.h"

const uint CHUNK = 256u; /* of the dot product contract */

/* A sequence: its first row and its length. */
#define SEQ_ROW0(i) LD_seqs(4u * (i))
#define SEQ_LEN(i)  LD_seqs(4u * (i) + 1u)
/* The end of the panel of an operand. */
uint padded(uint row_end) { return (row_end + 15u) & ~15u; }

float neg_infinity() { return vkm_from_bits(0xff800000u); }
float unpack_bf16(uint h) { return vkm_from_bits(h << 16); }

/* Steps of the dot product contract; products of bf16 values are exact, so fused or not is alike. */
float add(float x, float y) {
    precise float sum = x + y;
    return sum;
}
float sub(float x, float y) {
    precise float difference = x - y;
    return difference;
}
float mul(float x, float y) {
    precise float product = x * y;
    return product;
}
float madd(float x, float y, float acc) {
    precise float sum = fma(x, y, acc);
    return sum;
}
float madd2(float x0, float x1, uint word, float acc) {
    return madd(x1, vkm_bf16_hi(word), madd(x0, vkm_bf16_lo(word), acc));
}

/* Softmax weight of a raw score in the backward pass, and the gradient of the score. */
float weight(float dot_, float scale, float m, float l) {
    return vkm_div(vkm_exp(sub(mul(dot_, scale), m)), l);
}
float score_grad(float p, float dp, float dr) {
    return unpack_bf16(vkm_bf16z(mul(p, sub(dp, dr))));
}
