/* The attention kernels of the fast tier, by cooperative matrices (matrix.glsl). A workgroup takes a block
 * of rows against tiles of TILE rows of the other side. Subgroups stand ACROSS by DOWN: each has MAT_M rows
 * of the block, whose operands it keeps in matrices, and a part of the columns, of a tile's scores and of
 * the outputs. What a score becomes (a weight, a gradient) its lane works out of workgroup memory, where
 * it then lies as an operand of the second product. Head dimensions are multiples of 32 up to 128.
 *
 * The includer defines AREAS, the scores that a pair of rows has: one, or two. */
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
const uint LOADS = (TILE * DQ + LOCAL - 1u) / LOCAL;

shared uvec4 near4[TILE * LINE], far4[TILE * LINE]; /* two operands of a tile's rows */
shared uvec4 scores[AREAS * BLOCK * SLINE];         /* fp32 sums; then operands, from the rows' begin on */
shared uint row_tops[DOWN];                         /* of those operands */

/* Lanes take the scores of their subgroup row by row, PARTS of them a row, in whole eights. */
const uint MOST_PARTS = STRIPE / 8u, ROW_LANES = SUBGROUP < MAT_M ? 1u : SUBGROUP / MAT_M;
const uint PARTS = ROW_LANES < MOST_PARTS ? ROW_LANES : MOST_PARTS;
const uint COLS = STRIPE / PARTS, EIGHTS = COLS / 8u;
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
/* Column c of the lane in the tile. */
uint lane_col(uint c) { return across() * STRIPE + lane_part() * COLS + c; }

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

/* next = the rows of a tile; row_quad(i): the four words that row i begins with. */
#define FETCH(next, addr, row_quad)                                                                \
    [[unroll]] for (uint n_ = 0u; n_ < LOADS; n_++) {                                              \
        uint at_ = min(gl_LocalInvocationID.x + n_ * LOCAL, TILE * DQ - 1u);                       \
        next[n_] = vkm_words4(addr, row_quad(at_ / DQ) + at_ % DQ);                                \
    }
#define PUT(to, next, top)                                                                         \
    [[unroll]] for (uint n_ = 0u; n_ < LOADS; n_++) {                                              \
        uint at_ = gl_LocalInvocationID.x + n_ * LOCAL;                                            \
        if (at_ < TILE * DQ) to[at_ / DQ * LINE + at_ % DQ] = elements(next[n_], lift(top));       \
    }
/* Stages both operands of a tile when all are done with the last one. */
#define STAGE(next_near, next_far, near_top, far_top)                                              \
    {                                                                                              \
        if (LIFTS) {                                                                               \
            uint e_ = 0u, f_ = 0u;                                                                 \
            [[unroll]] for (uint n_ = 0u; n_ < LOADS; n_++) {                                      \
                e_ = max(e_, exponent(next_near[n_]));                                             \
                f_ = max(f_, exponent(next_far[n_]));                                              \
            }                                                                                      \
            note_tops(e_, f_);                                                                     \
        }                                                                                          \
        barrier();                                                                                 \
        if (LIFTS) read_tops(near_top, far_top);                                                   \
        PUT(near4, next_near, near_top);                                                           \
        PUT(far4, next_far, far_top);                                                              \
        barrier();                                                                                 \
    }
/* x = the subgroup's rows of an operand of the block, which pass through the tiles' place. */
#define TAKE_BLOCK(x, addr, row_quad, top)                                                         \
    for (piece = 0u; piece < BLOCK; piece += TILE) {                                               \
        int top_ = NO_TOP, same_ = NO_TOP;                                                         \
        FETCH(next_near, addr, row_quad);                                                          \
        STAGE(next_near, next_near, top_, same_);                                                  \
        if (down() * MAT_M / TILE == piece / TILE) {                                               \
            top = top_;                                                                            \
            [[unroll]] for (uint k_ = 0u; k_ < D / MAT_K; k_++)                                    \
                coopMatLoad(x[k_], near4, down() * MAT_M % TILE * LINE + k_ * (MAT_K / 8u), LINE,  \
                            gl_CooperativeMatrixLayoutRowMajor);                                   \
        }                                                                                          \
    }

/* ---- products ---- */

uint score_quad(uint area, uint row) { return (area * BLOCK + row) * SLINE; }

/* Area `area` = rows x of the block times rows of a tile, for the subgroup's columns. */
#define SCORES(area, x, tile_)                                                                     \
    [[unroll]] for (uint c_ = 0u; c_ < STRIPE / MAT_N; c_++) {                                     \
        MATRIX_SUM s_ = MATRIX_SUM(0.0);                                                           \
        [[unroll]] for (uint k_ = 0u; k_ < D / MAT_K; k_++) {                                      \
            MATRIX_B z_;                                                                           \
            coopMatLoad(z_, tile_, (across() * STRIPE + c_ * MAT_N) * LINE + k_ * (MAT_K / 8u),    \
                        LINE, gl_CooperativeMatrixLayoutColumnMajor);                              \
            s_ = coopMatMulAdd(x[k_], z_, s_);                                                     \
        }                                                                                          \
        coopMatStore(s_, scores,                                                                   \
                     score_quad(area, down() * MAT_M) + (across() * STRIPE + c_ * MAT_N) / 4u,     \
                     SLINE, gl_CooperativeMatrixLayoutRowMajor);                                   \
    }
/* sum += operands of an area times rows of a tile, for the subgroup's columns of the output. */
#define ADD_TILE(sum, area, tile_)                                                                 \
    [[unroll]] for (uint k_ = 0u; k_ < TILE / MAT_K; k_++) {                                       \
        MATRIX_A x_;                                                                               \
        coopMatLoad(x_, scores, score_quad(area, down() * MAT_M) + k_ * (MAT_K / 8u), SLINE,       \
                    gl_CooperativeMatrixLayoutRowMajor);                                           \
        [[unroll]] for (uint c_ = 0u; c_ < OWN_D / MAT_N; c_++) {                                  \
            MATRIX_B z_;                                                                           \
            coopMatLoad(z_, tile_, k_ * MAT_K * LINE + (across() * OWN_D + c_ * MAT_N) / 8u, LINE, \
                        gl_CooperativeMatrixLayoutRowMajor);                                       \
            sum[c_] = coopMatMulAdd(x_, z_, sum[c_]);                                              \
        }                                                                                          \
    }
#define ZERO_SUMS(sum) [[unroll]] for (uint c_ = 0u; c_ < OWN_D / MAT_N; c_++) sum[c_] = MATRIX_SUM(0.0)
#define SCALE_SUMS(sum, by) [[unroll]] for (uint c_ = 0u; c_ < OWN_D / MAT_N; c_++) sum[c_] = sum[c_] * (by)

/* ---- lanes ---- */

/* Column c of the lane's row r in an area of scores, whose operands have these tops. */
float score_at(uint area, uint r, uint c, int x_top, int z_top) {
    uint quad = score_quad(area, lane_row(r)) + lane_col(c) / 4u;
    return uintBitsToFloat(scores[quad][c % 4u]) * unit(x_top) * unit(z_top);
}
/* The weight of a score in the backward pass, by the device's exp. */
float weight_at(uint area, uint r, uint c, int x_top, int z_top, float scale, float m, float inv_l) {
    return exp(score_at(area, r, c, x_top, z_top) * scale - m) * inv_l;
}
uvec4 eight(vec4 x, vec4 y) {
    return uvec4(vkm_bf16_pair(x.x, x.y), vkm_bf16_pair(x.z, x.w), vkm_bf16_pair(y.x, y.y),
                 vkm_bf16_pair(y.z, y.w));
}

/* All have read the scores; the top of what follows them there is that of all who share the rows. */
#define SETTLE(words, top)                                                                         \
    {                                                                                              \
        if (LIFTS) {                                                                               \
            uint e_ = 0u;                                                                          \
            [[unroll]] for (uint i_ = 0u; i_ < ROWS * EIGHTS; i_++)                                \
                e_ = max(e_, exponent(words[i_]));                                                 \
            e_ = subgroupMax(e_);                                                                  \
            if (subgroupElect()) atomicMax(row_tops[down()], e_);                                  \
        }                                                                                          \
        meet();                                                                                    \
        if (LIFTS) top = max(top, int(row_tops[down()]));                                          \
    }
/* Eights of columns of the lane's rows, as operands in place of the scores. */
#define PUT_OPERANDS(area, words, by)                                                              \
    [[unroll]] for (uint i_ = 0u; i_ < ROWS * EIGHTS; i_++)                                        \
        if (is_row(i_ / EIGHTS))                                                                   \
            scores[score_quad(area, lane_row(i_ / EIGHTS)) + lane_col(0u) / 8u + i_ % EIGHTS] =    \
                elements(words[i_], by)

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
            [[unroll]] for (uint q_ = 0u; q_ < COLS / 4u; q_++) {                                  \
                uint d = across() * OWN_D + c_ * STRIPE + lane_part() * COLS + 4u * q_;            \
                vec4 y = uintBitsToFloat(                                                          \
                    scores[score_quad(0u, lane_row(r)) + lane_col(4u * q_) / 4u]);                 \
                statement;                                                                         \
            }                                                                                      \
        }                                                                                          \
    }
