/* Owns hashing: a narrow door to the header-only XXH3. */
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>

_Static_assert(sizeof(XXH3_state_t) + 64 <= sizeof(vkm_hash_state) && _Alignof(XXH3_state_t) <= 64,
               "vkm_hash_state.raw is too small for this xxhash.h: enlarge it");

static XXH3_state_t *inner(vkm_hash_state *s) {
    /* the state must not move between begin and now: its place depends on the address */
    return (XXH3_state_t *)(((uintptr_t)s->raw + 63) & ~(uintptr_t)63);
}

void vkm_hash_begin(vkm_hash_state *s) {
    XXH3_INITSTATE(inner(s));
    XXH3_128bits_reset(inner(s));
}

void vkm_hash_add(vkm_hash_state *s, const void *bytes, size_t n) {
    if (n) XXH3_128bits_update(inner(s), bytes, n);
}

vkm_hash128 vkm_hash_now(vkm_hash_state *s) {
    XXH128_hash_t h = XXH3_128bits_digest(inner(s));
    return (vkm_hash128){h.low64, h.high64};
}

vkm_hash128 vkm_hash(const void *bytes, size_t n) {
    XXH128_hash_t h = XXH3_128bits(n ? bytes : "", n);
    return (vkm_hash128){h.low64, h.high64};
}

uint64_t vkm_hash64(const void *bytes, size_t n, uint64_t seed) {
    return XXH3_64bits_withSeed(n ? bytes : "", n, seed);
}

void vkm_hash_hex(vkm_hash128 h, char out[VKM_HASH_HEX]) {
    snprintf(out, VKM_HASH_HEX, "%016llx%016llx", (unsigned long long)h.hi,
             (unsigned long long)h.lo);
}
