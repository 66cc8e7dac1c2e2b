/* Owns the checkpoint folders of a run. What is in the arrays is the trainer's business. */
#include "rl/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"

#define FORMAT    1
#define MAX_FILES 16
#define PIECE     (1u << 20) /* floats, or bytes, that are in host memory at a time */

/* ---- folders --------------------------------------------------------------------------------- */

static vkm_status folder_of(const char *run, char out[VKM_PATH_MAX], vkm_err *err) {
    return vkm_path_join(out, run, "checkpoints", err);
}

static vkm_status step_path(const char *run, const char *prefix, uint32_t step,
                            char out[VKM_PATH_MAX], vkm_err *err) {
    char dir[VKM_PATH_MAX], name[64];
    snprintf(name, sizeof name, "%sstep-%06u", prefix, step);
    if (folder_of(run, dir, err)) return err->status;
    return vkm_path_join(out, dir, name, err);
}

static vkm_status sync_folder(const char *path, vkm_err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int failed = fd < 0 || fsync(fd);
    int e = errno;
    if (fd >= 0) close(fd);
    return failed ? vkm_fail(err, VKM_FAILED, "%s: fsync: %s", path, strerror(e)) : VKM_OK;
}

static int by_step(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The step of a folder's name behind `prefix`, or -1. */
static int64_t step_of(const char *name, const char *prefix) {
    size_t n = strlen(prefix);
    unsigned step;
    char whole[64];
    if (strncmp(name, prefix, n) != 0 || sscanf(name + n, "step-%u", &step) != 1) return -1;
    snprintf(whole, sizeof whole, "%sstep-%06u", prefix, step);
    return strcmp(whole, name) == 0 ? (int64_t)step : -1;
}

vkm_status vkm_ckpt_list(const char *run, uint32_t **steps, size_t *n, vkm_err *err) {
    char dir[VKM_PATH_MAX];
    *steps = NULL;
    *n = 0;
    if (folder_of(run, dir, err)) return err->status;
    DIR *d = opendir(dir);
    if (!d) return VKM_OK;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t step = step_of(e->d_name, "");
        if (step < 0) continue;
        uint32_t *more = realloc(*steps, (*n + 1) * sizeof **steps);
        if (!more) {
            closedir(d);
            free(*steps);
            *steps = NULL;
            return vkm_fail(err, VKM_FAILED, "out of host memory for the list of checkpoints");
        }
        *steps = more;
        more[(*n)++] = (uint32_t)step;
    }
    closedir(d);
    if (*n) qsort(*steps, *n, sizeof **steps, by_step);
    return VKM_OK;
}

/* ---- saving ---------------------------------------------------------------------------------- */

typedef struct sum {
    char name[64], hex[VKM_HASH_HEX];
    uint64_t bytes;
} sum;

static vkm_status sum_file(const char *dir, const char *name, sum *out, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_hash_state h;
    if (vkm_path_join(path, dir, name, err)) return err->status;
    unsigned char *piece = vkm_calloc(PIECE, 1, "a checkpoint", err);
    if (!piece) return err->status;
    snprintf(out->name, sizeof out->name, "%s", name);
    vkm_hash_begin(&h);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : 1;
    while (got > 0 && (got = read(fd, piece, PIECE)) > 0) {
        vkm_hash_add(&h, piece, (size_t)got);
        out->bytes += (uint64_t)got;
    }
    if (got < 0) vkm_fail(err, VKM_FAILED, "%s: cannot be read: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    vkm_hash_hex(vkm_hash_now(&h), out->hex);
    free(piece);
    return err->status;
}

static vkm_status save_parts(vkm_dev *dev, const vkm_ckpt_array *a, float *piece, vkm_st_writer *w,
                             vkm_err *err) {
    for (size_t i = 0; i < a->n_parts; i++) {
        const vkm_tensor t = *a->parts[i];
        for (uint64_t at = 0, n; at < t.n && !err->status; at += n) {
            n = t.n - at < PIECE ? t.n - at : PIECE;
            if (!vkm_read(dev, vkm_view(t, at, n), piece, err))
                (void)!vkm_st_writer_add(w, piece, n * sizeof *piece, err);
        }
    }
    return err->status;
}

static uint64_t array_bytes(const vkm_ckpt_array *a) {
    uint64_t n = vkm_st_dtype_bytes(a->dtype);
    for (uint32_t i = 0; i < a->n_dims; i++) n *= a->shape[i];
    return n;
}

static vkm_status save_arrays(const char *path, vkm_dev *dev, const vkm_ckpt_file *f,
                              vkm_err *err) {
    vkm_st_writer w = {.save.fd = -1};
    vkm_st_entry *entries = vkm_calloc(f->n, sizeof *entries, "a checkpoint's table", err);
    float *piece = vkm_calloc(PIECE, sizeof *piece, "a checkpoint", err);
    for (size_t i = 0; entries && i < f->n; i++) {
        const vkm_ckpt_array *a = &f->arrays[i];
        entries[i] = (vkm_st_entry){.name = a->name, .dtype = a->dtype, .n_dims = a->n_dims};
        memcpy(entries[i].shape, a->shape, sizeof a->shape);
    }
    if (!err->status) (void)!vkm_st_writer_begin(&w, path, entries, f->n, NULL, 0, err);
    for (size_t i = 0; i < f->n && !err->status; i++) {
        const vkm_ckpt_array *a = &f->arrays[i];
        (void)!(a->data ? vkm_st_writer_add(&w, a->data, array_bytes(a), err)
                        : save_parts(dev, a, piece, &w, err));
    }
    if (!err->status) (void)!vkm_st_writer_commit(&w, err);
    vkm_st_writer_abort(&w);
    free(piece), free(entries);
    return err->status;
}

static vkm_status save_file(const char *dir, vkm_dev *dev, const vkm_ckpt_file *f, sum *out,
                            vkm_err *err) {
    char path[VKM_PATH_MAX], name[64];
    snprintf(name, sizeof name, "%s.safetensors", f->name);
    if (vkm_path_join(path, dir, name, err) || save_arrays(path, dev, f, err)) return err->status;
    return sum_file(dir, name, out, err);
}

static vkm_status save_manifest(const char *dir, const vkm_config *c, uint32_t step,
                                const sum *sums, size_t n, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 2);
    vkm_jw_obj(&w, NULL);
    vkm_jw_i64(&w, "format", FORMAT);
    vkm_jw_i64(&w, "step", step);
    vkm_jw_arr(&w, "files");
    for (size_t i = 0; i < n; i++) {
        vkm_jw_obj(&w, NULL);
        vkm_jw_str(&w, "name", sums[i].name);
        vkm_jw_u64(&w, "bytes", sums[i].bytes);
        vkm_jw_str(&w, "xxh3_128", sums[i].hex);
        vkm_jw_end_obj(&w);
    }
    vkm_jw_end_arr(&w);
    vkm_jw_obj(&w, "config");
    vkm_config_write(c, &w);
    vkm_jw_end_obj(&w);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(&text, '\n');
    vkm_status st = vkm_strbuf_check(&text, "a manifest", err);
    if (!st) st = vkm_path_join(path, dir, "manifest.json", err);
    if (!st) st = vkm_file_save(path, vkm_strbuf_str(&text), text.n, err);
    vkm_strbuf_free(&text);
    return st;
}

/* Puts the whole folder `tmp` in the place of `path`. */
static vkm_status put_in_place(const char *run, const char *tmp, const char *path, uint32_t step,
                               vkm_err *err) {
    char old[VKM_PATH_MAX], dir[VKM_PATH_MAX];
    if (step_path(run, ".old-", step, old, err) || folder_of(run, dir, err) ||
        vkm_folder_remove(old, err))
        return err->status;
    if (vkm_dir_exists(path) && rename(path, old))
        return vkm_fail(err, VKM_FAILED, "%s: rename: %s", path, strerror(errno));
    if (rename(tmp, path))
        return vkm_fail(err, VKM_FAILED, "%s: rename: %s", path, strerror(errno));
    if (sync_folder(dir, err)) return err->status;
    return vkm_folder_remove(old, err);
}

static vkm_status prune(const char *run, int64_t keep, vkm_err *err) {
    uint32_t *steps;
    size_t n;
    char path[VKM_PATH_MAX];
    if (vkm_ckpt_list(run, &steps, &n, err)) return err->status;
    for (size_t i = 0; keep && i + (size_t)keep < n && !err->status; i++)
        if (!step_path(run, "", steps[i], path, err)) (void)!vkm_folder_remove(path, err);
    free(steps);
    return err->status;
}

vkm_status vkm_ckpt_save(const vkm_config *c, uint32_t step, vkm_dev *dev,
                         const vkm_ckpt_file *files, size_t n, vkm_err *err) {
    const char *run = c->output_dir;
    char tmp[VKM_PATH_MAX], path[VKM_PATH_MAX];
    sum sums[MAX_FILES] = {0};
    VKM_BUG_ON(n > MAX_FILES, "%zu files in a checkpoint", n);
    if (step_path(run, ".tmp-", step, tmp, err) || step_path(run, "", step, path, err) ||
        vkm_folder_remove(tmp, err) || vkm_dir_make(tmp, err))
        return err->status;
    for (size_t i = 0; i < n && !err->status; i++)
        (void)save_file(tmp, dev, &files[i], &sums[i], err);
    if (err->status || save_manifest(tmp, c, step, sums, n, err) || sync_folder(tmp, err) ||
        put_in_place(run, tmp, path, step, err)) {
        vkm_err ignored = {0};
        (void)!vkm_folder_remove(tmp, &ignored);
        return vkm_fail_in(err, "checkpoint of step %u was not saved", step);
    }
    return prune(run, c->save_total_limit, err);
}

/* ---- after a kill ---------------------------------------------------------------------------- */

static vkm_status recover_one(const char *run, const char *name, vkm_err *err) {
    char old[VKM_PATH_MAX], tmp[VKM_PATH_MAX], path[VKM_PATH_MAX];
    int64_t saved = step_of(name, ".old-"), begun = step_of(name, ".tmp-");
    if (begun >= 0 && !step_path(run, ".tmp-", (uint32_t)begun, tmp, err))
        return vkm_folder_remove(tmp, err);
    if (saved < 0 || step_path(run, ".old-", (uint32_t)saved, old, err) ||
        step_path(run, "", (uint32_t)saved, path, err))
        return err->status;
    if (vkm_dir_exists(path)) return vkm_folder_remove(old, err);
    vkm_warn("%s: brought back: a save of this step was interrupted", path);
    if (rename(old, path))
        return vkm_fail(err, VKM_FAILED, "%s: cannot be renamed to %s: %s", old, path,
                        strerror(errno));
    return VKM_OK;
}

vkm_status vkm_ckpt_recover(const char *run, vkm_err *err) {
    char dir[VKM_PATH_MAX];
    struct dirent **names = NULL;
    if (folder_of(run, dir, err)) return err->status;
    int n = scandir(dir, &names, NULL, alphasort); /* the list first: the folder changes */
    for (int i = 0; i < n; i++) {
        if (!err->status) (void)!recover_one(run, names[i]->d_name, err);
        free(names[i]);
    }
    free(names);
    return err->status;
}

/* ---- reading --------------------------------------------------------------------------------- */

static vkm_status verify_files(const char *path, vkm_jv files, vkm_err *err) {
    for (vkm_jv f = vkm_json_first(files); f.v; f = vkm_json_next(f)) {
        const char *name, *hex;
        uint64_t bytes;
        sum now = {0};
        if (vkm_json_get_str(f, "name", VKM_JSON_REQ, &name, err) ||
            vkm_json_get_u64(f, "bytes", VKM_JSON_REQ, &bytes, err) ||
            vkm_json_get_str(f, "xxh3_128", VKM_JSON_REQ, &hex, err))
            return err->status;
        if (strchr(name, '/')) return vkm_json_fail(f, err, "'%s' is not a file's name", name);
        if (sum_file(path, name, &now, err)) return err->status;
        if (now.bytes != bytes || strcmp(now.hex, hex) != 0)
            return vkm_fail(err, VKM_FAILED,
                            "%s/%s: damaged: %llu bytes of hash %s, the manifest has %llu of %s; "
                            "resume from an older checkpoint",
                            path, name, (unsigned long long)now.bytes, now.hex,
                            (unsigned long long)bytes, hex);
    }
    return VKM_OK;
}

vkm_status vkm_ckpt_verify(const char *path, uint32_t *step, vkm_config *saved, vkm_err *err) {
    char manifest[VKM_PATH_MAX];
    vkm_json *doc = NULL;
    int64_t format, at;
    vkm_jv files, config;
    if (vkm_path_join(manifest, path, "manifest.json", err) ||
        vkm_json_load(manifest, NULL, &doc, err))
        return err->status;
    vkm_jv root = vkm_json_root(doc);
    vkm_status st = vkm_json_get_i64(root, "format", VKM_JSON_REQ, FORMAT, FORMAT, &format, err);
    if (!st) st = vkm_json_get_i64(root, "step", VKM_JSON_REQ, 0, UINT32_MAX, &at, err);
    if (!st) st = vkm_json_get_array(root, "files", VKM_JSON_REQ, &files, err);
    if (!st) st = vkm_json_get_object(root, "config", VKM_JSON_REQ, &config, err);
    if (!st) st = verify_files(path, files, err);
    if (!st && step) *step = (uint32_t)at;
    if (!st && saved) {
        vkm_config_default(saved);
        st = vkm_config_read(saved, config, err);
    }
    vkm_json_free(doc);
    return st;
}

vkm_status vkm_ckpt_find(const vkm_config *c, char path[VKM_PATH_MAX], vkm_err *err) {
    uint32_t *steps;
    size_t n;
    int found = 0;
    if (strcmp(c->resume_from_checkpoint, "latest") != 0)
        return vkm_path_join(path, "", c->resume_from_checkpoint, err);
    if (vkm_ckpt_list(c->output_dir, &steps, &n, err)) return err->status;
    for (size_t i = n; i-- && !found && !err->status;) {
        vkm_err local = {0};
        if (step_path(c->output_dir, "", steps[i], path, err)) break;
        found = vkm_ckpt_verify(path, NULL, NULL, &local) == VKM_OK;
        if (!found) vkm_warn("%s", local.msg);
    }
    free(steps);
    if (err->status || found) return err->status;
    return vkm_fail(err, VKM_FAILED,
                    "%s: no checkpoint to resume from (%zu folders, none whole); leave "
                    "resume_from_checkpoint empty to begin anew in another output_dir",
                    c->output_dir, n);
}

static vkm_status load_array(vkm_dev *dev, const vkm_ckpt_array *a, const vkm_st_tensor *t,
                             vkm_err *err) {
    const uint8_t *from = t->data;
    if (a->data) {
        memcpy(a->data, from, t->n_bytes);
        return VKM_OK;
    }
    for (size_t i = 0; i < a->n_parts; i++) {
        if (vkm_write(dev, *a->parts[i], from, err)) return err->status;
        vkm_st_done(t, (uint64_t)(from - (const uint8_t *)t->data) / sizeof(float), a->parts[i]->n);
        from += a->parts[i]->n * sizeof(float);
    }
    return VKM_OK;
}

static vkm_status load_file(const char *dir, vkm_dev *dev, const vkm_ckpt_file *f, vkm_err *err) {
    char path[VKM_PATH_MAX], name[64];
    vkm_st *s = NULL;
    snprintf(name, sizeof name, "%s.safetensors", f->name);
    if (vkm_path_join(path, dir, name, err) || vkm_st_open(path, &s, err)) return err->status;
    for (size_t i = 0; i < f->n && !err->status; i++) {
        const vkm_ckpt_array *a = &f->arrays[i];
        const vkm_st_tensor *t;
        if (!vkm_st_get(s, a->name, a->dtype, a->n_dims, a->shape, &t, err))
            (void)!load_array(dev, a, t, err);
    }
    if (!err->status && vkm_st_count(s) != f->n)
        vkm_fail(err, VKM_FAILED, "%s: holds %zu arrays, this run has %zu", path, vkm_st_count(s),
                 f->n);
    vkm_st_close(s);
    return err->status;
}

vkm_status vkm_ckpt_load(const vkm_config *c, const char *path, vkm_dev *dev,
                         const vkm_ckpt_file *files, size_t n, uint32_t *step, vkm_err *err) {
    vkm_config *saved = vkm_calloc(1, sizeof *saved, "a config", err);
    if (!saved) return err->status;
    vkm_status st = vkm_ckpt_verify(path, step, saved, err);
    if (!st && vkm_config_same_run(saved, c, err)) st = vkm_fail_in(err, "%s", path);
    free(saved);
    for (size_t i = 0; i < n && !st; i++) st = load_file(path, dev, &files[i], err);
    return st;
}
