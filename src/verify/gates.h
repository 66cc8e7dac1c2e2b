/* The table of gates: one row a gate, kernels from kernels.def and the method's own. */
#ifndef VKM_GATES_H
#define VKM_GATES_H

#include "verify/verify.h"

typedef struct vkm_gate {
    const char *name, *doc;
    void (*run)(vkm_verify *v);
} vkm_gate;

extern const vkm_gate vkm_method_gates[], vkm_env_gates[];
extern const uint32_t vkm_n_method_gates, vkm_n_env_gates;

/* For gates that are no kernel: the device under test, a passed case, a failure (the first is
 * shown), and that this machine cannot run the gate: it is then shown as skipped, with the reason.
 */
vkm_dev *vkm_v_dev(vkm_verify *v);
void vkm_v_count(vkm_verify *v);
void vkm_v_fail(vkm_verify *v, const char *fmt, ...) VKM_PRINTF(2, 3);

void vkm_v_skip(vkm_verify *v, const char *fmt, ...) VKM_PRINTF(2, 3);

/* A case that holds, or fails with a message. */
#define VKM_EXPECT(v, cond, ...)                                                                   \
    do {                                                                                           \
        vkm_v_count(v);                                                                            \
        if (!(cond)) vkm_v_fail(v, __VA_ARGS__);                                                   \
    } while (0)

#endif
