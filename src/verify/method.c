/* Gates of the method: what must hold of the adapter, the router and the policy as a whole. */
#include "verify/gates.h"

static void gate_philosophy(vkm_verify *v) {
    vkm_v_count(v);
}

const vkm_gate vkm_method_gates[] = {
    {"none", "placeholder", gate_philosophy},
};
const uint32_t vkm_n_method_gates = VKM_COUNTOF(vkm_method_gates);
