/* Owns writing safetensors: the header first (its sizes are known from the entries), then the bytes
 * as they come, all into an atomic save. */
#include "base/json.h"
#include "model/safetensors.h"

#include <inttypes.h>
#include <string.h>

static uint64_t entry_bytes(const vkm_st_entry *e) {
    uint64_t n = vkm_st_dtype_bytes(e->dtype);
    VKM_BUG_ON(e->n_dims > VKM_ST_DIMS, "%s", e->name);
    for (uint32_t i = 0; i < e->n_dims; i++)
        VKM_BUG_ON(__builtin_mul_overflow(n, e->shape[i], &n), "%s", e->name);
    return n;
}

/* The 8 length bytes and the header, padded with spaces to a multiple of 8. */
static uint64_t write_header(vkm_strbuf *b, const vkm_st_entry *entries, size_t n,
                             const vkm_st_meta *meta, size_t n_meta) {
    uint64_t at = 0;
    vkm_strbuf_add(b, "\0\0\0\0\0\0\0", 8);
    vkm_jw w = vkm_jw_begin(b, 0);
    vkm_jw_obj(&w, NULL);
    if (n_meta) vkm_jw_obj(&w, "__metadata__");
    for (size_t i = 0; i < n_meta; i++) vkm_jw_str(&w, meta[i].key, meta[i].value);
    if (n_meta) vkm_jw_end_obj(&w);
    for (size_t i = 0; i < n; i++) {
        const vkm_st_entry *e = &entries[i];
        vkm_jw_obj(&w, e->name);
        vkm_jw_str(&w, "dtype", vkm_st_dtype_name(e->dtype));
        vkm_jw_arr(&w, "shape");
        for (uint32_t d = 0; d < e->n_dims; d++) vkm_jw_u64(&w, NULL, e->shape[d]);
        vkm_jw_end_arr(&w);
        vkm_jw_arr(&w, "data_offsets");
        vkm_jw_u64(&w, NULL, at);
        vkm_jw_u64(&w, NULL, at += entry_bytes(e));
        vkm_jw_end_arr(&w);
        vkm_jw_end_obj(&w);
    }
    vkm_jw_end_obj(&w);
    while (b->n % 8 && !b->failed) vkm_strbuf_putc(b, ' ');
    for (int i = 0; i < 8 && !b->failed; i++) b->data[i] = (char)((b->n - 8) >> (8 * i) & 0xFF);
    return at;
}

vkm_status vkm_st_writer_begin(vkm_st_writer *w, const char *path, const vkm_st_entry *entries,
                               size_t n, const vkm_st_meta *meta, size_t n_meta, vkm_err *err) {
    vkm_strbuf header = {0};
    w->save.fd = -1;
    w->save.path[0] = 0;
    w->left = write_header(&header, entries, n, meta, n_meta);
    vkm_status st = vkm_strbuf_check(&header, path, err);
    if (!st) st = vkm_save_begin(&w->save, path, err);
    if (!st) st = vkm_save_write(&w->save, header.data, header.n, err);
    vkm_strbuf_free(&header);
    return st;
}

vkm_status vkm_st_writer_add(vkm_st_writer *w, const void *data, uint64_t n_bytes, vkm_err *err) {
    if (w->save.fd < 0) return vkm_fail(err, VKM_FAILED, "%s: the save is over", w->save.path);
    VKM_BUG_ON(n_bytes > w->left, "%" PRIu64 " bytes for the %" PRIu64 " left", n_bytes, w->left);
    w->left -= n_bytes;
    return vkm_save_write(&w->save, data, n_bytes, err);
}

vkm_status vkm_st_writer_commit(vkm_st_writer *w, vkm_err *err) {
    if (w->save.fd < 0) return vkm_fail(err, VKM_FAILED, "%s: the save is over", w->save.path);
    VKM_BUG_ON(w->left, "%" PRIu64 " bytes are missing", w->left);
    return vkm_save_commit(&w->save, err);
}

void vkm_st_writer_abort(vkm_st_writer *w) {
    vkm_save_abort(&w->save);
}
