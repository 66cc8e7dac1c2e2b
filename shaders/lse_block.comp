#version 460
#extension GL_GOOGLE_include_directive : require
#include "lse_block.glsl"
#include "softmath.h"
#include "guarded.glsl"

layout(constant_id = 1) const uint STAGED = 0u; /* 1: lanes load one another's blocks, so whole lines */

const uint BLOCK = 256u, LANES = 64u, TILE = 32u, LINE = TILE + 1u;
shared float tile[STAGED != 0u ? LANES * LINE : 1u];

uint units, nb;

uint first_of(uint i) { return i / nb * pc.n_vocab + i % nb * BLOCK; }
uint size_of(uint i) { return min(pc.n_vocab - i % nb * BLOCK, BLOCK); }

/* Columns j0 to j0 + TILE - 1 of the blocks of all lanes. */
void stage(uint j0) {
    uint lane = gl_LocalInvocationID.x, first = vkm_flat_id() - lane;
    barrier();
    [[unroll]] for (uint n = 0u; n < TILE; n++) {
        uint at = n * LANES + lane, i = min(first + at / TILE, units - 1u);
        tile[at / TILE * LINE + at % TILE] =
            LD_logits(first_of(i) + min(j0 + at % TILE, size_of(i) - 1u));
    }
    barrier();
}

/* Runs `statement` for every logit x of the lane's block, in ascending order. */
#define FOR_LOGITS(x, statement)                                                                   \
    for (uint j0 = 0u; j0 < (STAGED != 0u ? BLOCK : 1u); j0 += TILE) {                             \
        if (STAGED != 0u) stage(j0);                                                               \
        uint end = STAGED == 0u ? n : n - min(n, j0);                                              \
        for (uint j = 0u; j < (STAGED == 0u ? end : min(end, TILE)); j++) {                        \
            float x = STAGED != 0u ? tile[gl_LocalInvocationID.x * LINE + j] : LD_logits(first + j); \
            statement;                                                                             \
        }                                                                                          \
    }

/* One invocation a (row, block): the sums are sequential. */
void main() {
    nb = (pc.n_vocab + BLOCK - 1u) / BLOCK;
    units = pc.n_rows * nb;
    uint i = min(vkm_flat_id(), units - 1u), first = first_of(i), n = size_of(i);
    if (STAGED == 0u && vkm_flat_id() >= units) return;
    float m = LD_logits(first);
    FOR_LOGITS(x, m = x > m ? x : m)
    precise float l = 0.0, s = 0.0;
    FOR_LOGITS(x, {
        float d = subc(x, m);
        float e = vkm_exp(d);
        l = l + e;
        s = s + (e == 0.0 ? 0.0 : mulc(e, d));
    })
    if (vkm_flat_id() >= units) return;
    ST_mb(i, m);
    ST_lb(i, l);
    ST_sb(i, s);
}
