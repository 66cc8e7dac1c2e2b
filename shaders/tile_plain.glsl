/* A tile in registers: one group computes TILE_ROWS x (lanes * TILE_COLS) outputs. A lane has columns
 * in fours: its four, then four further on by all lanes' fours, ... The rows depend on gl_WorkGroupID
 * only, so that drivers which know uniform addresses load A once for all lanes. Nothing is shared
 * between lanes. */

layout(constant_id = 1) const uint TILE_ROWS = 16;   /* 4, 8 or a multiple of 16 */
layout(constant_id = 2) const uint TILE_COLS = 4;    /* a multiple of 4 */
layout(constant_id = 3) const uint TILE_N = 64;      /* their product */
layout(constant_id = 4) const uint TILE_SPREAD = 0;  /* 1: see vkm_spread */
layout(constant_id = 5) const uint TILE_UNROLL = 2;  /* words of K a pass: 1, 2 or 4 */
const uint TILE_ROW_N = TILE_COLS;
const uint TILE_HEIGHT = TILE_ROWS;

uint vkm_tile_row() {
    return gl_WorkGroupID.y * TILE_ROWS;
}

/* Column c of this invocation. */
uint vkm_tile_col(uint c) {
    uint four = gl_WorkGroupID.x * (TILE_COLS / 4u) + c / 4u;
    return (four * gl_WorkGroupSize.x + gl_LocalInvocationID.x) * 4u + c % 4u;
}

/* Whether eight lanes load sixteen rows of A at once and broadcast them, for drivers where a uniform
 * load costs as much as one that is not. Constants decide: of a branch that is never taken lavapipe
 * 22.3 keeps the loop over lanes of its load. */
bool vkm_spread() {
    return TILE_SPREAD != 0u && TILE_ROWS >= 8u;
}

uint vkm_tile_i(uint at) {
    return vkm_tile_row() + at / TILE_COLS;
}
uint vkm_tile_j(uint at) {
    return vkm_tile_col(at % TILE_COLS);
}

void vkm_tile_add(vkm_operand a, vkm_operand b, uint k, inout precise float y[TILE_N]) {
    precise float sum[TILE_N];
    VKM_PLACE a_at[(TILE_ROWS + 15u) / 16u], b_at[TILE_COLS / 4u];
    uint a_last = (a.rows - 1u) / 16u * 16u + vkm_tile_row() % 16u, b_last = (b.rows - 1u) / 4u * 4u;
    uint own_pair = vkm_spread() ? gl_SubgroupInvocationID % min(8u, TILE_ROWS / 2u) : 0u;
    [[unroll]] for (uint p = 0u; p < (TILE_ROWS + 15u) / 16u; p++)
        a_at[p] = vkm_place(
            a.addr, vkm_op_word(min(vkm_tile_row() + 16u * p, a_last), a.k2, a.kp) / 2u + own_pair);
    [[unroll]] for (uint c = 0u; c < TILE_COLS / 4u; c++)
        b_at[c] = vkm_place(b.addr, vkm_op_word(min(vkm_tile_col(4u * c), b_last), b.k2, b.kp) / 2u);
    for (uint k0 = 0u; k0 < k; k0 += 256u) {
        [[unroll]] for (uint i = 0u; i < TILE_N; i++) sum[i] = 0.0;
        uint end = min(k0 + 256u, k) / 2u;
        for (uint w = k0 / 2u; w < end; w += TILE_UNROLL) {
            /* word h of K: columns in z4, rows in x4 or, spread over the lanes, in own */
            uvec4 x4[TILE_UNROLL * ((TILE_ROWS + 3u) / 4u)], z4[TILE_UNROLL * (TILE_COLS / 4u)];
            [[unroll]] for (uint h = 0u; h < TILE_UNROLL; h++) {
                uvec2 own[(TILE_ROWS + 15u) / 16u];
                if (vkm_spread()) {
                    [[unroll]] for (uint p = 0u; p < (TILE_ROWS + 15u) / 16u; p++)
                        own[p] = vkm_words2_at(a.addr, vkm_further(a_at[p], 8u * h));
                }
                [[unroll]] for (uint c = 0u; c < TILE_COLS / 4u; c++)
                    z4[h * (TILE_COLS / 4u) + c] = vkm_words4_at(b.addr, vkm_further(b_at[c], 8u * h));
                [[unroll]] for (uint r = 0u; r < TILE_ROWS; r += 4u) {
                    uint to = h * (TILE_ROWS / 4u) + r / 4u;
                    if (vkm_spread()) {
                        [[unroll]] for (uint q = 0u; q < 4u; q++)
                            x4[to][q] = VKM_FROM_LANE(own[r / 16u][q % 2u], (r % 16u + q) / 2u);
                    } else {
                        x4[to] = vkm_words4_at(a.addr, vkm_further(a_at[r / 16u], 8u * h + r % 16u / 2u));
                    }
                }
            }
            [[unroll]] for (uint p = 0u; p < (TILE_ROWS + 15u) / 16u; p++)
                a_at[p] = vkm_further(a_at[p], 8u * TILE_UNROLL);
            [[unroll]] for (uint c = 0u; c < TILE_COLS / 4u; c++)
                b_at[c] = vkm_further(b_at[c], 8u * TILE_UNROLL);
            /* a sum takes all words of the pass in turn, so that it is loaded and stored once */
            [[unroll]] for (uint i = 0u; i < TILE_N; i++) {
                uint r = i / TILE_COLS, c = i % TILE_COLS;
                [[unroll]] for (uint h = 0u; h < TILE_UNROLL; h++) {
                    uint x = x4[h * (TILE_ROWS / 4u) + r / 4u][r % 4u];
                    uint z = z4[h * (TILE_COLS / 4u) + c / 4u][c % 4u];
                    sum[i] = fma(vkm_bf16_lo(x), vkm_bf16_lo(z), sum[i]);
                    sum[i] = fma(vkm_bf16_hi(x), vkm_bf16_hi(z), sum[i]);
                }
            }
        }
        VKM_TAKE_SUMS(y, sum)
    }
}
