/* Inside of the vk layer: what a backend implements, and the recorded form of work. */
#ifndef VKM_BACKEND_H
#define VKM_BACKEND_H

#include "vk/stream.h"

#define VKM_MAX_ARGS 512

/* One recorded kernel. */
typedef struct vkm_node {
    const vkm_kernel *kernel;
    vkm_launch how;
    int barrier; /* a full memory barrier stands before it */
    _Alignas(8) unsigned char args[VKM_MAX_ARGS];
} vkm_node;

typedef struct vkm_nodes {
    vkm_node *v;
    uint32_t n, cap;
} vkm_nodes;

/* One allocation. base is what tensors see: a device address or a host pointer. */
typedef struct vkm_arena {
    uint64_t base, bytes;
    void *impl;
} vkm_arena;

typedef struct vkm_backend {
    vkm_status (*alloc)(vkm_dev *dev, uint64_t bytes, vkm_arena *out, vkm_err *err); /* zeroed */
    void (*release)(vkm_dev *dev, vkm_arena *arena);
    /* host <-> [addr, addr + bytes), which lies in one arena */
    vkm_status (*write)(vkm_dev *dev, uint64_t addr, const void *src, uint64_t bytes, vkm_err *err);
    vkm_status (*read)(vkm_dev *dev, uint64_t addr, void *dst, uint64_t bytes, vkm_err *err);
    vkm_status (*zero)(vkm_dev *dev, uint64_t addr, uint64_t bytes, vkm_err *err);
    /* Runs the nodes in order and waits. */
    vkm_status (*run)(vkm_dev *dev, const vkm_nodes *nodes, vkm_err *err);
    /* A graph's own form of the nodes (command buffers), NULL if it needs none. */
    vkm_status (*compile)(vkm_dev *dev, const vkm_nodes *nodes, void **impl, vkm_err *err);
    vkm_status (*run_compiled)(vkm_dev *dev, const vkm_nodes *nodes, void *impl, uint32_t times,
                               vkm_err *err);
    void (*free_compiled)(vkm_dev *dev, void *impl);
    void (*close)(vkm_dev *dev);
} vkm_backend;

typedef struct vkm_kernel_time {
    const vkm_kernel *kernel;
    uint64_t calls;
    double seconds, bytes;
} vkm_kernel_time;

struct vkm_dev {
    const vkm_backend *backend;
    vkm_dev_options options;
    vkm_dev_class class;
    uint32_t subgroup;        /* invocations; 0 on the host */
    uint32_t shared_bytes;    /* workgroup memory; 0 on the host */
    vkm_matrix matrix;        /* none in the exact tier */
    uint64_t max_alloc_bytes; /* of one arena */
    uint64_t budget_bytes;    /* free for us now; 0 when the driver does not say */
    char name[256], driver[256];
    char cache_base[3072]; /* of the device's files in the user's cache, without an ending; "": none
                            */
    void *tiles;           /* choices of ops/tiles_tuned.c, or NULL */
    char *probes;          /* JSON text of what its probes found; NULL when none were run */
    int threads;
    vkm_kernel_time times[256]; /* by kernel, in order of first use */
    uint32_t n_times;
    uint64_t n_submits, n_dispatches; /* so far: what tests and the profile look at */
    void *impl;                       /* the backend's own */
};

vkm_status vkm_cpu_open(vkm_dev *dev, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_vulkan_open(vkm_dev *dev, vkm_err *err) VKM_MUST_CHECK;
/* Bytes of host memory that can be taken without swapping; 0 if the system does not say. */
uint64_t vkm_host_memory_free(void);
/* bytes: of vkm_node_bytes, in one part of a node that runs in several. */
void vkm_dev_account(vkm_dev *dev, const vkm_kernel *k, double seconds, double bytes);

/* hazard.c: which tensors of a node overlap those of another so that order matters. */
/* What the declared tensors hold: read or written once each, both counting twice. */
double vkm_node_bytes(const vkm_node *node);
int vkm_nodes_conflict(const vkm_node *a, const vkm_node *b);
/* Sets node->barrier where the declared reads and writes need one. cyclic: the list will be run
 * again after itself, so the first node starts behind a barrier. */
void vkm_place_barriers(vkm_nodes *nodes, int cyclic);
/* Proof by all pairs: every conflicting pair has a barrier between. 0 and the pair if not. */
int vkm_barriers_suffice(const vkm_nodes *nodes, uint32_t *first, uint32_t *second);

#endif
