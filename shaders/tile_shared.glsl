/* A tile through workgroup memory: the group stages TILE_STEP words of K of all its rows and columns in
 * fp32, so that a word is taken apart once, while the next ones are on their way to registers; every
 * invocation computes TILE_ROWS x TILE_COLS outputs from there. Invocations stand ACROSS by DOWN; one's
 * rows and columns come in fours that lie DOWN and ACROSS fours apart, so that neighbours read
 * neighbouring words. */
layout(constant_id = 1) const uint TILE_ROWS = 8;    /* of an invocation: a multiple of 4 */
layout(constant_id = 2) const uint TILE_COLS = 8;    /* a multiple of 4 */
layout(constant_id = 3) const uint TILE_N = 64;      /* their product */
layout(constant_id = 4) const uint TILE_ACROSS = 16; /* invocations along N */
layout(constant_id = 5) const uint TILE_STEP = 8;    /* words of K: 4, 8 or 16 */
const uint TILE_ROW_N = TILE_COLS;

const uint DOWN = gl_WorkGroupSize.x / TILE_ACROSS;
const uint TILE_HEIGHT = DOWN * TILE_ROWS;
/* Fours of rows and columns of the group; as staged, one k after the other, with a gap so that two words'
 * first elements meet different banks. */
const uint A4 = DOWN * TILE_ROWS / 4u, B4 = TILE_ACROSS * TILE_COLS / 4u;
const uint A_LINE = A4 + 2u, B_LINE = B4 + 2u;
const uint A_LOADS = (A4 * TILE_STEP + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;
const uint B_LOADS = (B4 * TILE_STEP + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;
shared vec4 staged_a[4u * TILE_STEP * A_LINE], staged_b[4u * TILE_STEP * B_LINE]; /* two stages */

uint vkm_tile_i(uint at) {
    uint r = at / TILE_COLS, down = gl_LocalInvocationID.x / TILE_ACROSS;
    return ((gl_WorkGroupID.y * (TILE_ROWS / 4u) + r / 4u) * DOWN + down) * 4u + r % 4u;
}
uint vkm_tile_j(uint at) {
    uint c = at % TILE_COLS, across = gl_LocalInvocationID.x % TILE_ACROSS;
    return ((gl_WorkGroupID.x * (TILE_COLS / 4u) + c / 4u) * TILE_ACROSS + across) * 4u + c % 4u;
}

/* Four words of an operand from word w on of K, zero from `words` on: number q of a stage, in the
 * order in which a panel lies in memory. panel: the group's first. */
uvec4 fetch(vkm_operand o, uint panel, uint q, uint w, uint words) {
    uint p = min(panel + q / (4u * TILE_STEP), (o.rows - 1u) / 16u), k2 = w + q / 4u % TILE_STEP;
    uvec4 x = vkm_words4(o.addr, (p * (o.kp / 2u) + o.k2 + min(k2, words - 1u)) * 4u + q % 4u);
    return k2 < words ? x : uvec4(0u);
}
/* Where the first elements of its words go; the second ones go a line further. */
uint place(uint q, uint line) {
    return q / 4u % TILE_STEP * 2u * line + q / (4u * TILE_STEP) * 4u + q % 4u;
}
vec4 first_of(uvec4 words) {
    return uintBitsToFloat(words << 16);
}
vec4 second_of(uvec4 words) {
    return uintBitsToFloat(words & 0xffff0000u);
}

void vkm_tile_add(vkm_operand a, vkm_operand b, uint k, inout precise float y[TILE_N]) {
    precise float sum[TILE_N];
    uvec4 next_a[A_LOADS], next_b[B_LOADS];
    uint id = gl_LocalInvocationID.x, across = id % TILE_ACROSS, down = id / TILE_ACROSS;
    uint a_panel = gl_WorkGroupID.y * (A4 / 4u), b_panel = gl_WorkGroupID.x * (B4 / 4u);
    uint words = k / 2u;
    if (k == 0u) return;
    [[unroll]] for (uint l = 0u; l < A_LOADS; l++)
        next_a[l] = fetch(a, a_panel, id + l * gl_WorkGroupSize.x, 0u, words);
    [[unroll]] for (uint l = 0u; l < B_LOADS; l++)
        next_b[l] = fetch(b, b_panel, id + l * gl_WorkGroupSize.x, 0u, words);
    barrier(); /* the last call's stages have been read */
    for (uint w0 = 0u; w0 < words; w0 += 128u) { /* a chunk of 256 */
        [[unroll]] for (uint i = 0u; i < TILE_N; i++) sum[i] = 0.0;
        uint end = min(w0 + 128u, words);
        for (uint w = w0; w < end; w += TILE_STEP) {
            /* who writes a stage has passed a barrier after all had read it; a remainder's bound lets
             * compilers fold what is constant of a place into the load */
            uint stage = w / TILE_STEP % 2u;
            uint a_at = stage * 2u * TILE_STEP * A_LINE, b_at = stage * 2u * TILE_STEP * B_LINE;
            uint a_from = a_at + down, b_from = b_at + across;
            [[unroll]] for (uint l = 0u; l < A_LOADS; l++) {
                uint q = id + l * gl_WorkGroupSize.x, to = a_at + place(q, A_LINE);
                if (q >= A4 * TILE_STEP) continue;
                staged_a[to] = first_of(next_a[l]);
                staged_a[to + A_LINE] = second_of(next_a[l]);
            }
            [[unroll]] for (uint l = 0u; l < B_LOADS; l++) {
                uint q = id + l * gl_WorkGroupSize.x, to = b_at + place(q, B_LINE);
                if (q >= B4 * TILE_STEP) continue;
                staged_b[to] = first_of(next_b[l]);
                staged_b[to + B_LINE] = second_of(next_b[l]);
            }
            barrier();
            [[unroll]] for (uint l = 0u; l < A_LOADS; l++)
                next_a[l] = fetch(a, a_panel, id + l * gl_WorkGroupSize.x, w + TILE_STEP, words);
            [[unroll]] for (uint l = 0u; l < B_LOADS; l++)
                next_b[l] = fetch(b, b_panel, id + l * gl_WorkGroupSize.x, w + TILE_STEP, words);
            [[unroll]] for (uint s = 0u; s < 2u * TILE_STEP; s++) {
                vec4 x4[TILE_ROWS / 4u], z4[TILE_COLS / 4u];
                [[unroll]] for (uint r = 0u; r < TILE_ROWS / 4u; r++)
                    x4[r] = staged_a[a_from + (s * A_LINE + r * DOWN)];
                [[unroll]] for (uint c = 0u; c < TILE_COLS / 4u; c++)
                    z4[c] = staged_b[b_from + (s * B_LINE + c * TILE_ACROSS)];
                [[unroll]] for (uint i = 0u; i < TILE_N; i++)
                    sum[i] = fma(x4[i / TILE_COLS / 4u][i / TILE_COLS % 4u],
                                 z4[i % TILE_COLS / 4u][i % 4u], sum[i]);
            }
        }
        VKM_TAKE_SUMS(y, sum)
    }
}
