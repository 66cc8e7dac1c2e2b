/* Group (block of queries, head, sequence): see attention_matrix.glsl; one subgroup has all columns. Keys
 * are counted from the begin of the prefix. A row's maximum so far scales its weights; when it grows, the
 * sums follow. Weights are lifted by 2^14. */
#extension GL_KHR_shader_subgroup_vote : require
#define AREAS    1u
#define PRODUCTS 1u
#include "attention_matrix.glsl"

const float LOWEST = -1e30; /* of a key that is not seen; a device need not know infinity */

shared float exchanged[BLOCK * PARTS];

uint row0, n_prefix, prefix0, first, last, h, kvh, tile, piece;

uint key_quad(uint i) {
    uint j = min(tile + i, last);
    return ((j < n_prefix ? prefix0 + j : row0 + (j - n_prefix)) * pc.n_kv + kvh) * DQ;
}
uint query_row(uint i) { return min(n_prefix + first + i, last) - n_prefix; }
uint query_quad(uint i) { return ((row0 + query_row(piece + i)) * pc.n_heads + h) * DQ; }

void store_word(uint t, uint word, uint x) {
    STW_o(vkm_op_word(row0 + t, h * (D / 2u) + word, pc.n_heads * D), x);
}
/* Four outputs of row t. */
void store_outputs(uint t, uint d, vec4 y) {
    store_word(t, d / 2u, vkm_bf16_pair(y.x, y.y));
    store_word(t, d / 2u + 1u, vkm_bf16_pair(y.z, y.w));
}
/* A value of each lane for all that share its row. */
void exchange(uint r, float x) {
    if (is_row(r)) exchanged[lane_row(r) * PARTS + lane_part()] = x;
}

void main() {
    uint seq = gl_WorkGroupID.z, len = SEQ_LEN(seq);
    row0 = SEQ_ROW0(seq);
    prefix0 = pc.has_prefix == 0u ? 0u : LD_prefix(2u * seq);
    n_prefix = pc.has_prefix == 0u ? 0u : LD_prefix(2u * seq + 1u);
    first = gl_WorkGroupID.x * BLOCK;
    h = gl_WorkGroupID.y;
    kvh = h / (pc.n_heads / pc.n_kv);
    for (uint at = gl_LocalInvocationID.x; at < BLOCK * (D / 2u); at += LOCAL) {
        uint t = first + at / (D / 2u);
        if (t >= len && row0 + t < padded(row0 + len) &&
            (pc.has_prefix == 0u || row0 + len == pc.n_rows))
            store_word(t, at % (D / 2u), 0u);
    }
    if (first >= len) return;

    uint end = n_prefix + min(first + BLOCK, len);
    last = end - 1u;
    uvec4 next_near[2u * LOADS], next_far[2u * LOADS];
    MATRIX_A q[D / MAT_K];
    MATRIX_SUM o[OWN_D / MAT_N];
    float m[ROWS], l[ROWS], grown[ROWS]; /* the last: by what a row's sums are scaled */
    int q_top = NO_TOP, k_top = NO_TOP, v_top = NO_TOP;
    begin();
    TAKE_BLOCK(q, pc.q, query_quad, q_top);
    ZERO_SUMS(o);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        m[r] = LOWEST;
        l[r] = 0.0;
    }
    for (tile = 0u; tile < end; tile += TILE) {
        vec4 s[ROWS * FOURS];
        int v_old = v_top;
        FETCH(next_near, pc.k, key_quad);
        FETCH(next_far, pc.v, key_quad);
        STAGE(next_near, k_top, KEEP(NEAR), next_far, v_top, TURN(TURNED));
        SCORES(0u, q, NEAR);
        meet();
        float by = unit(q_top, k_top) * pc.scale;
        [[unroll]] for (uint i = 0u; i < ROWS * FOURS; i++) s[i] = scores_at(0u, i) * by;
        if (tile + TILE > n_prefix + first + 1u) /* a row of the block does not see all of the tile */
            FOR_SCORES({
                uint own = min(n_prefix + first + lane_row(r), last); /* the last key that the row sees */
                if (tile + lane_col() + col > own) s[i_][c_] = LOWEST;
            })
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            float top = LOWEST;
            [[unroll]] for (uint i = r * FOURS; i < (r + 1u) * FOURS; i++)
                top = max(top, max(max(s[i].x, s[i].y), max(s[i].z, s[i].w)));
            exchange(r, top);
        }
        meet();
        bool grew = v_top > v_old;
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            float top = m[r], sum = 0.0;
            [[unroll]] for (uint i = 0u; i < PARTS; i++)
                top = max(top, exchanged[lane_row(r) * PARTS + i]);
            grown[r] = top > m[r] ? exp(m[r] - top) : 1.0;
            grew = grew || top > m[r];
            m[r] = top;
            [[unroll]] for (uint i = r * FOURS; i < (r + 1u) * FOURS; i++) {
                s[i] = exp(s[i] - top);
                sum += s[i].x + s[i].y + (s[i].z + s[i].w);
            }
            l[r] = l[r] * grown[r] + sum;
        }
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            vec4 x = vec4(grown[r] * shrink(v_old, v_top));
            for (uint c = lane_part(); c < MAT_N / 4u && is_row(r); c += PARTS)
                scores[score_quad(0u, lane_row(r)) + c] = floatBitsToUint(x);
        }
        meet(); /* not within the branch: lavapipe lets all of a workgroup wait */
        if (subgroupAny(grew)) {
            MATRIX_SUM x;
            coopMatLoad(x, scores, score_quad(0u, down() * MAT_M), SLINE, gl_CooperativeMatrixLayoutRowMajor);
            SCALE_SUMS(o, x);
        }
        meet();
        PUT_OPERANDS(0u, s, lift(127));
        meet();
        ADD_TILE(o, 0u, TURNED);
    }

    [[unroll]] for (uint r = 0u; r < ROWS; r++) exchange(r, l[r]);
    meet();
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        l[r] = 0.0;
        [[unroll]] for (uint p = 0u; p < PARTS; p++) l[r] += exchanged[lane_row(r) * PARTS + p];
        grown[r] = vkm_div(1.0, l[r]);
    }
    FOR_OUTPUTS(o, {
        uint t = first + lane_row(r);
        if (is_row(r) && t < len) store_outputs(t, d, y * unit(127, v_top) * grown[r]);
    })
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint t = first + lane_row(r);
        if (is_row(r) && t < len && lane_part() == 0u) {
            ST_m((row0 + t) * pc.n_heads + h, m[r]);
            ST_l((row0 + t) * pc.n_heads + h, l[r]);
        }
    }
}
