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

const uint PANELS = (TILE_ROWS + 15u) / 16u;

/* Adds n words of K from a_at and b_at on, and goes further. */
#define ADD_WORDS(n)                                                                               \
    {                                                                                              \
        uvec4 z4[TILE_STEP];                                                                       \
        [[unroll]] for (uint s = 0u; s < n; s++) z4[s] = vkm_words4(b_at, 4u * s);                 \
        [[unroll]] for (uint s = 0u; s < n; s++) {                                                 \
            [[unroll]] for (uint r = 0u; r < TILE_ROWS; r += 4u) {                                 \
                uvec4 x4 = vkm_words4(a_at[r / 16u], 4u * s + r % 16u / 4u);                       \
                [[unroll]] for (uint i = 0u; i < 16u; i++) {                                       \
                    uint x = x4[i / 4u], z = z4[s][i % 4u], at = 4u * r + i;                       \
                    sum[at] = fma(vkm_bf16_lo(x), vkm_bf16_lo(z), sum[at]);                        \
                    sum[at] = fma(vkm_bf16_hi(x), vkm_bf16_hi(z), sum[at]);                        \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        b_at = vkm_address(b_at, 16u * n);                                                         \
        [[unroll]] for (uint p = 0u; p < PANELS; p++) a_at[p] = vkm_address(a_at[p], 16u * n);     \
    }

void vkm_tile_add(vkm_operand a, vkm_operand b, uint k, inout precise float y[TILE_N]) {
    uint id = gl_LocalInvocationID.x, across = id % TILE_ACROSS, part = id / TILE_ACROSS;
    uint row = gl_WorkGroupID.y * TILE_ROWS, a_first[PANELS];
    uint a_last = (a.rows - 1u) / 16u * 16u + row % 16u;
    [[unroll]] for (uint p = 0u; p < PANELS; p++)
        a_first[p] = vkm_op_word(min(row + 16u * p, a_last), a.k2, a.kp);
    uint b_col = min((gl_WorkGroupID.x * TILE_ACROSS + across) * 4u, (b.rows - 1u) / 4u * 4u);
    uint b_first = vkm_op_word(b_col, b.k2, b.kp);
    uint chunks = (k + 255u) / 256u;
    for (uint c0 = 0u; c0 < chunks; c0 += TILE_SPLIT) {
        precise float sum[SUMS];
        [[unroll]] for (uint i = 0u; i < SUMS; i++) sum[i] = 0.0;
        uint c = c0 + part, w = 128u * c, end = c < chunks ? min(128u * (c + 1u), k / 2u) : 0u;
        uvec2 a_at[PANELS], b_at = vkm_address(b.addr, b_first + 16u * w);
        [[unroll]] for (uint p = 0u; p < PANELS; p++)
            a_at[p] = vkm_address(a.addr, a_first[p] + 16u * w);
        for (; w + TILE_STEP <= end; w += TILE_STEP) ADD_WORDS(TILE_STEP)
        for (; TILE_STEP > 4u && w < end; w += 4u) ADD_WORDS(4u) /* K is a multiple of four words */
        barrier(); /* the last round's sums have been read */
        [[unroll]] for (uint i = 0u; i < SUMS; i++)
            chunk_sums[i * gl_WorkGroupSize.x + id] = sum[i];
        barrier();
        uint parts = min(TILE_SPLIT, chunks - c0);
        for (uint p = 0u; p < parts; p++) {
            uint from = p * TILE_ACROSS + across;
            precise float own[TILE_N];
            [[unroll]] for (uint i = 0u; i < TILE_N; i++)
                own[i] = chunk_sums[min(own_sum(i), SUMS - 1u) * gl_WorkGroupSize.x + from];
            VKM_TAKE_SUMS(y, own)
        }
    }
}
