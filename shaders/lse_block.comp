#version 460
#extension GL_GOOGLE_include_directive : require
#include "lse_block.glsl"
#include "softmath.h"
#include "guarded.glsl"

/* 1: a group of 64 has 64 blocks of a row, and lanes load one another's, so whole lines */
layout(constant_id = 1) const uint STAGED = 0u;

const uint BLOCK = 256u, LANES = 64u, TILE = 32u, LINE = TILE + 1u;
shared float tile[STAGED != 0u ? LANES * LINE : 1u];

/* Columns j0 to j0 + TILE - 1 of the group's blocks, of which the first begins at column `first`. */
void stage(uint row, uint first, uint j0) {
    uint line = gl_LocalInvocationID.x / TILE, at = gl_LocalInvocationID.x % TILE;
    uint col = first + line * BLOCK + j0 + at, to = line * LINE + at;
    barrier();
    [[unroll]] for (uint n = 0u; n < TILE; n++) {
        uint skip = n * (LANES / TILE);
        tile[to + skip * LINE] = LD_logits(row * pc.n_vocab + min(col + skip * BLOCK, pc.n_vocab - 1u));
    }
    barrier();
}

/* Runs `statement` for every logit x of the lane's block, in ascending order. */
#define FOR_LOGITS(x, statement)                                                                   \
    for (uint j0 = 0u; j0 < (STAGED != 0u ? BLOCK : 1u); j0 += TILE) {                             \
        if (STAGED != 0u) stage(row, group_first, j0);                                             \
        uint end = STAGED == 0u ? n : n - min(n, j0);                                              \
        for (uint j = 0u; j < (STAGED == 0u ? end : min(end, TILE)); j++) {                        \
            float x = STAGED != 0u ? tile[gl_LocalInvocationID.x * LINE + j] : LD_logits(first + j); \
            statement;                                                                             \
        }                                                                                          \
    }

/* One invocation a block of a row: the sums are sequential. */
void main() {
    uint nb = (pc.n_vocab + BLOCK - 1u) / BLOCK, lane = gl_LocalInvocationID.x;
    uint per_row = STAGED == 0u ? nb : (nb + LANES - 1u) / LANES * LANES; /* invocations */
    uint row = (vkm_flat_id() - (STAGED == 0u ? 0u : lane)) / per_row;
    uint block = vkm_flat_id() - row * per_row, group_first = (block - lane) * BLOCK;
    bool live = row < pc.n_rows && block < nb;
    if (STAGED == 0u && !live) return;
    row = min(row, pc.n_rows - 1u);
    block = min(block, nb - 1u);
    uint first = row * pc.n_vocab + block * BLOCK, n = min(pc.n_vocab - block * BLOCK, BLOCK);
    float m = LD_logits(first);
    FOR_LOGITS(x, m = x > m ? x : m)
    precise float l = 0.0, s = 0.0;
    FOR_LOGITS(x, {
        float d = subc(x, m);
        float e = vkm_exp(d);
        l = l + e;
        s = s + (e == 0.0 ? 0.0 : mulc(e, d));
    })
    if (!live) return;
    ST_mb(row * nb + block, m);
    ST_lb(row * nb + block, l);
    ST_sb(row * nb + block, s);
}
