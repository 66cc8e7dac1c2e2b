#version 460
#extension GL_GOOGLE_include_directive : require
#include "sample.glsl"
#include "softmath.h"
#include "guarded.glsl"

/* One workgroup a row; the rule is in src/ops/sample.c. A small top-k is finished in a list in shared
 * memory; any other set is found digit by digit of the key. Counts and weights are integers, so lanes
 * may add in any order. lavapipe ends every loop of an invocation after 65,535 iterations in all:
 * hence few passes over the row, unrolled, and 64 lanes for a large vocabulary. */
const uint LIST = 128u;
const uint ALL = 0xffffffffu;
const uint GROUPS = 2048u; /* of tokens, that are looked at together */
const uint SEGMENTS = 64u; /* that all lanes weigh together */
/* What a scan does with the tokens it finds. */
const uint GATHER = 0u, BINS = 1u;

shared uint sh_lo, sh_hi, sh_n, sh_token, sh_max, sh_found;
shared uint sh_group[GROUPS];
shared uint sh_id[LIST], sh_key[LIST], sh_weight[LIST];
shared uint sh_rank[LIST], sh_above_lo[LIST], sh_above_hi[LIST];
shared uint sh_bin_lo[256], sh_bin_hi[256];
shared uint sh_lane_lo[256], sh_lane_hi[256];
shared float sh_term[256];

uint row, nb, lane, lanes;
float row_max, inv_t;

/* 64-bit: x is the low word. */
uvec2 add64(uvec2 a, uvec2 b) {
    uint lo = a.x + b.x;
    return uvec2(lo, a.y + b.y + (lo < a.x ? 1u : 0u));
}
uvec2 sub64(uvec2 a, uvec2 b) { return uvec2(a.x - b.x, a.y - b.y - (a.x < b.x ? 1u : 0u)); }
bool less64(uvec2 a, uvec2 b) { return a.y < b.y || (a.y == b.y && a.x < b.x); }
/* floor(fraction * a / 2^32) */
uvec2 scale64(uint fraction, uvec2 a) {
    return add64(uvec2(fraction * a.y, vkm_mulhi(fraction, a.y)), uvec2(vkm_mulhi(fraction, a.x), 0u));
}

uint key_of(float x) {
    uint u = floatBitsToUint(x);
    return (u & 0x80000000u) != 0u ? ~u : u | 0x80000000u;
}
float value_of(uint key) {
    return uintBitsToFloat((key & 0x80000000u) != 0u ? key & 0x7fffffffu : ~key);
}
uint weight_of(float x) {
    precise float e = vkm_exp(mulc(subc(x, row_max), inv_t));
    if (floatBitsToUint(e) >= 0x3f800000u) return 1u << 30;
    e = e * 1073741824.0;
    return uint(int(e));
}

/* Sum of the lanes' weights. */
uvec2 merge(uvec2 w) {
    barrier();
    if (lane == 0u) {
        sh_lo = 0u;
        sh_hi = 0u;
    }
    barrier();
    if ((w.x | w.y) != 0u) {
        uint old = atomicAdd(sh_lo, w.x);
        uint carry = old + w.x < old ? 1u : 0u;
        if (w.y + carry != 0u) atomicAdd(sh_hi, w.y + carry);
    }
    barrier();
    return uvec2(sh_lo, sh_hi);
}

/* Tokens of the set (key > at) or (key == at and id < below) with key >= least, of the blocks whose maximum
 * reaches that. BINS: only keys that begin with `prefix`, into the bin of the digit at `shift`. */
void scan(uint what, uint least, uint at, uint below, uint shift, uint prefix, bool by_weight) {
    for (uint b0 = 0u; b0 < nb; b0 += GROUPS) {
        barrier();
        if (lane == 0u) sh_found = 0u;
        barrier();
        for (uint b = b0 + lane; b < min(b0 + GROUPS, nb); b += lanes)
            if (key_of(LD_mb(row * nb + b)) >= least) sh_group[atomicAdd(sh_found, 1u)] = b;
        barrier();
        uint n = sh_found * 256u; /* tokens of these blocks, one block behind the other */
        for (uint e0 = lane; e0 < n; e0 += 4u * lanes) {
            float found[4];
            uint ids[4];
            [[unroll]] for (uint u = 0u; u < 4u; u++) {
                uint e = min(e0 + u * lanes, n - 1u);
                ids[u] = sh_group[e / 256u] * 256u + e % 256u;
                found[u] = LD_logits(row * pc.n_vocab + min(ids[u], pc.n_vocab - 1u));
            }
            [[unroll]] for (uint u = 0u; u < 4u; u++) {
                uint i = ids[u], k = key_of(found[u]);
                if (e0 + u * lanes >= n || i >= pc.n_vocab) continue;
                if (k < least || k < at || (k == at && i >= below)) continue;
                if (what == GATHER) {
                    uint c = min(atomicAdd(sh_n, 1u), LIST - 1u);
                    sh_id[c] = i;
                    sh_key[c] = k;
                    sh_weight[c] = weight_of(found[u]);
                }
                if (what == BINS && (shift == 24u || k >> (shift + 8u) == prefix)) {
                    uint bin = (k >> shift) & 255u, w = by_weight ? weight_of(found[u]) : 1u;
                    uint old = atomicAdd(sh_bin_lo[bin], w);
                    if (old + w < old) atomicAdd(sh_bin_hi[bin], 1u);
                }
            }
        }
    }
}

/* The k-th largest of the maxima of groups of tokens: so many tokens reach it, and of some hundred groups not
 * many more. Groups are the blocks or, where these are fewer than k, 16 tokens; 0 where these are too. */
uint group_bound(uint k) {
    uint size = nb < k ? 16u : 256u, n = (pc.n_vocab + size - 1u) / size;
    if (n < k || n > GROUPS) return 0u;
    barrier();
    if (size == 256u) {
        for (uint g = lane; g < n; g += lanes) sh_group[g] = key_of(LD_mb(row * nb + g));
    } else {
        for (uint g = lane; g < n; g += lanes) {
            uint most = 0u;
            for (uint i = 16u * g; i < min(16u * (g + 1u), pc.n_vocab); i++)
                most = max(most, key_of(LD_logits(row * pc.n_vocab + i)));
            sh_group[g] = most;
        }
    }
    barrier();
    for (uint g0 = lane; g0 < n; g0 += 4u * lanes) {
        uvec4 g = min(g0 + lanes * uvec4(0u, 1u, 2u, 3u), n - 1u), rank = uvec4(0u);
        uvec4 key = uvec4(sh_group[g.x], sh_group[g.y], sh_group[g.z], sh_group[g.w]);
        for (uint j = 0u; j < n; j++) {
            uvec4 other = uvec4(sh_group[j]);
            rank += uvec4(greaterThan(other, key)) | (uvec4(equal(other, key)) & uvec4(lessThan(uvec4(j), g)));
        }
        [[unroll]] for (uint u = 0u; u < 4u; u++)
            if (rank[u] == k - 1u) sh_found = key[u];
    }
    barrier();
    return sh_found;
}

/* Weight that the top-p prefix must reach. */
uvec2 share_of(uint top_p, uvec2 all) {
    return add64(scale64(top_p, all), uvec2(top_p * all.x != 0u ? 1u : 0u, 0u));
}

/* Of the n listed tokens, how many and what weight come before the tokens c: by value or by id. */
void before(uvec4 c, uint n, bool by_value, out uvec4 rank, out uvec4 lo, out uvec4 hi) {
    uvec4 key = uvec4(sh_key[c.x], sh_key[c.y], sh_key[c.z], sh_key[c.w]);
    uvec4 id = uvec4(sh_id[c.x], sh_id[c.y], sh_id[c.z], sh_id[c.w]);
    rank = uvec4(0u);
    lo = uvec4(0u);
    hi = uvec4(0u);
    for (uint j = 0u; j < n; j++) {
        uvec4 k = uvec4(sh_key[j]), first = uvec4(lessThan(uvec4(sh_id[j]), id));
        if (by_value) first = uvec4(greaterThan(k, key)) | (uvec4(equal(k, key)) & first);
        uvec4 w = first * sh_weight[j];
        rank += first;
        lo += w;
        hi += uvec4(lessThan(lo, w));
    }
}

/* Draws from the tokens with key >= at, at least top_k; ALL if they are more than LIST. A lane takes four
 * tokens at a time. */
uint draw_listed(uint at, uint top_k, uint top_p, uint min_weight, uint random) {
    scan(GATHER, at, at, ALL, 0u, 0u, false);
    barrier();
    uint n = sh_n;
    if (n > LIST) return ALL;
    uvec4 rank, lo, hi, each = lanes * uvec4(0u, 1u, 2u, 3u);
    uvec2 in_top_k = uvec2(0u), kept = uvec2(0u);
    for (uint c0 = lane; c0 < n; c0 += 4u * lanes) {
        before(min(c0 + each, n - 1u), n, true, rank, lo, hi);
        for (uint u = 0u; u < 4u && c0 + u * lanes < n; u++) {
            uint c = c0 + u * lanes;
            sh_rank[c] = rank[u];
            sh_above_lo[c] = lo[u];
            sh_above_hi[c] = hi[u];
            if (rank[u] < top_k) in_top_k = add64(in_top_k, uvec2(sh_weight[c], 0u));
        }
    }
    uvec2 goal = uvec2(ALL), all = merge(in_top_k);
    if (top_p != 0u) goal = share_of(top_p, all);
    for (uint c = lane; c < n; c += lanes) {
        uint w = sh_weight[c];
        uvec2 above = uvec2(sh_above_lo[c], sh_above_hi[c]);
        w = sh_rank[c] < top_k && w >= min_weight && less64(above, goal) ? w : 0u;
        sh_weight[c] = w;
        kept = add64(kept, uvec2(w, 0u));
    }
    uvec2 target = scale64(random, merge(kept));
    for (uint c0 = lane; c0 < n; c0 += 4u * lanes) {
        before(min(c0 + each, n - 1u), n, false, rank, lo, hi);
        for (uint u = 0u; u < 4u && c0 + u * lanes < n; u++) {
            uint c = c0 + u * lanes;
            uvec2 first = uvec2(lo[u], hi[u]), last = add64(first, uvec2(sh_weight[c], 0u));
            if (!less64(target, first) && less64(target, last)) sh_token = sh_id[c];
        }
    }
    barrier();
    return sh_token;
}

/* Weight (or number) of tokens among ids first to last - 1, by one lane: keys at to top, at `at` only
 * ids under `below`. */
uvec2 range_sum(uint first, uint last, uint at, uint top, uint below, uint min_weight, bool by_weight) {
    uvec2 sum = uvec2(0u);
    for (uint i = first; i < last;) {
        uint end = min(last, (i & ~255u) + 256u);
        if (key_of(LD_mb(row * nb + i / 256u)) < at) i = end;
        for (; i < end; i++) {
            float x = LD_logits(row * pc.n_vocab + i);
            uint k = key_of(x);
            if (k < at || k > top || (k == at && i >= below)) continue;
            uint w = by_weight ? weight_of(x) : 1u;
            if (w >= min_weight) sum = add64(sum, uvec2(w, 0u));
        }
    }
    return sum;
}

/* The same for `parts` ranges of `each` ids from `first` on, by all lanes, neighbours side by side; sums in
 * sh_lane. Of each weight the halves add up by themselves: a range has at most 2^16 ids. */
void range_sums(uint first, uint last, uint each, uint parts, uint at, uint top, uint below,
                uint min_weight, bool by_weight) {
    barrier();
    for (uint p = lane; p < parts; p += lanes) {
        sh_lane_lo[p] = 0u;
        sh_lane_hi[p] = 0u;
    }
    barrier();
    for (uint p = 0u; p < parts; p++) {
        uint from = min(first + p * each, last), to = min(from + each, last), lo = 0u, hi = 0u;
        for (uint i0 = from + lane; i0 < to; i0 += 8u * lanes) {
            float x[8];
            [[unroll]] for (uint u = 0u; u < 8u; u++)
                x[u] = LD_logits(row * pc.n_vocab + min(i0 + u * lanes, to - 1u));
            [[unroll]] for (uint u = 0u; u < 8u; u++) {
                uint i = i0 + u * lanes, k = key_of(x[u]);
                if (i >= to || k < at || k > top || (k == at && i >= below)) continue;
                uint w = by_weight ? weight_of(x[u]) : 1u;
                if (w < min_weight) continue;
                lo += w & 0xffffu;
                hi += w >> 16u;
            }
        }
        if ((lo | hi) != 0u) {
            atomicAdd(sh_lane_lo[p], lo);
            atomicAdd(sh_lane_hi[p], hi);
        }
    }
    barrier();
    for (uint p = lane; p < parts; p += lanes) {
        uint hi = sh_lane_hi[p];
        uvec2 sum = add64(uvec2(sh_lane_lo[p], 0u), uvec2(hi << 16u, hi >> 16u));
        sh_lane_lo[p] = sum.x;
        sh_lane_hi[p] = sum.y;
    }
}

/* The first id at which the cumulative sum exceeds the target, or with draws the share `random` of
 * the sum: equal ranges of ids are weighed, the range that is hit is cut again. */
uint descend(uint at, uint top, uint below, uint min_weight, bool by_weight, bool draws, uint random,
             uvec2 target) {
    uint base = 0u, len = pc.n_vocab;
    while (len > 1u) {
        bool together = len > SEGMENTS * lanes && len <= SEGMENTS << 16u;
        uint parts = together ? SEGMENTS : lanes, each = (len + parts - 1u) / parts;
        if (together) {
            range_sums(base, base + len, each, parts, at, top, below, min_weight, by_weight);
        } else {
            uint from = min(base + lane * each, base + len), to = min(from + each, base + len);
            uvec2 mine = range_sum(from, to, at, top, below, min_weight, by_weight);
            sh_lane_lo[lane] = mine.x;
            sh_lane_hi[lane] = mine.y;
        }
        barrier();
        if (draws) {
            uvec2 all = uvec2(0u);
            for (uint l = 0u; l < parts; l++) all = add64(all, uvec2(sh_lane_lo[l], sh_lane_hi[l]));
            target = scale64(random, all);
            draws = false;
        }
        uint hit = 0u;
        for (; hit + 1u < parts; hit++) {
            uvec2 w = uvec2(sh_lane_lo[hit], sh_lane_hi[hit]);
            if (less64(target, w)) break;
            target = sub64(target, w);
        }
        barrier();
        uint end = base + len;
        base = min(base + hit * each, end - 1u);
        len = min(each, end - base);
    }
    return base;
}

/* Shrinks a set to its shortest prefix of `amount` tokens or, by weight, of at least the share `amount`
 * of the set's weight: a digit of the key a pass, then the ids of equal keys. */
void shrink(inout uint at, inout uint below, uint amount, bool by_weight) {
    uvec2 goal = uvec2(amount, 0u), above = uvec2(0u), last = uvec2(0u);
    uint prefix = 0u;
    for (uint digit = 0u; digit < 4u; digit++) {
        uint shift = 24u - 8u * digit;
        barrier();
        for (uint i = lane; i < 256u; i += lanes) {
            sh_bin_lo[i] = 0u;
            sh_bin_hi[i] = 0u;
        }
        barrier();
        uint least = digit == 0u ? at : max(at, prefix << (shift + 8u));
        scan(BINS, least, at, below, shift, prefix, by_weight);
        barrier();
        if (by_weight && digit == 0u) {
            uvec2 all = uvec2(0u);
            for (uint i = 0u; i < 256u; i++) all = add64(all, uvec2(sh_bin_lo[i], sh_bin_hi[i]));
            goal = share_of(amount, all);
        }
        uint d = 255u;
        for (;; d--) {
            last = uvec2(sh_bin_lo[d], sh_bin_hi[d]);
            uvec2 next = add64(above, last);
            if (d == 0u || !less64(next, goal)) break;
            above = next;
        }
        prefix = prefix << 8 | d;
    }
    uint single = by_weight ? weight_of(value_of(prefix)) : 1u;
    if (prefix != at) below = ALL;
    at = prefix;
    if (last.x == single && last.y == 0u) return;
    uvec2 rest = sub64(sub64(goal, above), uvec2(1u, 0u));
    below = descend(at, at, below, 0u, by_weight, false, 0u, rest) + 1u;
}

/* M and L of the row, by the formula of lse_combine. */
float row_sum() {
    if (lane == 0u) sh_max = 0u;
    barrier();
    uint best = 0u;
    for (uint b = lane; b < nb; b += lanes) best = max(best, key_of(LD_mb(row * nb + b)));
    atomicMax(sh_max, best);
    barrier();
    row_max = value_of(sh_max);
    precise float l = 0.0;
    for (uint b0 = 0u; b0 < nb; b0 += lanes) {
        uint b = min(b0 + lane, nb - 1u);
        sh_term[lane] = mulc(LD_lb(row * nb + b), vkm_exp(subc(LD_mb(row * nb + b), row_max)));
        barrier();
        for (uint i = 0u; i < min(lanes, nb - b0); i++) l = l + sh_term[i];
        barrier();
    }
    return l;
}

void main() {
    row = gl_WorkGroupID.x;
    lane = gl_LocalInvocationID.x;
    lanes = gl_WorkGroupSize.x;
    nb = (pc.n_vocab + 255u) / 256u;
    uint n_own = LD_state(8u * row + 3u), finished = LD_state(8u * row + 5u);
    uint rollout = LD_state(8u * row + 6u);
    if (finished != 0u || n_own >= pc.max_new) return;
    if (lane == 0u) {
        sh_n = 0u;
        sh_token = 0u;
    }
    float l = row_sum();
    inv_t = uintBitsToFloat(LD_params(4u));
    uint top_k = LD_params(5u), top_p = LD_params(6u), min_weight = LD_params(7u);
    uint random = vkm_random4(LD_params(0u), LD_params(1u), VKM_RNG_SAMPLE, LD_params(2u), rollout, n_own,
                              LD_params(3u)).x;

    uint at = 0u, below = ALL, token = ALL;
    if (top_k >= pc.n_vocab) top_k = 0u;
    if (top_k != 0u && top_k <= LIST) {
        at = group_bound(top_k);
        if (at != 0u || pc.n_vocab <= LIST) token = draw_listed(at, top_k, top_p, min_weight, random);
    }
    if (token == ALL) {
        at = 0u;
        for (uint by_weight = 0u; by_weight < 2u; by_weight++) {
            uint goal = by_weight == 0u ? top_k : top_p;
            if (goal != 0u) shrink(at, below, goal, by_weight != 0u);
        }
        token = descend(at, ALL, below, min_weight, true, true, random, uvec2(0u));
    }
    if (lane != 0u) return;

    uint to = rollout * pc.max_new + n_own;
    ST_tokens(to, token);
    ST_logp(to, subc(subc(LD_logits(row * pc.n_vocab + token), row_max), vkm_log(l)));
    uint done = n_own + 1u == pc.max_new ? 1u : 0u;
    uint n_eos = LD_eos(0u);
    for (uint i = 1u; i <= n_eos; i++) done = LD_eos(i) == token ? 1u : done;
    ST_state(8u * row + 3u, n_own + 1u);
    ST_state(8u * row + 4u, token);
    ST_state(8u * row + 5u, done);
}
