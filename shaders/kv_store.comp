#version 460
#extension GL_GOOGLE_include_directive : require
#include "kv_store.glsl"

void main() {
    uint i = vkm_flat_id(), words = pc.n_cols / 2u;
    if (i >= pc.n_rows * words) return;
    uint row = i / words;
    uint own_row0 = LD_state(8u * row + 2u), n_own = LD_state(8u * row + 3u);
    if (LD_state(8u * row + 5u) != 0u || n_own == 0u) return;
    uint at = (own_row0 + n_own - 1u) * words + i % words;
    STW_own_k(at, LDW_k(i));
    STW_own_v(at, LDW_v(i));
}
