/* Common to all shaders: extensions, memory access by address, the numerics contract, reductions.
 * A shader includes the generated <kernel>.glsl, which includes this. */
#ifndef VKM_KERNEL_GLSL
#define VKM_KERNEL_GLSL
#extension GL_EXT_buffer_reference2 : require
#extension GL_EXT_buffer_reference_uvec2 : require
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = 64, local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer F32_R { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer F32_W { float v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer U32_R { uint v[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer U32_W { uint v[]; };

#define VKM_GLSL
#include "numerics.h"

/* The index of this invocation in a launch made by vkm_launch_flat. */
uint vkm_flat_id() {
    return (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x +
           gl_LocalInvocationID.x;
}

/* Word index of (row, k / 2) in an operand of padded length kp (vk/tensor.h). */
uint vkm_op_word(uint row, uint k2, uint kp) {
    return ((row >> 4) * (kp >> 1) + k2) * 16u + (row & 15u);
}

#endif
