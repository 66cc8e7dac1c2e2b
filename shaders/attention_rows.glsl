/* Shared by the attention kernels over whole sequences. A lane has R queries (or keys), a group
 * width apart; the other side goes by in steps, addressed through the workgroup and the loop counter
 * only, so that its loads are uniform. Every array is indexed by unrolled constants and stays in
 * registers: the head dimension is a specialization constant. */
#include "attention.glsl"

layout(constant_id = 1) const uint D = 2u;    /* head dimension, even */
layout(constant_id = 2) const uint DS = 2u;   /* output dimensions of a workgroup, divides D, even */
layout(constant_id = 3) const uint R = 1u;    /* rows of a lane: each load serves so many */
layout(constant_id = 4) const uint STEP = 4u; /* rows of the uniform side a step; divides CHUNK */
const uint DW = D / 2u;
const uint DSW = DS / 2u;

/* Row r of this lane, counted from the first row of the workgroup. */
uint own_row(uint r) { return r * gl_WorkGroupSize.x + gl_LocalInvocationID.x; }
uint group_rows() { return R * gl_WorkGroupSize.x; }

/* A sequence: its first row and its length. */
#define SEQ_ROW0(i) LD_seqs(4u * (i))
#define SEQ_LEN(i)  LD_seqs(4u * (i) + 1u)
/* Rows of a sequence in an operand, with the pad of its last panel. */
uint padded(uint len) { return (len + 15u) & ~15u; }
