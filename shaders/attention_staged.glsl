/* The attention kernels of GPUs, form `shared`: a group of 128 lanes, 8 down by 16 across, takes a block
 * of 32 rows against tiles of TILE rows of the other side, both staged in workgroup memory, so that a
 * word is loaded once for many products. A lane has 4 x TILE / 16 of a tile's scores; of what is summed
 * over the other side it has 4 rows by D / 16 columns (or fewer, with slices of D). Every sum is in the
 * plain form's order. Head dimensions are multiples of 32 up to 128. The includer defines TILE. */
#include "attention.glsl"

layout(constant_id = 1) const uint D = 32u;
layout(constant_id = 2) const uint SLICES = 1u; /* groups that share the columns of the outputs */
const uint DW = D / 2u;
const uint BLOCK = 32u, LANES = 128u, ROWS = 4u, OTHERS = TILE / 16u;
const uint N_SCORES = ROWS * OTHERS;
const uint WORDS = DW / SLICES / 16u, COLS = 2u * WORDS; /* of outputs, of a lane's row */

/* Staged rows lie [word][row], the block's in fours, with a gap so that lines meet different banks. */
const uint LINE4 = BLOCK / 4u + 1u, LINE = TILE + 1u;

uint across() { return gl_LocalInvocationID.x % 16u; }
uint down() { return gl_LocalInvocationID.x / 16u; }

/* Number r of the lane's rows in the block; number u of its rows in the tile; word i of its outputs. */
uint lane_row(uint r) { return 4u * down() + r; }
uint lane_other(uint u) { return across() + 16u * u; }
uint lane_word(uint slice, uint i) { return slice * (DW / SLICES) + 16u * i + across(); }

/* Stages the rows of a block, or of a tile. row_word(i): where row i begins in the buffer. */
#define STAGE_BLOCK(to, addr, row_word)                                                            \
    for (uint at_ = gl_LocalInvocationID.x; at_ < BLOCK / 4u * DW; at_ += LANES) {                 \
        uint w_ = at_ % DW, g_ = 4u * (at_ / DW);                                                  \
        to[w_ * LINE4 + g_ / 4u] =                                                                 \
            uvec4(U32_R(addr).v[row_word(g_) + w_], U32_R(addr).v[row_word(g_ + 1u) + w_],         \
                  U32_R(addr).v[row_word(g_ + 2u) + w_], U32_R(addr).v[row_word(g_ + 3u) + w_]);   \
    }
#define STAGE_TILE(to, addr, row_word)                                                             \
    for (uint at_ = gl_LocalInvocationID.x; at_ < TILE * DW; at_ += LANES)                         \
        to[at_ % DW * LINE + at_ / DW] = U32_R(addr).v[row_word(at_ / DW) + at_ % DW]

/* s = the products of the lane's rows of the block and of the tile, eight words a pass. */
#define ROW_PRODUCTS(s, block, tile_)                                                              \
    [[unroll]] for (uint i_ = 0u; i_ < N_SCORES; i_++) s[i_] = 0.0;                                \
    for (uint first_ = 0u; first_ < DW; first_ += 8u) {                                            \
        uint block_at_ = first_ * LINE4 + down(), tile_at_ = first_ * LINE + across();             \
        [[unroll]] for (uint w_ = 0u; w_ < 8u; w_++) {                                             \
            uvec4 x_ = block[block_at_ + w_ * LINE4];                                              \
            [[unroll]] for (uint u_ = 0u; u_ < OTHERS; u_++) {                                     \
                uint z_ = tile_[tile_at_ + (w_ * LINE + 16u * u_)];                                \
                [[unroll]] for (uint r_ = 0u; r_ < ROWS; r_++)                                     \
                    s[r_ * OTHERS + u_] = madd2(vkm_bf16_lo(x_[r_]), vkm_bf16_hi(x_[r_]), z_,      \
                                                s[r_ * OTHERS + u_]);                              \
            }                                                                                      \
        }                                                                                          \
    }

/* Scores for all lanes to see: [row of the tile][row of the block] in fours. */
#define SHARE_SCORES(to, s)                                                                        \
    [[unroll]] for (uint u_ = 0u; u_ < OTHERS; u_++)                                               \
        to[lane_other(u_) * LINE4 + down()] =                                                      \
            vec4(s[u_], s[OTHERS + u_], s[2u * OTHERS + u_], s[3u * OTHERS + u_])

/* acc += shared scores of row j of the tile times the lane's columns of that row; of rows j < n, four a
 * pass. */
#define ADD_ROW(acc, scores, tile_, j, slice)                                                      \
    {                                                                                              \
        vec4 p_ = scores[(j) * LINE4 + down()];                                                    \
        [[unroll]] for (uint i_ = 0u; i_ < WORDS; i_++) {                                          \
            uint w_ = tile_[lane_word(slice, i_) * LINE + (j)];                                    \
            float lo_ = vkm_bf16_lo(w_), hi_ = vkm_bf16_hi(w_);                                    \
            [[unroll]] for (uint r_ = 0u; r_ < ROWS; r_++) {                                       \
                uint a_ = r_ * COLS + 2u * i_;                                                     \
                acc[a_] = madd(p_[r_], lo_, acc[a_]);                                              \
                acc[a_ + 1u] = madd(p_[r_], hi_, acc[a_ + 1u]);                                    \
            }                                                                                      \
        }                                                                                          \
    }
#define ADD_ROWS(acc, scores, tile_, n, slice)                                                     \
    {                                                                                              \
        uint j_ = 0u;                                                                              \
        for (; j_ + 4u <= n; j_ += 4u) {                                                           \
            [[unroll]] for (uint u_ = 0u; u_ < 4u; u_++) ADD_ROW(acc, scores, tile_, j_ + u_, slice) \
        }                                                                                          \
        for (; j_ < n; j_++) ADD_ROW(acc, scores, tile_, j_, slice)                                \
    }

/* total += acc, acc = 0 */
#define FOLD(total, acc)                                                                           \
    [[unroll]] for (uint a_ = 0u; a_ < ROWS * COLS; a_++) {                                        \
        total[a_] = add(total[a_], acc[a_]);                                                       \
        acc[a_] = 0.0;                                                                             \
    }
#define ZERO(x) [[unroll]] for (uint a_ = 0u; a_ < ROWS * COLS; a_++) x[a_] = 0.0
