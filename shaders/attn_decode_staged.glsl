/* Group (heads, row): the form `shared` of GPUs. 2 D lanes. First TILE keys at a time are staged in
 * workgroup memory in fp32, the next ones on their way to registers, and a lane has a key's score of one
 * head; then four chunks of keys stand side by side, a lane has a word of the values of one, and the
 * chunks' sums are added in their order. */
#include "attention.glsl"
#include "words.glsl"

layout(constant_id = 1) const uint D = 32u;    /* head dimension, a multiple of 32 up to 128 */
layout(constant_id = 2) const uint R = 1u;     /* heads of a workgroup, all of one kv head, up to 4 */
layout(constant_id = 3) const uint TILE = 16u; /* keys, a power of two; with R heads no more than lanes */
const uint DW = D / 2u, DQ = D / 8u, LOCAL = 2u * D;
const uint CHUNKS = LOCAL / DW;
const uint LINE = D / 4u + 1u; /* a key as staged: neighbours meet different banks */
const uint LOADS = (TILE * DQ + LOCAL - 1u) / LOCAL;
const uint OUTPUTS = (R * DW + LOCAL - 1u) / LOCAL; /* words of a lane */
const uint WEIGHTS = CHUNKS * CHUNK;
const uint STAGED = TILE * LINE < WEIGHTS ? WEIGHTS : TILE * LINE;
const uint UNROLL = 8u; /* values on their way */

shared vec4 staged[STAGED]; /* keys; then the weights of a key's heads */
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

/* acc, sum += a word of a key's values times the weights of the heads. */
void add_value(uint w, vec4 weights) {
    float lo = vkm_bf16_lo(w), hi = vkm_bf16_hi(w);
    [[unroll]] for (uint r = 0u; r < R; r++) {
        sum[r] = add(sum[r], weights[r]);
        acc[2u * r] = madd(weights[r], lo, acc[2u * r]);
        acc[2u * r + 1u] = madd(weights[r], hi, acc[2u * r + 1u]);
    }
}

/* The same for the lane's word of keys from .. to - 1, the first at `word`, their weights from
 * `weights` on. */
void add_values(uvec2 addr, uint word, uint from, uint to, uint weights) {
    uint j = from, at = weights, line = pc.n_kv * DW;
    addr = vkm_address(addr, word);
    for (; j + UNROLL <= to; j += UNROLL, at += UNROLL) {
        uint w[UNROLL];
        [[unroll]] for (uint u = 0u; u < UNROLL; u++) {
            w[u] = U32_R(addr).v[0];
            addr = vkm_address(addr, line);
        }
        [[unroll]] for (uint u = 0u; u < UNROLL; u++) add_value(w[u], staged[at + u]);
    }
    for (; j < to; j++, at++) {
        add_value(U32_R(addr).v[0], staged[at]);
        addr = vkm_address(addr, line);
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
            if (at >= TILE * DQ) continue;
            uint to = at / DQ * LINE + at % DQ * 2u;
            uvec4 w = next[n];
            staged[to] = vec4(vkm_bf16_lo(w.x), vkm_bf16_hi(w.x), vkm_bf16_lo(w.y), vkm_bf16_hi(w.y));
            staged[to + 1u] =
                vec4(vkm_bf16_lo(w.z), vkm_bf16_hi(w.z), vkm_bf16_lo(w.w), vkm_bf16_hi(w.w));
        }
        barrier();
        [[unroll]] for (uint n = 0u; n < LOADS; n++) {
            uint at = min(id + n * LOCAL, TILE * DQ - 1u);
            next[n] = key_quad(min(j0 + TILE + at / DQ, last), at % DQ);
        }
        if (key < TILE && j0 + key < n_keys) {
            float s = 0.0;
            [[unroll]] for (uint i = 0u; i < D / 4u; i++) {
                vec4 a = q4[r * (D / 4u) + i], b = staged[key * LINE + i];
                [[unroll]] for (uint e = 0u; e < 4u; e++) s = madd(a[e], b[e], s);
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
            vec4 p = vec4(0.0);
            [[unroll]] for (uint h = 0u; h < R; h++) {
                uint at = (head + h) * pc.max_keys + j0 + i;
                float w = vkm_exp_weight(sub(LD_scratch(at), vkm_canon(maxima[h])));
                ST_scratch(at, w);
                p[h] = w;
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
