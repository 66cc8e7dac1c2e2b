/* A tile through workgroup memory: the group stages TILE_STEP words of K of all its rows and columns,
 * while the next ones are on their way to registers; every invocation computes TILE_ROWS x TILE_COLS
 * outputs from there. Invocations stand ACROSS by DOWN; one's rows and columns come in fours that lie
 * DOWN and ACROSS fours apart, so that neighbours read neighbouring words. */
layout(constant_id = 1) const uint TILE_ROWS = 8;    /* of an invocation: a multiple of 4 */
layout(constant_id = 2) const uint TILE_COLS = 8;    /* a multiple of 4 */
layout(constant_id = 3) const uint TILE_N = 64;      /* their product */
layout(constant_id = 4) const uint TILE_ACROSS = 16; /* invocations along N */
layout(constant_id = 5) const uint TILE_STEP = 8;    /* words of K: 4, 8 or 16 */
const uint TILE_ROW_N = TILE_COLS;

const uint DOWN = gl_WorkGroupSize.x / TILE_ACROSS;
const uint TILE_HEIGHT = DOWN * TILE_ROWS;
/* Fours of words: rows and columns of the group, and as staged, a word of K after the other, with a
 * gap of four so that the panels' words meet different banks. */
const uint A4 = DOWN * TILE_ROWS / 4u, B4 = TILE_ACROSS * TILE_COLS / 4u;
const uint A_LINE = A4 + 4u, B_LINE = B4 + 4u;
const uint A_LOADS = (A4 * TILE_STEP + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;
const uint B_LOADS = (B4 * TILE_STEP + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;
shared uvec4 staged_a[2u * TILE_STEP * A_LINE], staged_b[2u * TILE_STEP * B_LINE];

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
uint place(uint q, uint line) {
    return q / 4u % TILE_STEP * line + q / (4u * TILE_STEP) * 4u + q % 4u;
}

void vkm_tile_rule4(vkm_operand a, vkm_operand b, uint k, out precise float y[TILE_N]) {
    precise float sum[TILE_N];
    uvec4 next_a[A_LOADS], next_b[B_LOADS];
    uint id = gl_LocalInvocationID.x, across = id % TILE_ACROSS, down = id / TILE_ACROSS;
    uint a_panel = gl_WorkGroupID.y * (A4 / 4u), b_panel = gl_WorkGroupID.x * (B4 / 4u);
    uint words = k / 2u, stage = 0u;
    [[unroll]] for (uint i = 0u; i < TILE_N; i++) y[i] = 0.0;
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
            uint a_at = stage * TILE_STEP * A_LINE, b_at = stage * TILE_STEP * B_LINE;
            [[unroll]] for (uint l = 0u; l < A_LOADS; l++) {
                uint q = id + l * gl_WorkGroupSize.x;
                if (q < A4 * TILE_STEP) staged_a[a_at + place(q, A_LINE)] = next_a[l];
            }
            [[unroll]] for (uint l = 0u; l < B_LOADS; l++) {
                uint q = id + l * gl_WorkGroupSize.x;
                if (q < B4 * TILE_STEP) staged_b[b_at + place(q, B_LINE)] = next_b[l];
            }
            barrier();
            [[unroll]] for (uint l = 0u; l < A_LOADS; l++)
                next_a[l] = fetch(a, a_panel, id + l * gl_WorkGroupSize.x, w + TILE_STEP, words);
            [[unroll]] for (uint l = 0u; l < B_LOADS; l++)
                next_b[l] = fetch(b, b_panel, id + l * gl_WorkGroupSize.x, w + TILE_STEP, words);
            [[unroll]] for (uint s = 0u; s < TILE_STEP; s++) {
                uvec4 x4[TILE_ROWS / 4u], z4[TILE_COLS / 4u];
                [[unroll]] for (uint r = 0u; r < TILE_ROWS / 4u; r++)
                    x4[r] = staged_a[a_at + s * A_LINE + r * DOWN + down];
                [[unroll]] for (uint c = 0u; c < TILE_COLS / 4u; c++)
                    z4[c] = staged_b[b_at + s * B_LINE + c * TILE_ACROSS + across];
                [[unroll]] for (uint i = 0u; i < TILE_N; i++) {
                    uint x = x4[i / TILE_COLS / 4u][i / TILE_COLS % 4u];
                    uint z = z4[i % TILE_COLS / 4u][i % 4u];
                    sum[i] = fma(vkm_bf16_lo(x), vkm_bf16_lo(z), sum[i]);
                    sum[i] = fma(vkm_bf16_hi(x), vkm_bf16_hi(z), sum[i]);
                }
            }
            stage ^= 1u; /* who writes there has passed a barrier after all had read it */
        }
        [[unroll]] for (uint i = 0u; i < TILE_N; i++) y[i] = y[i] + sum[i];
    }
}
