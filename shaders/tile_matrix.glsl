/* The fast tier's tile, by cooperative matrices (matrix.glsl). Subgroups stand ACROSS by DOWN; each holds
 * TILE_ROWS x TILE_COLS matrices of outputs. Operands are staged in workgroup memory row by row,
 * TILE_STEP words of K at a time, while the next ones are on their way to registers. Their tops are the
 * largest seen so far; sums follow when one grows. */
#include "matrix.glsl"

layout(constant_id = 1) const uint TILE_ROWS = 2; /* matrices of a subgroup along M */
layout(constant_id = 2) const uint TILE_COLS = 2;
layout(constant_id = 3) const uint TILE_N = 32;     /* outputs of an invocation: a multiple of 4 a matrix */
layout(constant_id = 4) const uint TILE_ACROSS = 1; /* subgroups along N */
layout(constant_id = 5) const uint TILE_STEP = 8;   /* words of K: a multiple of MAT_K / 2 */
const uint TILE_ROW_N = 4u;

const uint LOCAL = gl_WorkGroupSize.x;
const uint DOWN = LOCAL / SUBGROUP / TILE_ACROSS;
const uint TILE_HEIGHT = DOWN * TILE_ROWS * MAT_M;
const uint A_ROWS = TILE_HEIGHT, B_ROWS = TILE_ACROSS * TILE_COLS * MAT_N;
const uint LINE = TILE_STEP + 4u; /* a row as staged: neighbours meet different banks */
const uint A_LOADS = (A_ROWS / 4u * TILE_STEP + LOCAL - 1u) / LOCAL;
const uint B_LOADS = (B_ROWS / 4u * TILE_STEP + LOCAL - 1u) / LOCAL;
const uint OWN = MAT_M * MAT_N / SUBGROUP; /* outputs of an invocation in a matrix */
shared uint staged_a[A_ROWS * LINE], staged_b[B_ROWS * LINE];
shared vec4 results[LOCAL * OWN / 4u];

/* Element of its matrix that is output e of this invocation. */
uint own_element(uint e) {
    return (e / 4u * SUBGROUP + gl_SubgroupInvocationID) * 4u + e % 4u;
}
uint vkm_tile_i(uint at) {
    uint r = gl_SubgroupID / TILE_ACROSS * TILE_ROWS + at / OWN / TILE_COLS;
    return gl_WorkGroupID.y * A_ROWS + r * MAT_M + own_element(at % OWN) / MAT_N;
}
uint vkm_tile_j(uint at) {
    uint c = gl_SubgroupID % TILE_ACROSS * TILE_COLS + at / OWN % TILE_COLS;
    return gl_WorkGroupID.x * B_ROWS + c * MAT_N + own_element(at % OWN) % MAT_N;
}

/* Where four words of an operand lie, number q of the first stage in the order of tile_shared.glsl. */
uvec2 first_place(vkm_operand o, uint panel, uint q) {
    uint p = min(panel + q / (4u * TILE_STEP), (o.rows - 1u) / 16u);
    return vkm_address(o.addr, ((p * (o.kp / 2u) + o.k2 + q / 4u % TILE_STEP) * 4u + q % 4u) * 4u);
}
/* next = a stage's words; the last stage may reach beyond K, by less than the padding of an arena. */
#define FETCH(next, from)                                                                          \
    [[unroll]] for (uint l = 0u; l < next.length(); l++) {                                         \
        next[l] = vkm_words4(from[l], 0u);                                                         \
        from[l] = vkm_address(from[l], 16u * TILE_STEP);                                           \
    }
/* Zeros in place of words from number `end` of the stage on. */
#define CUT(next, end)                                                                             \
    [[unroll]] for (uint l = 0u; l < next.length(); l++)                                           \
        if ((id + l * LOCAL) / 4u % TILE_STEP >= end) next[l] = uvec4(0u);
/* Where word 0 of four goes: the others follow a row each. Invocations and steps are powers of two, so that
 * place(q + l * LOCAL) is a constant away for every q < LOCAL. */
uint place(uint q) {
    return (q / (4u * TILE_STEP) * 16u + q % 4u * 4u) * LINE + q / 4u % TILE_STEP;
}
#define STAGE(to, next, rows, by)                                                                  \
    [[unroll]] for (uint l = 0u; l < next.length(); l++)                                           \
        if (rows / 4u * TILE_STEP % LOCAL == 0u || id + l * LOCAL < rows / 4u * TILE_STEP) {       \
            [[unroll]] for (uint i = 0u; i < 4u; i++)                                              \
                to[at + place(l * LOCAL) + i * LINE] = element_pair(next[l][i], by);               \
        }

void vkm_tile_add(vkm_operand a, vkm_operand b, uint k, inout float y[TILE_N]) {
    MATRIX_SUM sum[TILE_ROWS * TILE_COLS];
    uvec4 next_a[A_LOADS], next_b[B_LOADS];
    uvec2 from_a[A_LOADS], from_b[B_LOADS];
    uint id = gl_LocalInvocationID.x, at = place(id), words = k / 2u;
    uint a_panel = gl_WorkGroupID.y * A_ROWS / 16u, b_panel = gl_WorkGroupID.x * B_ROWS / 16u;
    uint a_row = gl_SubgroupID / TILE_ACROSS * TILE_ROWS * MAT_M;
    uint b_row = gl_SubgroupID % TILE_ACROSS * TILE_COLS * MAT_N;
    int a_top = NO_TOP, b_top = NO_TOP;
    if (k == 0u) return;
    [[unroll]] for (uint i = 0u; i < TILE_ROWS * TILE_COLS; i++) sum[i] = MATRIX_SUM(0.0);
    [[unroll]] for (uint l = 0u; l < A_LOADS; l++)
        from_a[l] = first_place(a, a_panel, min(id + l * LOCAL, A_ROWS / 4u * TILE_STEP - 1u));
    [[unroll]] for (uint l = 0u; l < B_LOADS; l++)
        from_b[l] = first_place(b, b_panel, min(id + l * LOCAL, B_ROWS / 4u * TILE_STEP - 1u));
    FETCH(next_a, from_a)
    FETCH(next_b, from_b)
    if (LIFTS) {
        barrier(); /* the last call's have been read */
        clear_tops();
        barrier();
    }
    for (uint w = 0u; w < words; w += TILE_STEP) {
        if (w + TILE_STEP > words) {
            CUT(next_a, words - w)
            CUT(next_b, words - w)
        }
        if (LIFTS) {
            uint ea = 0u, eb = 0u;
            [[unroll]] for (uint l = 0u; l < A_LOADS; l++) ea = max(ea, exponent(next_a[l]));
            [[unroll]] for (uint l = 0u; l < B_LOADS; l++) eb = max(eb, exponent(next_b[l]));
            note_tops(ea, eb);
        }
        barrier(); /* the last stage has been read */
        if (LIFTS) {
            int a_old = a_top, b_old = b_top;
            read_tops(a_top, b_top);
            if (a_top > a_old || b_top > b_old) {
                float by = shrink(a_old, a_top) * shrink(b_old, b_top);
                [[unroll]] for (uint i = 0u; i < TILE_ROWS * TILE_COLS; i++) sum[i] = sum[i] * by;
            }
        }
        float a_lift = lift(a_top), b_lift = lift(b_top);
        STAGE(staged_a, next_a, A_ROWS, a_lift)
        STAGE(staged_b, next_b, B_ROWS, b_lift)
        barrier();
        if (w + TILE_STEP < words) {
            FETCH(next_a, from_a)
            FETCH(next_b, from_b)
        }
        [[unroll]] for (uint s = 0u; s < TILE_STEP; s += MAT_K / 2u) {
            MATRIX_A x[TILE_ROWS];
            [[unroll]] for (uint r = 0u; r < TILE_ROWS; r++)
                coopMatLoad(x[r], staged_a, (a_row + r * MAT_M) * LINE + s, LINE,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint c = 0u; c < TILE_COLS; c++) {
                MATRIX_B z;
                coopMatLoad(z, staged_b, (b_row + c * MAT_N) * LINE + s, LINE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint r = 0u; r < TILE_ROWS; r++)
                    sum[r * TILE_COLS + c] = coopMatMulAdd(x[r], z, sum[r * TILE_COLS + c]);
            }
        }
    }
    uint mine = gl_SubgroupID * (MAT_M * MAT_N / 4u);
    float sums[TILE_N];
    [[unroll]] for (uint i = 0u; i < TILE_ROWS * TILE_COLS; i++) {
        coopMatStore(sum[i], results, mine, MAT_N / 4u, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        [[unroll]] for (uint e = 0u; e < OWN; e += 4u) {
            vec4 four = results[mine + own_element(e) / 4u] * unit(a_top) * unit(b_top);
            [[unroll]] for (uint l = 0u; l < 4u; l++) sums[i * OWN + e + l] = four[l];
        }
        subgroupBarrier();
    }
    VKM_TAKE_SUMS(y, sums)
}
