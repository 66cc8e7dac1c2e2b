/* Group (block of 32 keys, kv head and slice of the outputs, sequence): see attention_staged.glsl. Sums
 * by chunk of queries, then by head, then over the heads of the group. */
#define TILE 16u
#include "attention_staged.glsl"

shared uvec4 k4[DW * LINE4], v4[DW * LINE4];
shared uint q1[DW * LINE], go1[DW * LINE];
shared vec4 p4[TILE * LINE4], ds4[TILE * LINE4];

uint row0, first, last, h, kvh, tile;

uint key_word(uint i) { return ((row0 + min(first + i, last)) * pc.n_kv + kvh) * DW; }
uint query(uint i) { return (row0 + min(tile + i, last)) * pc.n_heads + h; }
uint query_word(uint i) { return query(i) * DW; }

void store_word(uint r, uint slice, uint i, uint word) {
    STW_dv(vkm_op_word(row0 + first + lane_row(r), kvh * DW + lane_word(slice, i), pc.n_kv * D), word);
}

void main() {
    uint seq = gl_WorkGroupID.z, len = SEQ_LEN(seq), slice = gl_WorkGroupID.y % SLICES;
    row0 = SEQ_ROW0(seq);
    first = gl_WorkGroupID.x * BLOCK;
    last = len - 1u;
    kvh = gl_WorkGroupID.y / SLICES;
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint t = first + lane_row(r);
        if (t >= len && row0 + t < padded(row0 + len)) {
            [[unroll]] for (uint i = 0u; i < WORDS; i++) store_word(r, slice, i, 0u);
        }
    }
    if (first >= len) return;

    float s[N_SCORES], dp[N_SCORES], m[OTHERS], l[OTHERS], dr[OTHERS];
    float kc[ROWS * COLS], kh[ROWS * COLS], kt[ROWS * COLS];
    float vc[ROWS * COLS], vh[ROWS * COLS], vt[ROWS * COLS];
    uint group = pc.n_heads / pc.n_kv;
    STAGE_BLOCK(k4, pc.k, key_word);
    STAGE_BLOCK(v4, pc.v, key_word);
    ZERO(kc);
    ZERO(vc);
    ZERO(kt);
    ZERO(vt);
    for (h = kvh * group; h < (kvh + 1u) * group; h++) {
        ZERO(kh);
        ZERO(vh);
        for (tile = first; tile < len; tile += TILE) {
            STAGE_TILE(q1, pc.q, query_word);
            STAGE_TILE(go1, pc.do_, query_word);
            [[unroll]] for (uint u = 0u; u < OTHERS; u++) {
                uint stat = query(lane_other(u));
                m[u] = LD_m(stat);
                l[u] = LD_l(stat);
                dr[u] = LD_dr(stat);
            }
            barrier();
            ROW_PRODUCTS(s, k4, q1);
            ROW_PRODUCTS(dp, v4, go1);
            [[unroll]] for (uint i = 0u; i < N_SCORES; i++) {
                uint u = i % OTHERS, t = tile + lane_other(u);
                bool seen = t >= min(first + lane_row(i / OTHERS), last) && t <= last;
                float p = weight(s[i], pc.scale, m[u], l[u]);
                s[i] = seen ? unpack_bf16(vkm_bf16z(p)) : 0.0;
                dp[i] = seen ? score_grad(p, dp[i], dr[u]) : 0.0;
            }
            SHARE_SCORES(p4, s);
            SHARE_SCORES(ds4, dp);
            barrier();
            uint n = min(len - tile, TILE);
            ADD_ROWS(kc, ds4, q1, n, slice)
            ADD_ROWS(vc, p4, go1, n, slice)
            if ((tile + TILE) % CHUNK == 0u || tile + TILE >= len) {
                FOLD(kh, kc);
                FOLD(vh, vc);
            }
            barrier();
        }
        [[unroll]] for (uint a = 0u; a < ROWS * COLS; a++) {
            kt[a] = add(kt[a], vkm_canon(mul(kh[a], pc.scale)));
            vt[a] = add(vt[a], vh[a]);
        }
    }
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint t = first + lane_row(r);
        if (t >= len) continue;
        uint at = ((row0 + t) * pc.n_kv + kvh) * D;
        [[unroll]] for (uint i = 0u; i < WORDS; i++) {
            uint d = at + 2u * lane_word(slice, i), a = r * COLS + 2u * i;
            ST_dk(d, kt[a]);
            ST_dk(d + 1u, kt[a + 1u]);
            store_word(r, slice, i, vkm_bf16_pair(vt[a], vt[a + 1u]));
        }
    }
}
