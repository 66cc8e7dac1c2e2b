/* Shared by the attention kernels. Lanes lie along queries (or keys); the other side is addressed
 * through the workgroup and the loop counter only, so that its loads are uniform. Every array is
 * indexed by unrolled constants: the head dimension is a specialization constant. */
#include "softmath.h"

layout(constant_id = 1) const uint D = 2u;  /* head dimension, even */
layout(constant_id = 2) const uint DS = 2u; /* output dimensions of one workgroup, divides D, even */
const uint DW = D / 2u;
const uint DSW = DS / 2u;

const uint CHUNK = 256u; /* of the dot product contract */
const uint STEP = 4u;    /* rows of the uniform side a loop step takes; divides CHUNK */

/* A sequence: its first row and its length. */
#define SEQ_ROW0(i) LD_seqs(4u * (i))
#define SEQ_LEN(i)  LD_seqs(4u * (i) + 1u)
/* Rows of a sequence in an operand, with the pad of its last panel. */
uint padded(uint len) { return (len + 15u) & ~15u; }

float neg_infinity() { return vkm_from_bits(0xff800000u); }
float unpack_bf16(uint h) { return vkm_from_bits(h << 16); }
/* exp(x) rounded to the bf16 that enters the products, as float */
float prob(float x) { return unpack_bf16(vkm_bf16z(vkm_exp(x))); }

/* Steps of the dot product contract; products of bf16 values are exact, so fused or not is alike. */
float add(float x, float y) {
    precise float sum = x + y;
    return sum;
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
    precise float s = dot_ * scale;
    precise float below = s - m;
    return vkm_div(vkm_exp(below), l);
}
float score_grad(float p, float dp, float dr) {
    precise float d = dp - dr;
    precise float ds = p * d;
    return unpack_bf16(vkm_bf16z(ds));
}
