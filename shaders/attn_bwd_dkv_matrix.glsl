/* Group (block of keys, kv head, sequence): see attention_matrix.glsl. Rows of the scores are keys,
 * columns queries; all heads of the group add to the same sums. Weights are lifted by 2^14. */
#define AREAS 2u
#include "attention_matrix.glsl"

shared vec4 stats[TILE]; /* of a tile's queries: maximum, 1 / sum, Dr */

uint row0, first, last, h, kvh, tile, piece;

uint key(uint i) { return (row0 + min(first + i, last)) * pc.n_kv + kvh; }
uint key_quad(uint i) { return key(piece + i) * DQ; }
uint query(uint i) { return (row0 + min(tile + i, last)) * pc.n_heads + h; }
uint query_quad(uint i) { return query(i) * DQ; }

void store_word(uint t, uint word, uint x) {
    STW_dv(vkm_op_word(row0 + t, kvh * (D / 2u) + word, pc.n_kv * D), x);
}
void store_outputs(uint t, uint d, vec4 y) {
    store_word(t, d / 2u, vkm_bf16_pair(y.x, y.y));
    store_word(t, d / 2u + 1u, vkm_bf16_pair(y.z, y.w));
}

void main() {
    uint seq = gl_WorkGroupID.z, len = SEQ_LEN(seq);
    row0 = SEQ_ROW0(seq);
    first = gl_WorkGroupID.x * BLOCK;
    last = len - 1u;
    kvh = gl_WorkGroupID.y;
    for (uint at = gl_LocalInvocationID.x; at < BLOCK * (D / 2u); at += LOCAL) {
        uint t = first + at / (D / 2u);
        if (t >= len && row0 + t < padded(row0 + len)) store_word(t, at % (D / 2u), 0u);
    }
    if (first >= len) return;

    uvec4 next_near[LOADS], next_far[LOADS];
    MATRIX_A k[D / MAT_K], v[D / MAT_K];
    MATRIX_SUM dk[OWN_D / MAT_N], dv[OWN_D / MAT_N];
    int k_top = NO_TOP, v_top = NO_TOP, q_top = NO_TOP, go_top = NO_TOP, ds_top = NO_TOP;
    uint group = pc.n_heads / pc.n_kv, n_tiles = (len - first + TILE - 1u) / TILE;
    begin();
    TAKE_BLOCK(k, pc.k, key_quad, k_top);
    TAKE_BLOCK(v, pc.v, key_quad, v_top);
    ZERO_SUMS(dk);
    ZERO_SUMS(dv);
    for (uint at = 0u; at < group * n_tiles; at++) {
        uvec4 p[ROWS * EIGHTS], ds[ROWS * EIGHTS];
        int q_old = q_top, go_old = go_top, ds_old = ds_top;
        h = kvh * group + at / n_tiles;
        tile = first + at % n_tiles * TILE;
        FETCH(next_near, pc.q, query_quad);
        FETCH(next_far, pc.do_, query_quad);
        STAGE(next_near, next_far, q_top, go_top);
        for (uint i = gl_LocalInvocationID.x; i < TILE; i += LOCAL)
            stats[i] = vec4(LD_m(query(i)), vkm_div(1.0, LD_l(query(i))), LD_dr(query(i)), 0.0);
        SCORES(0u, k, near4);
        SCORES(1u, v, far4);
        barrier();
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            uint own = min(first + lane_row(r), last); /* the first query that sees the key */
            [[unroll]] for (uint e = 0u; e < EIGHTS; e++) {
                vec4 x[2], g[2];
                [[unroll]] for (uint i = 0u; i < 8u; i++) {
                    uint c = 8u * e + i, t = tile + lane_col(c);
                    vec4 stat = stats[lane_col(c)];
                    bool seen = t >= own && t <= last;
                    float w = weight_at(0u, r, c, k_top, q_top, pc.scale, stat.x, stat.y);
                    float dp = score_at(1u, r, c, v_top, go_top);
                    x[i / 4u][i % 4u] = seen ? w : 0.0;
                    g[i / 4u][i % 4u] = seen ? w * (dp - stat.z) : 0.0;
                }
                p[r * EIGHTS + e] = eight(x[0], x[1]);
                ds[r * EIGHTS + e] = eight(g[0], g[1]);
            }
        }
        SETTLE(ds, ds_top);
        if (LIFTS && (q_top > q_old || go_top > go_old || ds_top > ds_old)) {
            SCALE_SUMS(dk, shrink(q_old, q_top) * shrink(ds_old, ds_top));
            SCALE_SUMS(dv, shrink(go_old, go_top));
        }
        PUT_OPERANDS(0u, p, lift(127));
        PUT_OPERANDS(1u, ds, lift(ds_top));
        meet();
        ADD_TILE(dv, 0u, far4);
        ADD_TILE(dk, 1u, near4);
    }
    FOR_OUTPUTS(dk, {
        if (is_row(r) && first + lane_row(r) < len)
            store_four(pc.dk, key(lane_row(r)) * D + d, y * unit(q_top) * unit(ds_top) * pc.scale);
    })
    FOR_OUTPUTS(dv, {
        if (is_row(r) && first + lane_row(r) < len)
            store_outputs(first + lane_row(r), d, y * unit(127) * unit(go_top));
    })
}
