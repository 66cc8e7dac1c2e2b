/* Group (block of keys, kv head, sequence): see attention_matrix.glsl. Rows of the scores are keys,
 * columns queries; all heads of the group add to the same sums. Weights are lifted by 2^14. */
#define AREAS    2u
#define PRODUCTS 2u
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

    uvec4 next_near[2u * LOADS], next_far[2u * LOADS];
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
        vec4 p[ROWS * FOURS], ds[ROWS * FOURS];
        int q_old = q_top, go_old = go_top, ds_old = ds_top;
        h = kvh * group + at / n_tiles;
        tile = first + at % n_tiles * TILE;
        FETCH(next_near, pc.q, query_quad);
        FETCH(next_far, pc.do_, query_quad);
        STAGE(next_near, q_top, KEEP(NEAR) TURN(TURNED), next_far, go_top, KEEP(FAR) TURN(TURNED_2));
        for (uint i = gl_LocalInvocationID.x; i < TILE; i += LOCAL)
            stats[i] = vec4(LD_m(query(i)), vkm_div(1.0, LD_l(query(i))), LD_dr(query(i)), 0.0);
        SCORES(0u, k, NEAR);
        SCORES(1u, v, FAR);
        barrier();
        float by = unit(k_top, q_top) * pc.scale, by_2 = unit(v_top, go_top);
        [[unroll]] for (uint i = 0u; i < ROWS * FOURS; i++) {
            p[i] = scores_at(0u, i) * by;
            ds[i] = scores_at(1u, i) * by_2;
        }
        FOR_SCORES({
            vec3 stat = stats[lane_col() + col].xyz;
            p[i_][c_] = exp(p[i_][c_] - stat.x) * stat.y;
            ds[i_][c_] = p[i_][c_] * (ds[i_][c_] - stat.z);
        })
        if (tile < first + BLOCK || tile + TILE > len) /* not all see all, or not all queries are there */
            FOR_SCORES({
                uint t = tile + lane_col() + col;
                if (t < first + lane_row(r) || t > last) p[i_][c_] = ds[i_][c_] = 0.0;
            })
        SETTLE(ds, ds_top);
        if (LIFTS && (q_top > q_old || go_top > go_old || ds_top > ds_old)) {
            SCALE_SUMS(dk, shrink(q_old, q_top) * shrink(ds_old, ds_top));
            SCALE_SUMS(dv, shrink(go_old, go_top));
        }
        PUT_OPERANDS(0u, p, lift(127));
        PUT_OPERANDS(1u, ds, lift(ds_top));
        meet();
        ADD_TILE(dv, 0u, TURNED_2);
        ADD_TILE(dk, 1u, TURNED);
    }
    FOR_OUTPUTS(dk, {
        if (is_row(r) && first + lane_row(r) < len)
            store_four(pc.dk, key(lane_row(r)) * D + d, y * unit(q_top, ds_top) * pc.scale);
    })
    FOR_OUTPUTS(dv, {
        if (is_row(r) && first + lane_row(r) < len)
            store_outputs(first + lane_row(r), d, y * unit(127, go_top));
    })
}
