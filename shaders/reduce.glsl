/* The lane-64 reduction of the numerics contract: lane l of 64 sums elements l, l + 64, ... in order
 * from +0, then the halves are added (l += l + 32, 16, ... 1). Twin: vkm_rule5_tree in ops/twin.h.
 *
 * vkm_rule5_tree: for a workgroup of exactly 64, from the lanes' own sums:
 *     precise float acc = 0.0;
 *     for (uint i = gl_LocalInvocationID.x; i < n; i += 64u) acc = acc + LD_x(i);
 *     float sum = vkm_rule5_tree(acc);   // in uniform control flow; every lane gets the sum
 *
 * VKM_RULE5: the same for a unit of work (a row, a head, a column) that VKM_LANES invocations share: 64, a
 * workgroup, or 1, which then holds all lanes. CPU drivers want 1 (a barrier costs them microseconds),
 * GPUs 64. The bits are the same. */
#ifndef VKM_REDUCE_GLSL
#define VKM_REDUCE_GLSL
#include "rule5_private.glsl"

layout(constant_id = 1) const uint VKM_LANES = 64u;

shared float vkm_lanes[64];

float vkm_rule5_tree(float acc) {
    uint l = gl_LocalInvocationID.x;
    vkm_lanes[l] = acc;
    barrier();
    for (uint half_n = 32u; half_n > 0u; half_n >>= 1) {
        if (l < half_n) {
            precise float sum = vkm_lanes[l] + vkm_lanes[l + half_n];
            vkm_lanes[l] = sum;
        }
        barrier();
    }
    float total = vkm_lanes[0];
    barrier(); /* before the lanes are used again */
    return total;
}

/* The index of this workgroup in a launch made by vkm_launch_flat. */
uint vkm_group_id() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

/* This invocation's unit, and its place among those that share it. */
uint vkm_unit_id() { return VKM_LANES == 1u ? vkm_flat_id() : vkm_group_id(); }
uint vkm_unit_lane() { return VKM_LANES == 1u ? 0u : gl_LocalInvocationID.x; }

/* float total = the sum of `term`, an expression in i, over i < n; n may differ between units. Of 64 lanes
 * each has eight terms on their way at once: for a few rows that is all that keeps a GPU's memory busy. */
#define VKM_RULE5(total, i, n, term)                                                               \
    float total;                                                                                   \
    if (VKM_LANES == 1u) {                                                                         \
        VKM_RULE5_ZERO(total##_lane);                                                              \
        for (uint i = 0u; i < (n); i++) VKM_RULE5_ADD(total##_lane, i, term);                      \
        VKM_RULE5_TREE(total##_lane);                                                              \
        total = total##_lane[0];                                                                   \
    } else {                                                                                       \
        precise float total##_acc = 0.0;                                                           \
        uint i = gl_LocalInvocationID.x;                                                           \
        while (i + 448u < (n)) {                                                                   \
            float total##_terms[8];                                                                \
            [[unroll]] for (uint u_ = 0u; u_ < 8u; u_++, i += 64u) total##_terms[u_] = term;       \
            [[unroll]] for (uint u_ = 0u; u_ < 8u; u_++)                                           \
                total##_acc = total##_acc + total##_terms[u_];                                     \
        }                                                                                          \
        for (; i < (n); i += 64u) total##_acc = total##_acc + (term);                              \
        total = vkm_rule5_tree(total##_acc);                                                       \
    }

#endif
