/* The fast tier's tile, by cooperative matrices (VK_KHR_cooperative_matrix) of MAT_M x MAT_N x MAT_K,
 * products summed in fp32 in the device's own order. Subgroups stand ACROSS by DOWN; each holds
 * TILE_ROWS x TILE_COLS matrices of outputs. Operands are staged in workgroup memory row by row,
 * TILE_STEP words of K at a time, while the next ones are on their way to registers.
 *
 * Operands are bf16. Where the device multiplies fp16 instead, a stage's operands are scaled by a power
 * of two so that the largest seen so far lies in [2^14, 2^15); sums follow when it grows. What is 2^28
 * below the largest of its tile begins to lose bits. */
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#ifdef VKM_FORM_HALF
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define ELEMENT float16_t
#else
#extension GL_EXT_bfloat16 : require
#define ELEMENT bfloat16_t
#endif

layout(constant_id = 1) const uint TILE_ROWS = 2; /* matrices of a subgroup along M */
layout(constant_id = 2) const uint TILE_COLS = 2;
layout(constant_id = 3) const uint TILE_N = 32;     /* outputs of an invocation: a multiple of 4 a matrix */
layout(constant_id = 4) const uint TILE_ACROSS = 1; /* subgroups along N */
layout(constant_id = 5) const uint TILE_STEP = 8;   /* words of K: a multiple of MAT_K / 2 */
layout(constant_id = 6) const uint MAT_M = 8;
layout(constant_id = 7) const uint MAT_N = 8;
layout(constant_id = 8) const uint MAT_K = 8;
layout(constant_id = 9) const uint SUBGROUP = 8; /* invocations */
const uint TILE_ROW_N = 4u;

const uint DOWN = gl_WorkGroupSize.x / SUBGROUP / TILE_ACROSS;
const uint A_ROWS = DOWN * TILE_ROWS * MAT_M, B_ROWS = TILE_ACROSS * TILE_COLS * MAT_N;
const uint LINE = TILE_STEP + 4u; /* a row as staged: neighbours meet different banks */
const uint A_LOADS = (A_ROWS / 4u * TILE_STEP + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;
const uint B_LOADS = (B_ROWS / 4u * TILE_STEP + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;
const uint OWN = MAT_M * MAT_N / SUBGROUP; /* outputs of an invocation in a matrix */
shared uint staged_a[A_ROWS * LINE], staged_b[B_ROWS * LINE];
shared float results[gl_WorkGroupSize.x * OWN];
#ifdef VKM_FORM_HALF
shared uint top[4]; /* largest exponents of a stage of A and B, of two stages by turns */
#endif

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

/* Four words of an operand, as in tile_shared.glsl; what lies beyond the stage's rows is zero. */
uvec4 fetch(vkm_operand o, uint panel, uint rows, uint q, uint w, uint words) {
    uint p = panel + q / (4u * TILE_STEP), k2 = w + q / 4u % TILE_STEP;
    uint at = min(p, (o.rows - 1u) / 16u) * (o.kp / 2u) + o.k2 + min(k2, words - 1u);
    uvec4 x = vkm_words4(o.addr, at * 4u + q % 4u);
    return k2 < words && q < rows / 4u * TILE_STEP ? x : uvec4(0u);
}
/* Where word 0 of four goes: the others follow a row each. */
uint place(uint q) {
    return (q / (4u * TILE_STEP) * 16u + q % 4u * 4u) * LINE + q / 4u % TILE_STEP;
}

#ifdef VKM_FORM_HALF
uint exponent(uvec4 x) {
    uvec4 e = max(x >> 7u & 0xffu, x >> 23u & 0xffu);
    return max(max(e.x, e.y), max(e.z, e.w));
}
/* 2^(field - 127) for a field of 1 to 254, 0 below. */
float power(int field) {
    return vkm_from_bits(uint(max(field, 0)) << 23);
}
/* Exact but for what lies 2^28 below the largest, which a driver rounds as it likes: fast tier only. */
uint element_pair(uint word, float scale) {
    return packHalf2x16(vec2(vkm_bf16_lo(word) * scale, vkm_bf16_hi(word) * scale));
}
#else
uint element_pair(uint word, float scale) {
    return word;
}
#endif

void vkm_tile_rule4(vkm_operand a, vkm_operand b, uint k, out float y[TILE_N]) {
    coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator> sum[TILE_ROWS * TILE_COLS];
    uvec4 next_a[A_LOADS], next_b[B_LOADS];
    uint id = gl_LocalInvocationID.x, words = k / 2u, slot = 0u;
    uint a_panel = gl_WorkGroupID.y * A_ROWS / 16u, b_panel = gl_WorkGroupID.x * B_ROWS / 16u;
    uint a_row = gl_SubgroupID / TILE_ACROSS * TILE_ROWS * MAT_M;
    uint b_row = gl_SubgroupID % TILE_ACROSS * TILE_COLS * MAT_N;
    float a_scale = 1.0, b_scale = 1.0;
    [[unroll]] for (uint i = 0u; i < TILE_N; i++) y[i] = 0.0;
    if (k == 0u) return;
    [[unroll]] for (uint i = 0u; i < TILE_ROWS * TILE_COLS; i++)
        sum[i] = coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>(0.0);
    [[unroll]] for (uint l = 0u; l < A_LOADS; l++)
        next_a[l] = fetch(a, a_panel, A_ROWS, id + l * gl_WorkGroupSize.x, 0u, words);
    [[unroll]] for (uint l = 0u; l < B_LOADS; l++)
        next_b[l] = fetch(b, b_panel, B_ROWS, id + l * gl_WorkGroupSize.x, 0u, words);
#ifdef VKM_FORM_HALF
    int a_top = 32, b_top = 32; /* exponents of the scales; bf16 operands have none below 77 */
    barrier();                  /* the last call's have been read */
    if (id < 4u) top[id] = 0u;
    barrier();
#endif
    for (uint w = 0u; w < words; w += TILE_STEP) {
#ifdef VKM_FORM_HALF
        uint ea = 0u, eb = 0u;
        [[unroll]] for (uint l = 0u; l < A_LOADS; l++) ea = max(ea, exponent(next_a[l]));
        [[unroll]] for (uint l = 0u; l < B_LOADS; l++) eb = max(eb, exponent(next_b[l]));
        ea = subgroupMax(ea);
        eb = subgroupMax(eb);
        if (subgroupElect()) {
            atomicMax(top[2u * slot], ea);
            atomicMax(top[2u * slot + 1u], eb);
        }
#endif
        barrier(); /* the last stage has been read */
#ifdef VKM_FORM_HALF
        int a_new = max(a_top, int(top[2u * slot])), b_new = max(b_top, int(top[2u * slot + 1u]));
        slot ^= 1u;
        if (id < 2u) top[2u * slot + id] = 0u;
        if (a_new > a_top || b_new > b_top) {
            float shrink = power(127 + a_top - a_new) * power(127 + b_top - b_new);
            [[unroll]] for (uint i = 0u; i < TILE_ROWS * TILE_COLS; i++) sum[i] = sum[i] * shrink;
            a_top = a_new;
            b_top = b_new;
        }
        a_scale = power(268 - a_top); /* 2^(14 + 127 - top) */
        b_scale = power(268 - b_top);
#endif
        [[unroll]] for (uint l = 0u; l < A_LOADS; l++) {
            uint q = id + l * gl_WorkGroupSize.x;
            if (q < A_ROWS / 4u * TILE_STEP) {
                [[unroll]] for (uint i = 0u; i < 4u; i++)
                    staged_a[place(q) + i * LINE] = element_pair(next_a[l][i], a_scale);
            }
        }
        [[unroll]] for (uint l = 0u; l < B_LOADS; l++) {
            uint q = id + l * gl_WorkGroupSize.x;
            if (q < B_ROWS / 4u * TILE_STEP) {
                [[unroll]] for (uint i = 0u; i < 4u; i++)
                    staged_b[place(q) + i * LINE] = element_pair(next_b[l][i], b_scale);
            }
        }
        barrier();
        [[unroll]] for (uint l = 0u; l < A_LOADS; l++)
            next_a[l] = fetch(a, a_panel, A_ROWS, id + l * gl_WorkGroupSize.x, w + TILE_STEP, words);
        [[unroll]] for (uint l = 0u; l < B_LOADS; l++)
            next_b[l] = fetch(b, b_panel, B_ROWS, id + l * gl_WorkGroupSize.x, w + TILE_STEP, words);
        [[unroll]] for (uint s = 0u; s < TILE_STEP; s += MAT_K / 2u) {
            coopmat<ELEMENT, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA> x[TILE_ROWS];
            [[unroll]] for (uint r = 0u; r < TILE_ROWS; r++)
                coopMatLoad(x[r], staged_a, (a_row + r * MAT_M) * LINE + s, LINE,
                            gl_CooperativeMatrixLayoutRowMajor);
            [[unroll]] for (uint c = 0u; c < TILE_COLS; c++) {
                coopmat<ELEMENT, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB> z;
                coopMatLoad(z, staged_b, (b_row + c * MAT_N) * LINE + s, LINE,
                            gl_CooperativeMatrixLayoutColumnMajor);
                [[unroll]] for (uint r = 0u; r < TILE_ROWS; r++)
                    sum[r * TILE_COLS + c] = coopMatMulAdd(x[r], z, sum[r * TILE_COLS + c]);
            }
        }
    }
    uint mine = gl_SubgroupID * MAT_M * MAT_N;
    [[unroll]] for (uint i = 0u; i < TILE_ROWS * TILE_COLS; i++) {
        coopMatStore(sum[i], results, mine, MAT_N, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        [[unroll]] for (uint e = 0u; e < OWN; e++) y[i * OWN + e] = results[mine + own_element(e)];
        subgroupBarrier();
    }
#ifdef VKM_FORM_HALF
    [[unroll]] for (uint i = 0u; i < TILE_N; i++)
        y[i] = y[i] * power(a_top - 14) * power(b_top - 14); /* 2^(top - 141) each */
#endif
}
