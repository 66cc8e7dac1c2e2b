/* Shared by the attention kernels over whole sequences. A lane has R queries (or keys), a group
 * width apart; the other side goes by in steps, addressed through the workgroup and the loop counter
 * only, so that its loads are uniform. Every array is indexed by unrolled constants and stays in
 * registers: the head dimension is a specialization constant. */
#include "attention.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint D = 2u;    /* head dimension, even */
layout(constant_id = 2) const uint DS = 2u;   /* output dimensions of a workgroup, divides D, even */
layout(constant_id = 3) const uint R = 1u;    /* rows of a lane: each load serves so many */
layout(constant_id = 4) const uint STEP = 4u; /* rows of the uniform side a step; divides CHUNK */
layout(constant_id = 5) const uint SPREAD = 0u; /* 1: see spread */
const uint DW = D / 2u;
const uint DSW = DS / 2u;

/* Row r of this lane, counted from the first row of the workgroup. */
uint own_row(uint r) { return r * gl_WorkGroupSize.x + gl_LocalInvocationID.x; }
uint group_rows() { return R * gl_WorkGroupSize.x; }

/* Rows of the uniform side. Where a driver's loads go lane by lane, eight lanes load two words of a row
 * each and broadcast them. Row number u of a step: OWN_WORDS loads the lane's share of the row at word
 * `base`, ROW_WORD is its word i. */
bool spread() { return SPREAD != 0u && DW % 2u == 0u; }
const uint OWN = (DW + 15u) / 16u;
uvec2 own_pair(uvec2 addr, uint base, uint p) {
    if (!spread()) return uvec2(0u);
    return vkm_words2(addr, base / 2u + min(8u * p + gl_LocalInvocationID.x % 8u, DW / 2u - 1u));
}
#define OWN_WORDS(own, u, addr, base)                                                              \
    [[unroll]] for (uint p_ = 0u; p_ < OWN; p_++) own[(u) * OWN + p_] = own_pair(addr, base, p_)
#define ROW_WORD(own, u, addr, base, i)                                                            \
    (spread() ? VKM_FROM_LANE(own[(u) * OWN + (i) / 16u][(i) % 2u], (i) % 16u / 2u)            \
              : U32_R(addr).v[(base) + (i)])
