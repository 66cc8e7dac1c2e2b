/* A stream records kernels in program order and runs them; barriers follow from the tensors that
 * the kernels declare as read and written. Errors while recording stick and come back at the next
 * flush, so the op wrappers need no status of their own. */
#ifndef VKM_STREAM_H
#define VKM_STREAM_H

#include "vk/dev.h"

typedef struct vkm_stream vkm_stream;
typedef struct vkm_graph vkm_graph;

vkm_status vkm_stream_new(vkm_dev *dev, vkm_stream **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_stream_free(vkm_stream *s); /* accepts NULL */
vkm_dev *vkm_stream_dev(vkm_stream *s);

/* args: the kernel's vkm_args_<name>, copied. Called by op wrappers only. */
void vkm_stream_launch(vkm_stream *s, const vkm_kernel *k, const void *args, vkm_launch how);

/* Submits what is recorded, in slices of bounded work, and waits. */
vkm_status vkm_stream_flush(vkm_stream *s, vkm_err *err) VKM_MUST_CHECK;

/* Turns what is recorded since the last flush into a graph that can be run again and again; it
 * carries the barriers from its last kernels to its first. */
vkm_status vkm_stream_take_graph(vkm_stream *s, vkm_graph **out, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_graph_run(vkm_graph *g, uint32_t times, vkm_err *err) VKM_MUST_CHECK;
void vkm_graph_free(vkm_graph *g); /* accepts NULL */

#endif
