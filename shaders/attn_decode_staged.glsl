/* Group (heads, row): the form `shared` of GPUs. 2 D lanes. First TILE keys at a time are staged in
 * workgroup memory, the next ones on their way to registers, and a lane has the scores of one head; then
 * four chunks of keys stand side by side, a lane has a word of the values of one, and the chunks' sums
 * are added in their order. */
#include "attention.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint D = 32u;    /* head dimension, a multiple of 32 up to 128 */
layout(constant_id = 2) const uint R = 1u;     /* heads of a workgroup, all of one kv head, up to 4 */
layout(constant_id = 3) const uint TILE = 16u; /* keys, a power of two; with R heads no more than lanes */
const uint DW = D / 2u, DQ = D / 8u, LOCAL = 2u * D;
const uint CHUNKS = LOCAL / DW;
const uint LINE = DQ + 1u; /* a key as staged: neighbours meet different banks */
const uint LOADS = (TILE * DQ + LOCAL - 1u) / LOCAL;
const uint OUTPUTS = (R * DW + LOCAL - 1u) / LOCAL; /* words of a lane */
const uint WEIGHTS = CHUNKS * CHUNK;
const uint STAGED = TILE * LINE < WEIGHTS ? WEIGHTS : TILE * LINE;
const uint UNROLL = 8u; /* values on their way */

shared uvec4 staged[STAGED]; /* keys; then the weights of a key's heads */
shared vec4 q4[R * D / 4u];
shared float maxima[LOCAL];
shared float sums[CHUNKS * R], parts[CHUNKS * R * D];

uint kvh, n_keys, prompt_len, prompt_row0, own_row0;

/* Word of the first element of key j, in the prompt's buffer or in the rollout's own. */
uint prompt_word(uint j) { return ((prompt_row0 + j) * pc.n_kv + kvh) * DW; }
uint own_word(uint j) { return ((own_row0 + j - prompt_len) * pc.n_kv + kvh) * DW; }
uvec4 key_quad(uint j, uint i) {
    bool own = j >= prompt_len;
    return vkm_words4(own ? pc.own_k : pc.prompt_k, (own ? own_word(j) : prompt_word(j)) / 4u + i);
}

float acc[2u * R], sum[R]; /* of a chunk */

/* acc, sum += the lane's word of the values of keys from .. to - 1, their weights from `weights` on;
 * word: that of key `from`. */
void add_values(uvec2 addr, uint word, uint from, uint to, uint weights) {
    for (uint j = from; j < to; j += UNROLL, word += UNROLL * pc.n_kv * DW) {
        uint w[UNROLL];
        [[unroll]] for (uint u = 0u; u < UNROLL; u++)
            w[u] = U32_R(addr).v[word + min(u, to - 1u - j) * pc.n_kv * DW];
        [[unroll]] for (uint u = 0u; u < UNROLL; u++) {
            bool exists = j + u < to;
            uvec4 p = staged[weights + min(j + u, to - 1u) - from];
            float lo = exists ? vkm_bf16_lo(w[u]) : 0.0, hi = exists ? vkm_bf16_hi(w[u]) : 0.0;
            [[unroll]] for (uint r = 0u; r < R; r++) {
                float x = exists ? uintBitsToFloat(p[r]) : 0.0;
                sum[r] = add(sum[r], x);
                acc[2u * r] = madd(x, lo, acc[2u * r]);
                acc[2u * r + 1u] = madd(x, hi, acc[2u * r + 1u]);
            }
        }
    }
}

void main() {
    uint h0 = gl_WorkGroupID.x * R, row = gl_WorkGroupID.y, id = gl_LocalInvocationID.x;
    kvh = h0 / (pc.n_heads / pc.n_kv);
    prompt_row0 = LD_state(8u * row);
    prompt_len = LD_state(8u * row + 1u);
    own_row0 = LD_state(8u * row + 2u);
    n_keys = min(prompt_len + LD_state(8u * row + 3u), pc.max_keys);
    if (LD_state(8u * row + 5u) != 0u || n_keys == 0u) return;

    uint head = row * pc.n_heads + h0, last = n_keys - 1u;
    for (uint i = id; i < R * D / 4u; i += LOCAL) {
        uint w = head * DW + 2u * i, lo = LDW_q(w), hi = LDW_q(w + 1u);
        q4[i] = vec4(vkm_bf16_lo(lo), vkm_bf16_hi(lo), vkm_bf16_lo(hi), vkm_bf16_hi(hi));
    }

    uint r = id % R, key = id / R; /* whose score the lane has */
    uint scores = (head + r) * pc.max_keys;
    float m = neg_infinity();
    uvec4 next[LOADS];
    [[unroll]] for (uint n = 0u; n < LOADS; n++) {
        uint at = min(id + n * LOCAL, TILE * DQ - 1u);
        next[n] = key_quad(min(at / DQ, last), at % DQ);
    }
    for (uint j0 = 0u; j0 < n_keys; j0 += TILE) {
        barrier();
        [[unroll]] for (uint n = 0u; n < LOADS; n++) {
            uint at = id + n * LOCAL;
            if (at < TILE * DQ) staged[at / DQ * LINE + at % DQ] = next[n];
        }
        barrier();
        [[unroll]] for (uint n = 0u; n < LOADS; n++) {
            uint at = min(id + n * LOCAL, TILE * DQ - 1u);
            next[n] = key_quad(min(j0 + TILE + at / DQ, last), at % DQ);
        }
        if (key < TILE && j0 + key < n_keys) {
            float s = 0.0;
            [[unroll]] for (uint i = 0u; i < DQ; i++) {
                uvec4 w = staged[key * LINE + i];
                vec4 a = q4[r * (D / 4u) + 2u * i], b = q4[r * (D / 4u) + 2u * i + 1u];
                s = madd2(a.z, a.w, w.y, madd2(a.x, a.y, w.x, s));
                s = madd2(b.z, b.w, w.w, madd2(b.x, b.y, w.z, s));
            }
            float y = mul(s, pc.scale);
            m = y > m ? y : m;
            ST_scratch(scores + j0 + key, y);
        }
    }
    maxima[id] = m;
    for (uint n = TILE / 2u; n > 0u; n /= 2u) {
        barrier();
        if (key < n) {
            float y = maxima[id + n * R];
            m = y > m ? y : m;
            maxima[id] = m;
        }
    }
    memoryBarrierBuffer();
    barrier();

    uint chunk = id / DW, word = id % DW;
    float total[2u * OUTPUTS], l[OUTPUTS]; /* of words id, id + LOCAL, ... of the heads' outputs */
    [[unroll]] for (uint i = 0u; i < OUTPUTS; i++) {
        total[2u * i] = 0.0;
        total[2u * i + 1u] = 0.0;
        l[i] = 0.0;
    }
    for (uint j0 = 0u; j0 < n_keys; j0 += WEIGHTS) {
        uint n = min(n_keys - j0, WEIGHTS);
        for (uint i = id; i < n; i += LOCAL) {
            uvec4 p = uvec4(0u);
            [[unroll]] for (uint h = 0u; h < R; h++) {
                uint at = (head + h) * pc.max_keys + j0 + i;
                float w = vkm_exp_weight(sub(LD_scratch(at), vkm_canon(maxima[h])));
                ST_scratch(at, w);
                p[h] = floatBitsToUint(w);
            }
            staged[i] = p;
        }
        barrier();
        [[unroll]] for (uint h = 0u; h < R; h++) {
            sum[h] = 0.0;
            acc[2u * h] = 0.0;
            acc[2u * h + 1u] = 0.0;
        }
        uint from = min(j0 + chunk * CHUNK, n_keys), to = min(from + CHUNK, n_keys);
        uint seam = clamp(prompt_len, from, to);
        add_values(pc.prompt_v, prompt_word(from) + word, from, seam, from - j0);
        add_values(pc.own_v, own_word(seam) + word, seam, to, seam - j0);
        [[unroll]] for (uint h = 0u; h < R; h++) {
            uint at = (chunk * R + h) * D + 2u * word;
            parts[at] = acc[2u * h];
            parts[at + 1u] = acc[2u * h + 1u];
            if (word == 0u) sums[chunk * R + h] = sum[h];
        }
        barrier();
        [[unroll]] for (uint i = 0u; i < OUTPUTS; i++) {
            uint out_ = min(id + i * LOCAL, R * DW - 1u);
            for (uint c = 0u; c * CHUNK < n; c++) {
                l[i] = add(l[i], sums[c * R + out_ / DW]);
                total[2u * i] = add(total[2u * i], parts[c * R * D + 2u * out_]);
                total[2u * i + 1u] = add(total[2u * i + 1u], parts[c * R * D + 2u * out_ + 1u]);
            }
        }
        barrier();
    }

    uint kp = (pc.n_heads * D + 7u) & ~7u;
    [[unroll]] for (uint i = 0u; i < OUTPUTS; i++) {
        uint out_ = id + i * LOCAL;
        if (out_ < R * DW)
            STW_o(vkm_op_word(row, h0 * DW + out_, kp),
                  vkm_bf16_pair(vkm_div(total[2u * i], l[i]), vkm_div(total[2u * i + 1u], l[i])));
    }
}
