/* XXH3 128-bit hashes: of files, weights and whole runs. Not for secrets.
 * The value does not depend on the machine, its vector width or how the input was cut up. */
#ifndef VKM_HASH_H
#define VKM_HASH_H

#include "base/status.h"

typedef struct vkm_hash128 {
    uint64_t lo, hi;
} vkm_hash128;

typedef struct vkm_hash_state {
    /* holds an XXH3 state at a 64-byte boundary; do not copy or move it after begin */
    unsigned char raw[704];
} vkm_hash_state;

void vkm_hash_begin(vkm_hash_state *s);
void vkm_hash_add(vkm_hash_state *s, const void *bytes, size_t n);
/* The hash of what has been added so far; more may follow. */
vkm_hash128 vkm_hash_now(vkm_hash_state *s);

vkm_hash128 vkm_hash(const void *bytes, size_t n);
/* 64-bit form with a seed, for hash tables. */
uint64_t vkm_hash64(const void *bytes, size_t n, uint64_t seed);

/* 32 lower-case digits and a NUL, in XXH128's canonical order (as xxhsum -H2 prints it). */
enum { VKM_HASH_HEX = 33 };
void vkm_hash_hex(vkm_hash128 h, char out[VKM_HASH_HEX]);

#endif
