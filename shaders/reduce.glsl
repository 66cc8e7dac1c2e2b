/* The lane-64 reduction of the numerics contract, for a workgroup of exactly 64 invocations: lane l
 * sums elements l, l + 64, ... in order from +0, then the halves are added (l += l + 32, 16, ... 1).
 * Twin: vkm_rule5_tree in ops/twin.h.
 *
 *     precise float acc = 0.0;
 *     for (uint i = gl_LocalInvocationID.x; i < n; i += 64u) acc = acc + LD_x(i);
 *     float sum = vkm_rule5_tree(acc);   // in uniform control flow; every lane gets the sum */
#ifndef VKM_REDUCE_GLSL
#define VKM_REDUCE_GLSL

shared float vkm_lanes[64];

/* The index of this workgroup in a launch made by vkm_launch_flat. */
uint vkm_group_id() { return gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x; }

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

#endif
