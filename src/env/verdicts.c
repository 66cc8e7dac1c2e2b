/* Owns the table of verdicts and its file. */
#include "env/verdicts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A place. Processes write without a lock: `check` tells a half-written one. */
typedef struct place {
    vkm_hash128 key;
    uint32_t flags; /* USED, and one bit a flag of the evidence */
    float cpu_s, wall_s;
    uint32_t check; /* of all before */
} place;
_Static_assert(sizeof(place) == 32, "the file's layout");

typedef struct header {
    char magic[16]; /* names layout and version */
    uint64_t log2, check;
} header;
_Static_assert(sizeof(header) == 32, "the file's layout");

static const char magic[16] = "vkmoe verdicts1";

#define USED        0x80000000u
#define CPU_LIMITED 0x40000000u

struct vkm_verdicts {
    void *map; /* NULL: places are this process's own */
    size_t n_map;
    place *places;
    uint64_t mask;
};

static header header_of(int log2) {
    header h = {.log2 = (uint64_t)log2};
    memcpy(h.magic, magic, sizeof magic);
    h.check = vkm_hash64(&h, offsetof(header, check), 0);
    return h;
}

static uint32_t check_of(const place *p) {
    return (uint32_t)vkm_hash64(p, offsetof(place, check), 0);
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static vkm_status map_file(vkm_verdicts *v, const char *path, int log2, vkm_err *err) {
    const header want = header_of(log2);
    struct stat st;
    v->n_map = sizeof want + (sizeof(place) << log2);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || flock(fd, LOCK_EX) || fstat(fd, &st)) goto fail;
    if (st.st_size == 0 && (ftruncate(fd, (off_t)v->n_map) ||
                            pwrite(fd, &want, sizeof want, 0) != (ssize_t)sizeof want))
        goto fail;
    if (st.st_size == 0) st.st_size = (off_t)v->n_map;
    header have = {0};
    if (st.st_size != (off_t)v->n_map || pread(fd, &have, sizeof have, 0) != (ssize_t)sizeof have ||
        memcmp(&have, &want, sizeof want) != 0) {
        (void)close(fd);
        return vkm_fail(
            err, VKM_FAILED,
            "%s: is no file of verdicts of this version; name another one, or remove it", path);
    }
    v->map = mmap(NULL, v->n_map, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (v->map == MAP_FAILED) {
        v->map = NULL;
        goto fail;
    }
    (void)flock(fd, LOCK_UN); /* the map would hold it on */
    (void)close(fd);
    v->places = (place *)((char *)v->map + sizeof want);
    return VKM_OK;
fail:
    vkm_fail(err, VKM_FAILED, "%s: verdicts cannot be kept there: %s", path, strerror(errno));
    if (fd >= 0) (void)close(fd);
    return err->status;
}

vkm_status vkm_verdicts_open(const char *path, int log2, vkm_verdicts **out, vkm_err *err) {
    vkm_verdicts *v = vkm_calloc(1, sizeof *v, "verdicts", err);
    *out = NULL;
    if (!v) return err->status;
    v->mask = (1ull << log2) - 1;
    if (path && path[0])
        (void)!map_file(v, path, log2, err);
    else
        v->places = vkm_calloc((size_t)1 << log2, sizeof *v->places, "verdicts", err);
    if (err->status)
        vkm_verdicts_close(v);
    else
        *out = v;
    return err->status;
}

void vkm_verdicts_close(vkm_verdicts *v) {
    if (!v) return;
    if (v->map)
        (void)munmap(v->map, v->n_map);
    else
        free(v->places);
    free(v);
}

/* ---- places ------------------------------------------------------------------------------------
 */

/* The flags of the evidence, a bit each. */
static bool *flag(vkm_evidence *e, int i) {
    bool *const all[] = {
        &e->format_ok,          &e->can_compile,          &e->gt_pass, &e->gt_correct, &e->hacked,
        &e->hacked_wrong_tests, &e->hacked_loophole_used, &e->fired};
    return i < (int)VKM_COUNTOF(all) ? all[i] : NULL;
}

bool vkm_verdicts_get(const vkm_verdicts *v, vkm_hash128 key, vkm_grade *out) {
    place p = v->places[key.lo & v->mask];
    if (!(p.flags & USED) || p.key.lo != key.lo || p.key.hi != key.hi || p.check != check_of(&p))
        return false;
    *out = (vkm_grade){.cpu_limited = (p.flags & CPU_LIMITED) != 0,
                       .from_cache = true,
                       .cpu_s = (double)p.cpu_s,
                       .wall_s = (double)p.wall_s};
    for (int i = 0; flag(&out->evidence, i); i++) *flag(&out->evidence, i) = p.flags >> i & 1;
    return true;
}

void vkm_verdicts_put(vkm_verdicts *v, vkm_hash128 key, const vkm_grade *grade) {
    vkm_evidence e = grade->evidence;
    if (grade->infra_error || grade->wall_limited) return;
    place p = {.key = key,
               .flags = USED | (grade->cpu_limited ? CPU_LIMITED : 0),
               .cpu_s = (float)grade->cpu_s,
               .wall_s = (float)grade->wall_s};
    for (int i = 0; flag(&e, i); i++) p.flags |= (uint32_t)*flag(&e, i) << i;
    p.check = check_of(&p);
    v->places[key.lo & v->mask] = p;
}
