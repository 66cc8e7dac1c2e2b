/* The attention kernels of the fast tier, by cooperative matrices (matrix.glsl). A workgroup takes a block
 * of rows against tiles of TILE rows of the other side. Subgroups stand ACROSS by DOWN: each has MAT_M rows
 * of the block, whose operands it keeps in matrices, and a part of the columns, of a tile's scores and of
 * the outputs. What a score becomes (a weight, a gradient) its lane works out of workgroup memory, where
 * it then lies as an operand of the second product. Head dimensions are multiples of 32 up to 128.
 *
 * The includer defines AREAS, the scores that a pair of rows has (one, or two), and PRODUCTS, those that add
 * to outputs. */
#include "attention.glsl"
#include "words.glsl"
#include "matrix.glsl"

layout(constant_id = 1) const uint D = 32u;
layout(constant_id = 2) const uint TILE = 16u; /* a multiple of MAT_M, MAT_N and MAT_K, divides D */
layout(constant_id = 3) const uint ACROSS = 1u;

const uint LOCAL = gl_WorkGroupSize.x;
const uint DOWN = LOCAL / SUBGROUP / ACROSS, BLOCK = DOWN * MAT_M;
const uint STRIPE = TILE / ACROSS, OWN_D = D / ACROSS; /* columns of a subgroup, of scores and outputs */
const uint DQ = D / 8u;                                /* fours of words of a row */
const uint LINE = DQ + 1u, SLINE = TILE / 4u + 1u;     /* as staged: neighbours meet different banks */
const uint TURNED_LINE = TILE / 8u + 1u;               /* the tile's rows at one column, in pairs */
const uint PAIRS = TILE / 2u, LOADS = (PAIRS * DQ + LOCAL - 1u) / LOCAL; /* two fours each */

/* Staged: an operand of a tile's rows for each area of scores; those that are turned, for each product that
 * adds to outputs; before all of them the block's rows, which go to matrices. */
const uint NEAR = 0u, FAR = TILE * LINE, TURNED = AREAS * TILE * LINE, TURNED_2 = TURNED + D * TURNED_LINE;
const uint TILES = TURNED + PRODUCTS * D * TURNED_LINE;
shared uvec4 staged4[TILES > BLOCK * LINE ? TILES : BLOCK * LINE];
/* fp32 sums; then operands, from the rows' begin on; and the tops of these. Whole fours of words, since some
 * drivers place what follows right behind, and load by fours only where these begin (RADV). */
shared uvec4 scores[AREAS * BLOCK * SLINE];
shared uint row_tops[(DOWN + 3u) / 4u * 4u];

/* Lanes take the scores of their subgroup row by row, PARTS of them a row, in whole eights. */
const uint MOST_PARTS = STRIPE / 8u, ROW_LANES = SUBGROUP < MAT_M ? 1u : SUBGROUP / MAT_M;
const uint PARTS = ROW_LANES < MOST_PARTS ? ROW_LANES : MOST_PARTS;
const uint COLS = STRIPE / PARTS, FOURS = COLS / 4u, EIGHTS = COLS / 8u;
const uint ROWS_AT_ONCE = SUBGROUP / PARTS;
const uint ROWS = MAT_M < ROWS_AT_ONCE ? 1u : MAT_M / ROWS_AT_ONCE; /* of a lane */

uint across() { return gl_SubgroupID % ACROSS; }
uint down() { return gl_SubgroupID / ACROSS; }
uint lane_part() { return gl_SubgroupInvocationID % PARTS; }
/* Row number r of the lane in the block; lanes beyond the last repeat it, and store nothing. */
bool is_row(uint r) { return r * ROWS_AT_ONCE + gl_SubgroupInvocationID / PARTS < MAT_M; }
uint lane_row(uint r) {
    return down() * MAT_M + min(r * ROWS_AT_ONCE + gl_SubgroupInvocationID / PARTS, MAT_M - 1u);
}
/* The lane's first column in the tile. */
uint lane_col() { return across() * STRIPE + lane_part() * COLS; }

/* Those who share rows of the block wait for one another. */
void meet() {
    if (ACROSS > 1u)
        barrier();
    else
        subgroupBarrier();
}

/* ---- staging ---- */

void begin() {
    clear_tops();
    if (gl_LocalInvocationID.x < DOWN) row_tops[gl_LocalInvocationID.x] = 0u;
    barrier();
}

/* next = the rows of a tile, two neighbours a load: a lane turns them by itself, and the lanes of a pair's
 * columns take whole sectors of memory. row_quad(i): the four words that row i begins with. */
#define FETCH(next, addr, row_quad)                                                                \
    [[unroll]] for (uint n_ = 0u; n_ < LOADS; n_++) {                                              \
        uint at_ = min(gl_LocalInvocationID.x + n_ * LOCAL, PAIRS * DQ - 1u);                      \
        [[unroll]] for (uint i_ = 0u; i_ < 2u; i_++)                                               \
            next[2u * n_ + i_] = vkm_words4(addr, row_quad(at_ % PAIRS * 2u + i_) + at_ / PAIRS);  \
    }
/* Runs `statement` for every two fours x, z of neighbouring rows, lifted: words 4 quad on of rows 2 pair,
 * 2 pair + 1. */
#define FOR_FETCHED(next, top, statement)                                                          \
    [[unroll]] for (uint n_ = 0u; n_ < LOADS; n_++) {                                              \
        uint at_ = gl_LocalInvocationID.x + n_ * LOCAL;                                            \
        if (at_ < PAIRS * DQ) {                                                                    \
            uint pair = at_ % PAIRS, quad = at_ / PAIRS;                                           \
            uvec4 x = elements(next[2u * n_], lift(top));                                          \
            uvec4 z = elements(next[2u * n_ + 1u], lift(top));                                     \
            statement                                                                              \
        }                                                                                          \
    }
#define KEEP(to)                                                                                   \
    staged4[to + 2u * pair * LINE + quad] = x;                                                     \
    staged4[to + (2u * pair + 1u) * LINE + quad] = z;
/* Columns to rows, so that a product over the tile's rows finds them side by side. */
#define TURN(to)                                                                                   \
    [[unroll]] for (uint e_ = 0u; e_ < 4u; e_++) {                                                 \
        uint four_ = to + (8u * quad + 2u * e_) * TURNED_LINE + pair / 4u;                         \
        staged4[four_][pair % 4u] = (x[e_] & 0xffffu) | z[e_] << 16u;                              \
        staged4[four_ + TURNED_LINE][pair % 4u] = x[e_] >> 16u | (z[e_] & 0xffff0000u);            \
    }
/* Stages both operands of a tile when all are done with the last one. */
#define STAGE(next_near, near_top, put_near, next_far, far_top, put_far)                           \
    {                                                                                              \
        if (LIFTS) {                                                                               \
            uint e_ = 0u, f_ = 0u;                                                                 \
            [[unroll]] for (uint n_ = 0u; n_ < 2u * LOADS; n_++) {                                 \
                e_ = max(e_, exponent(next_near[n_]));                                             \
                f_ = max(f_, exponent(next_far[n_]));                                              \
            }                                                                                      \
            note_tops(e_, f_);                                                                     \
        }                                                                                          \
        barrier();                                                                                 \
        if (LIFTS) read_tops(near_top, far_top);                                                   \
        FOR_FETCHED(next_near, near_top, put_near)                                                 \
        FOR_FETCHED(next_far, far_top, put_far)                                                    \
        barrier();                                                                                 \
    }
/* x = the subgroup's rows of an operand of the block. They are loaded once and for all: what a branch or a
 * loop may change, a compiler takes apart, and that costs twice the registers (RADV). */
#define TAKE_BLOCK(x, addr, row_quad, top)                                                         \
    for (piece = 0u; piece < BLOCK; piece += TILE) {                                               \
        int top_ = NO_TOP, same_ = NO_TOP;                                                         \
        FETCH(next_near, addr, row_quad);                                                          \
        STAGE(next_near, top_, KEEP(piece * LINE), next_near, same_, );                            \
        if (down() * MAT_M / TILE == piece / TILE) top = top_;                                     \
    }                                                                                              \
    [[unroll]] for (uint k_ = 0u; k_ < D / MAT_K; k_++)                                            \
        coopMatLoad(x[k_], staged4, down() * MAT_M * LINE + k_ * (MAT_K / 8u), LINE,               \
                    gl_CooperativeMatrixLayoutRowMajor)

/* ---- products ---- */

uint score_quad(uint area, uint row) { return (area * BLOCK + row) * SLINE; }

/* Area `area` = rows x of the block times rows of a tile, for the subgroup's columns. */
#define SCORES(area, x, tile)                                                                      \
    [[unroll]] for (uint c_ = 0u; c_ < STRIPE / MAT_N; c_++) {                                     \
        MATRIX_SUM s_ = MATRIX_SUM(0.0);                                                           \
        [[unroll]] for (uint k_ = 0u; k_ < D / MAT_K; k_++) {                                      \
            MATRIX_B z_;                                                                           \
            coopMatLoad(z_, staged4,                                                               \
                        tile + (across() * STRIPE + c_ * MAT_N) * LINE + k_ * (MAT_K / 8u), LINE,  \
                        gl_CooperativeMatrixLayoutColumnMajor);                                    \
            s_ = coopMatMulAdd(x[k_], z_, s_);                                                     \
        }                                                                                          \
        coopMatStore(s_, scores,                                                                   \
                     score_quad(area, down() * MAT_M) + (across() * STRIPE + c_ * MAT_N) / 4u,     \
                     SLINE, gl_CooperativeMatrixLayoutRowMajor);                                   \
    }
/* sum += operands of an area times rows of a tile, which was turned, for the subgroup's columns of the
 * output. */
#define ADD_TILE(sum, area, turned)                                                                \
    [[unroll]] for (uint k_ = 0u; k_ < TILE / MAT_K; k_++) {                                       \
        MATRIX_A x_;                                                                               \
        coopMatLoad(x_, scores, score_quad(area, down() * MAT_M) + k_ * (MAT_K / 8u), SLINE,       \
                    gl_CooperativeMatrixLayoutRowMajor);                                           \
        [[unroll]] for (uint c_ = 0u; c_ < OWN_D / MAT_N; c_++) {                                  \
            MATRIX_B z_;                                                                           \
            coopMatLoad(z_, staged4,                                                               \
                        turned + (across() * OWN_D + c_ * MAT_N) * TURNED_LINE + k_ * (MAT_K / 8u), \
                        TURNED_LINE, gl_CooperativeMatrixLayoutColumnMajor);                       \
            sum[c_] = coopMatMulAdd(x_, z_, sum[c_]);                                              \
        }                                                                                          \
    }
#define ZERO_SUMS(sum) [[unroll]] for (uint c_ = 0u; c_ < OWN_D / MAT_N; c_++) sum[c_] = MATRIX_SUM(0.0)
#define SCALE_SUMS(sum, by) [[unroll]] for (uint c_ = 0u; c_ < OWN_D / MAT_N; c_++) sum[c_] = sum[c_] * (by)

/* ---- lanes ---- */

/* Four number i of the lane's scores in an area, row by row. */
vec4 scores_at(uint area, uint i) {
    return uintBitsToFloat(scores[score_quad(area, lane_row(i / FOURS)) + lane_col() / 4u + i % FOURS]);
}
/* Runs `statement` for every element c_ of four i_: column `col` of those of the lane, of its row r. */
#define FOR_SCORES(statement)                                                                      \
    [[unroll]] for (uint i_ = 0u; i_ < ROWS * FOURS; i_++) {                                       \
        [[unroll]] for (uint c_ = 0u; c_ < 4u; c_++) {                                             \
            uint r = i_ / FOURS, col = i_ % FOURS * 4u + c_;                                       \
            statement                                                                              \
        }                                                                                          \
    }

/* All have read the scores; the top of x, which follows them there, is that of all who share the rows. */
#define SETTLE(x, top)                                                                             \
    {                                                                                              \
        if (LIFTS) {                                                                               \
            uint e_ = 0u;                                                                          \
            [[unroll]] for (uint i_ = 0u; i_ < ROWS * FOURS; i_++) e_ = max(e_, exponent(x[i_]));  \
            e_ = subgroupMax(e_);                                                                  \
            if (subgroupElect()) atomicMax(row_tops[down()], e_);                                  \
        }                                                                                          \
        meet();                                                                                    \
        if (LIFTS) top = max(top, int(row_tops[down()]));                                          \
    }
/* The lane's x as operands in place of the scores, times `by`. */
#define PUT_OPERANDS(area, x, by)                                                                  \
    [[unroll]] for (uint i_ = 0u; i_ < ROWS * EIGHTS; i_++)                                        \
        if (is_row(i_ / EIGHTS))                                                                   \
            scores[score_quad(area, lane_row(i_ / EIGHTS)) + lane_col() / 8u + i_ % EIGHTS] =      \
                eight(x[2u * i_], x[2u * i_ + 1u], by)

/* Four elements of an fp32 output, from element `at` on. */
void store_four(uvec2 addr, uint at, vec4 y) {
    [[unroll]] for (uint i = 0u; i < 4u; i++) y[i] = vkm_canon(y[i]);
    vkm_store4(addr, at / 4u, floatBitsToUint(y));
}
/* Runs `statement` for every four outputs of the lane: y, columns d to d + 3 of its row r. */
#define FOR_OUTPUTS(sum, statement)                                                                \
    [[unroll]] for (uint c_ = 0u; c_ < OWN_D / STRIPE; c_++) {                                     \
        meet();                                                                                    \
        [[unroll]] for (uint n_ = 0u; n_ < STRIPE / MAT_N; n_++)                                   \
            coopMatStore(sum[c_ * (STRIPE / MAT_N) + n_], scores,                                  \
                         score_quad(0u, down() * MAT_M) + (across() * STRIPE + n_ * MAT_N) / 4u,   \
                         SLINE, gl_CooperativeMatrixLayoutRowMajor);                               \
        meet();                                                                                    \
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {                                              \
            [[unroll]] for (uint q_ = 0u; q_ < FOURS; q_++) {                                      \
                uint d = across() * OWN_D + c_ * STRIPE + lane_part() * COLS + 4u * q_;            \
                vec4 y = scores_at(0u, r * FOURS + q_);                                            \
                statement;                                                                         \
            }                                                                                      \
        }                                                                                          \
    }
