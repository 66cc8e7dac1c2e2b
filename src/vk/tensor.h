/* A tensor is a range of device memory with an element type; shape lives with its user.
 * Layouts of VKM_BF16 data:
 *   row-major  (rows, cols): cols even, two elements a 32-bit word;
 *   operand    (rows, K): what a GEMM reads. Panels of 16 rows, K rounded up to a multiple of 8:
 *              word (row/16, k/2, row%16) holds elements k and k+1; pad rows and columns are 0. */
#ifndef VKM_TENSOR_H
#define VKM_TENSOR_H

#include "base/status.h"

typedef enum { VKM_U32, VKM_F32, VKM_BF16 } vkm_dtype;

typedef struct vkm_tensor {
    uint64_t addr;  /* device address; a host pointer on the cpu and oracle backends */
    uint64_t n;     /* elements */
    uint32_t esz;   /* bytes an element: 4, 2, or 8 for floats on the oracle backend */
    uint32_t dtype; /* vkm_dtype */
} vkm_tensor;

static inline vkm_tensor vkm_view(vkm_tensor t, uint64_t first, uint64_t n) {
    VKM_BUG_ON(first > t.n || n > t.n - first, "view of %llu at %llu in a tensor of %llu",
               (unsigned long long)n, (unsigned long long)first, (unsigned long long)t.n);
    t.addr += first * t.esz;
    t.n = n;
    return t;
}

static inline uint64_t vkm_round_up(uint64_t n, uint64_t to) {
    return (n + to - 1) / to * to;
}

/* K of an operand as stored, and its element count. */
static inline uint32_t vkm_op_kp(uint32_t k) {
    return (uint32_t)vkm_round_up(k, 8);
}
static inline uint64_t vkm_op_size(uint64_t rows, uint32_t k) {
    return vkm_round_up(rows, 16) * vkm_op_kp(k);
}
/* Element index of (row, k) in an operand of padded length kp. */
static inline uint64_t vkm_op_index(uint64_t row, uint32_t k, uint32_t kp) {
    return ((row / 16) * (kp / 2) + k / 2) * 32 + (row % 16) * 2 + k % 2;
}

#endif
