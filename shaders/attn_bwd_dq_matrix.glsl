/* Group (block of queries, head, sequence): see attention_matrix.glsl. */
#define AREAS 2u
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

    uvec4 next_near[LOADS], next_far[LOADS];
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
        uvec4 ds[ROWS * EIGHTS];
        int k_old = k_top, ds_old = ds_top;
        FETCH(next_near, pc.k, key_quad);
        FETCH(next_far, pc.v, key_quad);
        STAGE(next_near, next_far, k_top, v_top);
        SCORES(0u, q, near4);
        SCORES(1u, go, far4);
        meet();
        [[unroll]] for (uint r = 0u; r < ROWS; r++) {
            uint n = min(first + lane_row(r), last) + 1u; /* keys that the row sees */
            [[unroll]] for (uint e = 0u; e < EIGHTS; e++) {
                vec4 x[2];
                [[unroll]] for (uint i = 0u; i < 8u; i++) {
                    float p = weight_at(0u, r, 8u * e + i, q_top, k_top, pc.scale, m[r], inv_l[r]);
                    float dp = score_at(1u, r, 8u * e + i, go_top, v_top);
                    x[i / 4u][i % 4u] =
                        tile + lane_col(8u * e + i) < n ? p * (dp - dr[r]) : 0.0;
                }
                ds[r * EIGHTS + e] = eight(x[0], x[1]);
            }
        }
        SETTLE(ds, ds_top);
        if (LIFTS && (k_top > k_old || ds_top > ds_old)) {
            SCALE_SUMS(dq, shrink(k_old, k_top) * shrink(ds_old, ds_top));
        }
        PUT_OPERANDS(0u, ds, lift(ds_top));
        meet();
        ADD_TILE(dq, 0u, near4);
    }
    FOR_OUTPUTS(dq, {
        if (is_row(r) && first + lane_row(r) < len)
            store_four(pc.dq, query(lane_row(r)) * D + d, y * unit(k_top) * unit(ds_top) * pc.scale);
    })
}
