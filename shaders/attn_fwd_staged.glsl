/* Group (block of 32 queries, head, sequence): see attention_staged.glsl. Keys are counted from the
 * begin of the prefix. The scores are made twice: for the maxima, then for the weights. */
#define TILE 32u
#include "attention_staged.glsl"

shared uvec4 q4[DW * LINE4];
shared uint k1[DW * LINE], v1[DW * LINE];
shared vec4 p4[TILE * LINE4]; /* the maxima, then weights */
shared float sums[BLOCK];

uint row0, n_prefix, prefix0, first, last, h, kvh, tile;

uint key_word(uint i) {
    uint j = min(tile + i, last);
    return ((j < n_prefix ? prefix0 + j : row0 + (j - n_prefix)) * pc.n_kv + kvh) * DW;
}
uint query_word(uint i) {
    uint t = min(n_prefix + first + i, last) - n_prefix;
    return ((row0 + t) * pc.n_heads + h) * DW;
}
bool sees(uint r, uint u) { return tile + lane_other(u) <= min(n_prefix + first + lane_row(r), last); }

void store_word(uint r, uint i, uint word) {
    STW_o(vkm_op_word(row0 + first + lane_row(r), h * DW + lane_word(0u, i), pc.n_heads * D), word);
}

void main() {
    uint seq = gl_WorkGroupID.z, len = SEQ_LEN(seq), id = gl_LocalInvocationID.x;
    row0 = SEQ_ROW0(seq);
    prefix0 = pc.has_prefix == 0u ? 0u : LD_prefix(2u * seq);
    n_prefix = pc.has_prefix == 0u ? 0u : LD_prefix(2u * seq + 1u);
    first = gl_WorkGroupID.x * BLOCK;
    h = gl_WorkGroupID.y;
    kvh = h / (pc.n_heads / pc.n_kv);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint t = first + lane_row(r);
        if (t >= len && row0 + t < padded(row0 + len) &&
            (pc.has_prefix == 0u || row0 + len == pc.n_rows)) {
            [[unroll]] for (uint i = 0u; i < WORDS; i++) store_word(r, i, 0u);
        }
    }
    if (first >= len) return;

    uint end = n_prefix + min(first + BLOCK, len);
    last = end - 1u;
    float s[N_SCORES], m[ROWS];
    STAGE_BLOCK(q4, pc.q, query_word);
    [[unroll]] for (uint r = 0u; r < ROWS; r++) m[r] = neg_infinity();
    for (tile = 0u; tile < end; tile += TILE) {
        STAGE_TILE(k1, pc.k, key_word);
        barrier();
        ROW_PRODUCTS(s, q4, k1);
        [[unroll]] for (uint i = 0u; i < N_SCORES; i++) {
            uint r = i / OTHERS;
            float x = mul(s[i], pc.scale);
            m[r] = sees(r, i % OTHERS) && x > m[r] ? x : m[r];
        }
        barrier();
    }
    p4[across() * LINE4 + down()] = vec4(m[0], m[1], m[2], m[3]);
    barrier();
    [[unroll]] for (uint a = 0u; a < 16u; a++) {
        vec4 other = p4[a * LINE4 + down()];
        [[unroll]] for (uint r = 0u; r < ROWS; r++) m[r] = other[r] > m[r] ? other[r] : m[r];
    }
    [[unroll]] for (uint r = 0u; r < ROWS; r++) m[r] = vkm_canon(m[r]);
    barrier();

    float acc[ROWS * COLS], total[ROWS * COLS], l = 0.0, lc = 0.0; /* l: of row id, below BLOCK */
    ZERO(acc);
    ZERO(total);
    for (tile = 0u; tile < end; tile += TILE) {
        STAGE_TILE(k1, pc.k, key_word);
        STAGE_TILE(v1, pc.v, key_word);
        barrier();
        ROW_PRODUCTS(s, q4, k1);
        [[unroll]] for (uint i = 0u; i < N_SCORES; i++) {
            float p = vkm_exp_weight(sub(mul(s[i], pc.scale), m[i / OTHERS]));
            s[i] = sees(i / OTHERS, i % OTHERS) ? p : 0.0;
        }
        SHARE_SCORES(p4, s);
        barrier();
        uint n = min(end - tile, TILE);
        if (id < BLOCK)
            for (uint j = 0u; j < n; j++) lc = add(lc, p4[j * LINE4 + id / 4u][id % 4u]);
        ADD_ROWS(acc, p4, v1, n, 0u)
        if ((tile + TILE) % CHUNK == 0u || tile + TILE >= end) {
            l = add(l, lc);
            lc = 0.0;
            FOLD(total, acc);
        }
        barrier();
    }

    if (id < BLOCK) sums[id] = l;
    barrier();
    [[unroll]] for (uint r = 0u; r < ROWS; r++) {
        uint t = first + lane_row(r);
        if (t >= len) continue;
        float whole = sums[lane_row(r)];
        [[unroll]] for (uint i = 0u; i < WORDS; i++) {
            uint a = r * COLS + 2u * i;
            store_word(r, i, vkm_bf16_pair(vkm_div(total[a], whole), vkm_div(total[a + 1u], whole)));
        }
        if (across() == 0u) {
            ST_m((row0 + t) * pc.n_heads + h, m[r]);
            ST_l((row0 + t) * pc.n_heads + h, whole);
        }
    }
}
