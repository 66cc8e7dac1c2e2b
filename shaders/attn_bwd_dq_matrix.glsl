/* Group (block of queries, head, sequence): see attention_matrix.glsl. */
#define AREAS    2u
#define PRODUCTS 1u
#include "attention_matrix.glsl"

uint row0, first, last, h, kvh, tile, piece;

uint key_quad(uint i) { return ((row0 + min(tile + i, last)) * pc.n_kv + kvh) * DQ; }
uint query(uint i) { return (row0 + min(first + i, last)) * pc.n_heads + h; }
uint query_quad(uint i) { return query(piece + i) * DQ; }

void main() {
    uint seq = gl_WorkGroupID.z, len = SEQ_LEN(seq);
    row0 = SEQ_ROW0(seq);
    first = gl_WorkGroupID.x * BLOCK;
    if (first >= len) return;
    h = gl_WorkGroupID.y;
    kvh = h / (pc.n_heads / pc.n_kv);
    uint end = min(first + BLOCK, len);
    last = end - 1u;

    uvec4 next_near[2u * LOADS], next_far[2u * LOADS];
    MATRIX_A q[D / MAT_K], go[D / MAT_K];
    MATRIX_SUM dq[OWN_D / MAT_N];
    float m[ROWS], inv_l[ROWS], dr[ROWS];
    int q_top = NO_TOP, go_top = NO_TOP, k_top = NO_TOP, v_top = NO_TOP, ds_top = NO_TOP;
    begin();
    TAKE_BLOCK(q, pc.q, query_quad, q_top);
    TAKE_BLOCK(go, pc.do_, query_quad, go_top);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint stat = query(lane_row(r));
        m[r] = LD_m(stat);
        inv_l[r] = vkm_div(1.0, LD_l(stat));
        dr[r] = LD_dr(stat);
    }
    ZERO_SUMS(dq);
    for (tile = 0u; tile < end; tile += TILE) {
        vec4 ds[ROWS * FOURS];
        int k_old = k_top, ds_old = ds_top;
        FETCH(next_near, pc.k, key_quad);
        FETCH(next_far, pc.v, key_quad);
        STAGE(next_near, k_top, KEEP(NEAR) TURN(TURNED), next_far, v_top, KEEP(FAR));
        SCORES(0u, q, NEAR);
        SCORES(1u, go, FAR);
        meet();
        float by = unit(q_top, k_top) * pc.scale, by_2 = unit(go_top, v_top);
        [[unroll]] for (uint i = 0u; i < ROWS * FOURS; i++) {
            uint r = i / FOURS;
            vec4 p = exp(scores_at(0u, i) * by - m[r]) * inv_l[r];
            ds[i] = p * (scores_at(1u, i) * by_2 - dr[r]);
        }
        if (tile + TILE > first + 1u) /* a row of the block does not see all of the tile */
            FOR_SCORES(if (tile + lane_col() + col > min(first + lane_row(r), last)) ds[i_][c_] = 0.0;)
        SETTLE(ds, ds_top);
        if (LIFTS && (k_top > k_old || ds_top > ds_old)) {
            SCALE_SUMS(dq, shrink(k_old, k_top) * shrink(ds_old, ds_top));
        }
        PUT_OPERANDS(0u, ds, lift(ds_top));
        meet();
        ADD_TILE(dq, 0u, TURNED);
    }
    FOR_OUTPUTS(dq, {
        if (is_row(r) && first + lane_row(r) < len)
            store_four(pc.dq, query(lane_row(r)) * D + d, y * unit(k_top, ds_top) * pc.scale);
    })
}
