/* Group (block of 32 queries, head, sequence): see attention_staged.glsl. */
#define TILE 16u
#include "attention_staged.glsl"

shared uvec4 q4[DW * LINE4], go4[DW * LINE4];
shared uint k1[DW * LINE], v1[DW * LINE];
shared vec4 ds4[TILE * LINE4];

uint row0, first, last, h, kvh, tile;

uint key_word(uint i) { return ((row0 + min(tile + i, last)) * pc.n_kv + kvh) * DW; }
uint query(uint i) { return (row0 + min(first + i, last)) * pc.n_heads + h; }
uint query_word(uint i) { return query(i) * DW; }

void main() {
    uint seq = gl_WorkGroupID.z, len = SEQ_LEN(seq);
    row0 = SEQ_ROW0(seq);
    first = gl_WorkGroupID.x * BLOCK;
    if (first >= len) return;
    h = gl_WorkGroupID.y;
    kvh = h / (pc.n_heads / pc.n_kv);
    uint end = min(first + BLOCK, len);
    last = end - 1u;

    float s[N_SCORES], dp[N_SCORES], m[ROWS], l[ROWS], dr[ROWS];
    float acc[ROWS * COLS], total[ROWS * COLS];
    STAGE_BLOCK(q4, pc.q, query_word);
    STAGE_BLOCK(go4, pc.do_, query_word);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint stat = query(lane_row(r));
        m[r] = LD_m(stat);
        l[r] = LD_l(stat);
        dr[r] = LD_dr(stat);
    }
    ZERO(acc);
    ZERO(total);
    for (tile = 0u; tile < end; tile += TILE) {
        STAGE_TILE(k1, pc.k, key_word);
        STAGE_TILE(v1, pc.v, key_word);
        barrier();
        ROW_PRODUCTS(s, q4, k1);
        ROW_PRODUCTS(dp, go4, v1);
        [[unroll]] for (uint i = 0u; i < N_SCORES; i++) {
            uint r = i / OTHERS, j = tile + lane_other(i % OTHERS);
            float p = weight(s[i], pc.scale, m[r], l[r]);
            s[i] = j <= min(first + lane_row(r), last) ? score_grad(p, dp[i], dr[r]) : 0.0;
        }
        SHARE_SCORES(ds4, s);
        barrier();
        uint n = min(end - tile, TILE);
        ADD_ROWS(acc, ds4, k1, n, 0u)
        if ((tile + TILE) % CHUNK == 0u || tile + TILE >= end) FOLD(total, acc);
        barrier();
    }
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        if (first + lane_row(r) >= len) continue;
        uint at = query(lane_row(r)) * D;
        [[unroll]] for (uint i = 0u; i < WORDS; i++) {
            uint d = at + 2u * lane_word(0u, i), a = r * COLS + 2u * i;
            ST_dq(d, mul(total[a], pc.scale));
            ST_dq(d + 1u, mul(total[a + 1u], pc.scale));
        }
    }
}
