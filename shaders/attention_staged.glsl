/* The attention kernels of GPUs, form `shared`: a group of 128 lanes, 8 down by 16 across, takes a block
 * of 32 rows against tiles of 32 rows of the other side, both staged in workgroup memory. Products of
 * rows and rows: a lane has 4 x 2 of the 32 x 32. Sums over the other side: 4 rows by D / 16 columns.
 * Head dimensions are multiples of 32 up to 128. */
#include "attention.glsl"

layout(constant_id = 1) const uint D = 32u;
const uint DW = D / 2u;
const uint BLOCK = 32u, LANES = 128u, ROWS = 4u, KEYS = 2u;
const uint COLS = D / 16u; /* of a lane: both halves of words across, across + 16, ... */

/* [word][row], in fours and in pairs, with a gap so that lines meet different banks. */
const uint LINE4 = BLOCK / 4u + 1u, LINE2 = BLOCK / 2u + 1u;

uint across() { return gl_LocalInvocationID.x % 16u; }
uint down() { return gl_LocalInvocationID.x / 16u; }

/* Row of lane's number r; key of its number u. */
uint lane_row(uint r) { return 4u * down() + r; }
uint lane_key(uint u) { return 2u * across() + u; }

/* A sequence: its first row and its length. */
#define SEQ_ROW0(i) LD_seqs(4u * (i))
#define SEQ_LEN(i)  LD_seqs(4u * (i) + 1u)
/* The end of the panel of an operand. */
uint padded(uint row_end) { return (row_end + 15u) & ~15u; }

/* Stages word w of rows row_word(0 .. BLOCK - 1) of a buffer, row_word: where a row begins. */
#define STAGE4(to, addr, row_word)                                                                 \
    for (uint at_ = gl_LocalInvocationID.x; at_ < BLOCK / 4u * DW; at_ += LANES) {                 \
        uint w_ = at_ % DW, g_ = at_ / DW;                                                         \
        to[w_ * LINE4 + g_] =                                                                      \
            uvec4(U32_R(addr).v[row_word(4u * g_) + w_], U32_R(addr).v[row_word(4u * g_ + 1u) + w_], \
                  U32_R(addr).v[row_word(4u * g_ + 2u) + w_], U32_R(addr).v[row_word(4u * g_ + 3u) + w_]); \
    }
#define STAGE2(to, addr, row_word)                                                                 \
    for (uint at_ = gl_LocalInvocationID.x; at_ < BLOCK / 2u * DW; at_ += LANES) {                 \
        uint w_ = at_ % DW, g_ = at_ / DW;                                                         \
        to[w_ * LINE2 + g_] = uvec2(U32_R(addr).v[row_word(2u * g_) + w_],                         \
                                    U32_R(addr).v[row_word(2u * g_ + 1u) + w_]);                   \
    }
/* Rows as they lie: [row][word]. */
#define STAGE1(to, addr, row_word)                                                                 \
    for (uint at_ = gl_LocalInvocationID.x; at_ < BLOCK * DW; at_ += LANES)                        \
        to[at_] = U32_R(addr).v[row_word(at_ / DW) + at_ % DW]

/* s = the products of the lane's rows, staged in fours, and keys, staged in pairs. */
#define ROW_PRODUCTS(s, fours, pairs)                                                              \
    [[unroll]] for (uint i_ = 0u; i_ < ROWS * KEYS; i_++) s[i_] = 0.0;                             \
    for (uint w_ = 0u; w_ < DW; w_++) {                                                            \
        uvec4 x_ = fours[w_ * LINE4 + down()];                                                     \
        uvec2 z_ = pairs[w_ * LINE2 + across()];                                                   \
        [[unroll]] for (uint i_ = 0u; i_ < ROWS * KEYS; i_++)                                      \
            s[i_] = madd2(vkm_bf16_lo(x_[i_ / KEYS]), vkm_bf16_hi(x_[i_ / KEYS]), z_[i_ % KEYS], s[i_]); \
    }
