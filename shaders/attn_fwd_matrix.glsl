/* Group (block of queries, head, sequence): see attention_matrix.glsl; one subgroup has all columns. Keys
 * are counted from the begin of the prefix. A row's maximum so far scales its weights; when it grows, the
 * sums follow. Weights are lifted by 2^14. */
#extension GL_KHR_shader_subgroup_vote : require
#define AREAS 1u
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
void store_outputs(uint t, uint d, vec4 y, float l) {
    store_word(t, d / 2u, vkm_bf16_pair(vkm_div(y.x, l), vkm_div(y.y, l)));
    store_word(t, d / 2u + 1u, vkm_bf16_pair(vkm_div(y.z, l), vkm_div(y.w, l)));
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
    uvec4 next_near[LOADS], next_far[LOADS];
    MATRIX_A q[D / MAT_K];
    MATRIX_SUM o[OWN_D / MAT_N];
    float m[ROWS], l[ROWS];
    int q_top = NO_TOP, k_top = NO_TOP, v_top = NO_TOP;
    begin();
    TAKE_BLOCK(q, pc.q, query_quad, q_top);
    ZERO_SUMS(o);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        m[r] = LOWEST;
        l[r] = 0.0;
    }
    for (tile = 0u; tile < end; tile += TILE) {
        float s[ROWS * COLS];
        uvec4 p[ROWS * EIGHTS];
        float grown[ROWS];
        int v_old = v_top;
        FETCH(next_near, pc.k, key_quad);
        FETCH(next_far, pc.v, key_quad);
        STAGE(next_near, next_far, k_top, v_top);
        SCORES(0u, q, near4);
        meet();
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            uint n = min(n_prefix + first + lane_row(r), last) + 1u; /* keys that the row sees */
            float top = LOWEST;
            [[unroll]] for (uint i = 0u; i < COLS; i++) {
                float x = score_at(0u, r, i, q_top, k_top) * pc.scale;
                x = tile + lane_col(i) < n ? x : LOWEST;
                s[r * COLS + i] = x;
                top = max(top, x);
            }
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
            [[unroll]] for (uint i = 0u; i < COLS; i++) {
                uint a = r * COLS + i;
                float x = s[a] - top;
                s[a] = x < -36.0 ? 0.0 : unpack_bf16(vkm_bf16z(exp(x)));
                sum += s[a];
            }
            [[unroll]] for (uint e = 0u; e < EIGHTS; e++) {
                uint a = r * COLS + 8u * e;
                p[r * EIGHTS + e] = eight(vec4(s[a], s[a + 1u], s[a + 2u], s[a + 3u]),
                                          vec4(s[a + 4u], s[a + 5u], s[a + 6u], s[a + 7u]));
            }
            l[r] = l[r] * grown[r] + sum;
        }
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            float by = grown[r] * shrink(v_old, v_top);
            for (uint c = lane_part(); c < MAT_N / 4u && is_row(r); c += PARTS)
                scores[score_quad(0u, lane_row(r)) + c] = floatBitsToUint(vec4(by));
        }
        meet();
        MATRIX_SUM by;
        coopMatLoad(by, scores, score_quad(0u, down() * MAT_M), SLINE, gl_CooperativeMatrixLayoutRowMajor);
        meet();
        if (subgroupAny(grew)) {
            SCALE_SUMS(o, by);
        }
        PUT_OPERANDS(0u, p, lift(127));
        meet();
        ADD_TILE(o, 0u, far4);
    }

    [[unroll]] for (uint r = 0u; r < ROWS; r++) exchange(r, l[r]);
    meet();
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        l[r] = 0.0;
        [[unroll]] for (uint p = 0u; p < PARTS; p++) l[r] += exchanged[lane_row(r) * PARTS + p];
    }
    FOR_OUTPUTS(o, {
        uint t = first + lane_row(r);
        if (is_row(r) && t < len) store_outputs(t, d, y * unit(127) * unit(v_top), l[r]);
    })
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint t = first + lane_row(r);
        if (is_row(r) && t < len && lane_part() == 0u) {
            ST_m((row0 + t) * pc.n_heads + h, m[r]);
            ST_l((row0 + t) * pc.n_heads + h, l[r]);
        }
    }
}
