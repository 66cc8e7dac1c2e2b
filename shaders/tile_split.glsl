/* A tile for few rows, as in decoding: TILE_SPLIT parts of the group take one chunk of K each, and the
 * chunks' sums meet in workgroup memory, where they are added in ascending order. An invocation sums
 * TILE_ROWS rows by 4 columns and finishes its share of the outputs of all parts, four at least: with
 * more parts than rows the last ones have none. */
layout(constant_id = 1) const uint TILE_ROWS = 8;   /* 4, 8 or a multiple of 16 */
layout(constant_id = 2) const uint TILE_COLS = 4;   /* 4 */
layout(constant_id = 3) const uint TILE_N = 4;      /* 4 rows by the parts, or 4 */
layout(constant_id = 4) const uint TILE_ACROSS = 8; /* invocations along N */
layout(constant_id = 5) const uint TILE_STEP = 4;   /* words of K loaded ahead: a power of two up to 16 */
const uint TILE_ROW_N = 4u;
const uint TILE_HEIGHT = TILE_ROWS;

const uint TILE_SPLIT = gl_WorkGroupSize.x / TILE_ACROSS;
const uint SUMS = 4u * TILE_ROWS; /* of an invocation */
shared float chunk_sums[gl_WorkGroupSize.x * SUMS];

uint own_sum(uint at) {
    return gl_LocalInvocationID.x / TILE_ACROSS * TILE_N + at;
}
uint vkm_tile_i(uint at) {
    bool none = own_sum(at) >= SUMS;
    return none ? 0xffffff00u : gl_WorkGroupID.y * TILE_ROWS + own_sum(at) / 4u;
}
uint vkm_tile_j(uint at) {
    return (gl_WorkGroupID.x * TILE_ACROSS + gl_LocalInvocationID.x % TILE_ACROSS) * 4u +
           own_sum(at) % 4u;
}

/* Four words of an operand at word w of K; zeros from `end` on, which is a multiple of 4. */
uvec4 words(uvec2 addr, uint at, uint w, uint end) {
    if (TILE_STEP <= 4u) return vkm_words4(addr, at + w * 4u);
    uvec4 x = vkm_words4(addr, at + min(w, end - 1u) * 4u);
    return w < end ? x : uvec4(0u);
}

void vkm_tile_rule4(vkm_operand a, vkm_operand b, uint k, out precise float y[TILE_N]) {
    uint id = gl_LocalInvocationID.x, across = id % TILE_ACROSS, part = id / TILE_ACROSS;
    uint row = gl_WorkGroupID.y * TILE_ROWS, a_at[(TILE_ROWS + 15u) / 16u];
    uint a_last = (a.rows - 1u) / 16u * 16u + row % 16u;
    [[unroll]] for (uint p = 0u; p < (TILE_ROWS + 15u) / 16u; p++)
        a_at[p] = vkm_op_word(min(row + 16u * p, a_last), a.k2, a.kp) / 4u;
    uint b_col = min((gl_WorkGroupID.x * TILE_ACROSS + across) * 4u, (b.rows - 1u) / 4u * 4u);
    uint b_at = vkm_op_word(b_col, b.k2, b.kp) / 4u;
    [[unroll]] for (uint i = 0u; i < TILE_N; i++) y[i] = 0.0;
    uint chunks = (k + 255u) / 256u;
    for (uint c0 = 0u; c0 < chunks; c0 += TILE_SPLIT) {
        precise float sum[SUMS];
        [[unroll]] for (uint i = 0u; i < SUMS; i++) sum[i] = 0.0;
        uint c = c0 + part, end = c < chunks ? min(128u * (c + 1u), k / 2u) : 0u;
        for (uint w = 128u * c; w < end; w += TILE_STEP) {
            uvec4 z4[TILE_STEP];
            [[unroll]] for (uint s = 0u; s < TILE_STEP; s++) z4[s] = words(b.addr, b_at, w + s, end);
            [[unroll]] for (uint s = 0u; s < TILE_STEP; s++) {
                [[unroll]] for (uint r = 0u; r < TILE_ROWS; r += 4u) {
                    uvec4 x4 = words(a.addr, a_at[r / 16u] + r % 16u / 4u, w + s, end);
                    [[unroll]] for (uint i = 0u; i < 16u; i++) {
                        uint x = x4[i / 4u], z = z4[s][i % 4u], at = 4u * r + i;
                        sum[at] = fma(vkm_bf16_lo(x), vkm_bf16_lo(z), sum[at]);
                        sum[at] = fma(vkm_bf16_hi(x), vkm_bf16_hi(z), sum[at]);
                    }
                }
            }
        }
        barrier(); /* the last round's sums have been read */
        [[unroll]] for (uint i = 0u; i < SUMS; i++)
            chunk_sums[i * gl_WorkGroupSize.x + id] = sum[i];
        barrier();
        uint parts = min(TILE_SPLIT, chunks - c0);
        for (uint p = 0u; p < parts; p++) {
            uint from = p * TILE_ACROSS + across;
            [[unroll]] for (uint i = 0u; i < TILE_N; i++)
                y[i] = y[i] + chunk_sums[min(own_sum(i), SUMS - 1u) * gl_WorkGroupSize.x + from];
        }
    }
}
