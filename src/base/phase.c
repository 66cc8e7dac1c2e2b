/* Owns the stopwatch of a training step. */
#include "base/phase.h"

#include <string.h>

#include "base/log.h"

const vkm_phase_row vkm_phases[VKM_N_PHASES] = {
#define ROW(name, what) {#name, what},
    VKM_PHASES(ROW)
#undef ROW
};

static double spent[VKM_N_PHASES], since;
static vkm_phase now = VKM_PHASE_host;

vkm_phase vkm_phase_go(vkm_phase next) {
    vkm_phase was = now;
    double t = vkm_now_s();
    spent[was] += t - since;
    since = t;
    now = next;
    return was;
}

void vkm_phase_take(double seconds[VKM_N_PHASES]) {
    (void)vkm_phase_go(now);
    memcpy(seconds, spent, sizeof spent);
    memset(spent, 0, sizeof spent);
}
