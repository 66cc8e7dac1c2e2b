/* safetensors files: a strict reader by memory map, and a streaming writer with atomic save.
 * The reader takes one file, or a folder with model.safetensors or model.safetensors.index.json and
 * its shards. Every size is checked before use; the tensors must cover the file exactly. */
#ifndef VKM_SAFETENSORS_H
#define VKM_SAFETENSORS_H

#include "base/file.h"
#include "base/strbuf.h"

enum { VKM_ST_DIMS = 8 };

/* X(name in the file and enum, bytes an element) */
/* clang-format off */
#define VKM_ST_DTYPES(X)                                                                           \
    X(BOOL, 1) X(U8, 1) X(I8, 1) X(F8_E5M2, 1) X(F8_E4M3, 1)                                       \
    X(I16, 2) X(U16, 2) X(F16, 2) X(BF16, 2)                                                       \
    X(I32, 4) X(U32, 4) X(F32, 4) X(F64, 8) X(I64, 8) X(U64, 8)
/* clang-format on */
typedef enum vkm_st_dtype {
#define X(name, bytes) VKM_ST_##name,
    VKM_ST_DTYPES(X)
#undef X
        VKM_ST_N_DTYPES
} vkm_st_dtype;
const char *vkm_st_dtype_name(vkm_st_dtype t);
size_t vkm_st_dtype_bytes(vkm_st_dtype t);

/* ---- reading -----------------------------------------------------------------------------------
 */

typedef struct vkm_st_tensor {
    const char *name, *file; /* the file it lies in, for messages */
    vkm_st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[VKM_ST_DIMS];
    uint64_t n_elems, n_bytes;
    const uint8_t *data; /* in the map, may be unaligned: copy elements out with memcpy */
} vkm_st_tensor;

typedef struct vkm_st vkm_st;
/* path: a .safetensors file, or a model folder. */
vkm_status vkm_st_open(const char *path, vkm_st **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_st_close(vkm_st *s);

size_t vkm_st_count(const vkm_st *s);
const vkm_st_tensor *vkm_st_at(const vkm_st *s, size_t i);           /* in file order */
const vkm_st_tensor *vkm_st_find(const vkm_st *s, const char *name); /* NULL: not there */
/* A value of the file's __metadata__ (of any shard), or NULL. */
const char *vkm_st_metadata(const vkm_st *s, const char *key);

/* A tensor that must be there with this shape; the error prints both shapes and the nearest name.
 */
vkm_status vkm_st_expect(const vkm_st *s, const char *name, uint32_t n_dims, const uint64_t *shape,
                         const vkm_st_tensor **out, vkm_err *err) VKM_MUST_CHECK;
/* The same with a dtype, for files whose bits count (checkpoints): exact bytes, nothing converted.
 */
vkm_status vkm_st_get(const vkm_st *s, const char *name, vkm_st_dtype dtype, uint32_t n_dims,
                      const uint64_t *shape, const vkm_st_tensor **out,
                      vkm_err *err) VKM_MUST_CHECK;

/* Converts elements [first, first + n) of a BF16, F16 or F32 tensor by the store rules of
 * ops/numerics.h: to_bf16 gives operand bits (nearest even, then below 2^-50 is +0), to_f32 gives
 * floats (denormals and -0 are +0). NaN and Inf are errors that name tensor and element. */
vkm_status vkm_st_to_bf16(const vkm_st_tensor *t, uint64_t first, uint64_t n, uint16_t *out,
                          vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_st_to_f32(const vkm_st_tensor *t, uint64_t first, uint64_t n, float *out,
                         vkm_err *err) VKM_MUST_CHECK;

/* Elements [first, first + n) are not needed soon: their pages of the map leave memory, and come
 * again from the file if they are read. */
void vkm_st_done(const vkm_st_tensor *t, uint64_t first, uint64_t n);

/* ---- writing -----------------------------------------------------------------------------------
 */

typedef struct vkm_st_entry {
    const char *name;
    vkm_st_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[VKM_ST_DIMS];
} vkm_st_entry;

typedef struct vkm_st_meta {
    const char *key, *value;
} vkm_st_meta;

/* A file being written: begin, then the bytes of the tensors in the order of `entries` in pieces of
 * any size, then commit. After a failure or abort nothing is left; a later call does nothing. */
typedef struct vkm_st_writer {
    vkm_save save;
    uint64_t left; /* bytes still to come */
} vkm_st_writer;
vkm_status vkm_st_writer_begin(vkm_st_writer *w, const char *path, const vkm_st_entry *entries,
                               size_t n, const vkm_st_meta *meta, size_t n_meta,
                               vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_st_writer_add(vkm_st_writer *w, const void *data, uint64_t n_bytes,
                             vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_st_writer_commit(vkm_st_writer *w, vkm_err *err) VKM_MUST_CHECK;
void vkm_st_writer_abort(vkm_st_writer *w);

#endif
