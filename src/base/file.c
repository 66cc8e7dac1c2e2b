/* Owns reading, mapping and atomically saving files. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static const char *mend(int e) {
    switch (e) {
    case ENOENT:
        return "; is the path right?";
    case EACCES:
    case EPERM:
        return "; check its permissions and those of its folder";
    case EROFS:
        return "; choose another folder";
    case ENOSPC:
    case EDQUOT:
        return "; free some space and run again, the old file (if any) is untouched";
    case EFBIG:
        return "; raise `ulimit -f` and run again, the old file (if any) is untouched";
    case EMFILE:
        return "; raise `ulimit -n`";
    default:
        return "";
    }
}

static vkm_status fail_errno(vkm_err *err, const char *verb, const char *path) {
    int e = errno;
    return vkm_fail(err, VKM_FAILED, "%s: cannot %s: %s%s", path, verb, strerror(e), mend(e));
}

vkm_status vkm_path_join(char out[VKM_PATH_MAX], const char *dir, const char *name, vkm_err *err) {
    size_t nd = dir ? strlen(dir) : 0;
    const char *sep = nd && dir[nd - 1] != '/' ? "/" : "";
    int n = snprintf(out, VKM_PATH_MAX, "%s%s%s", nd ? dir : "", sep, name);
    if (n >= 0 && n < VKM_PATH_MAX) return VKM_OK;
    return vkm_fail(err, VKM_FAILED, "path longer than %d bytes: %.80s...", VKM_PATH_MAX - 1,
                    nd ? dir : name);
}

bool vkm_file_exists(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode);
}

bool vkm_dir_exists(const char *path) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

vkm_status vkm_dir_make(const char *path, vkm_err *err) {
    char p[VKM_PATH_MAX];
    if (!*path) return vkm_fail(err, VKM_FAILED, "cannot make a folder with an empty name");
    vkm_status st = vkm_path_join(p, NULL, path, err);
    if (st) return st;
    for (char *slash = p + 1;; slash++) {
        if (*slash && *slash != '/') continue;
        char keep = *slash;
        *slash = 0;
        if (mkdir(p, 0777) && !vkm_dir_exists(p)) return fail_errno(err, "make the folder", p);
        *slash = keep;
        if (!keep) return VKM_OK;
    }
}

/* Unpacks into memory that doubles, so that a small hostile file cannot take max_bytes at once. */
static vkm_status read_gz(const char *path, size_t max_bytes, char **data, size_t *n,
                          vkm_err *err) {
    gzFile f = gzopen(path, "rb");
    if (!f) return fail_errno(err, "open", path);
    size_t cap = 1 << 16, got = 0;
    char *p = malloc(cap);
    vkm_status st = VKM_OK;
    while (p) {
        size_t room = cap - 1 - got;
        int r = gzread(f, p + got, (unsigned)(room > 1 << 20 ? 1 << 20 : room));
        if (r < 0) {
            int code;
            st = vkm_fail(err, VKM_FAILED, "%s: damaged gzip data (%s); fetch or make it again",
                          path, gzerror(f, &code));
            break;
        }
        if (!r) break;
        got += (size_t)r;
        if (got > max_bytes) {
            st = vkm_fail(err, VKM_FAILED, "%s: unpacks to more than the %zu bytes allowed here",
                          path, max_bytes);
            break;
        }
        if (cap - 1 - got == 0) {
            char *q = cap > SIZE_MAX / 2 ? NULL : realloc(p, cap *= 2);
            if (!q) free(p);
            p = q;
        }
    }
    int closed = gzclose_r(f);
    if (!p) st = vkm_fail(err, VKM_FAILED, "%s: out of host memory while unpacking", path);
    if (!st && closed != Z_OK)
        st = vkm_fail(err, VKM_FAILED, "%s: truncated gzip data; fetch or make it again", path);
    if (st || !p) {
        free(p);
        return st;
    }
    p[got] = 0;
    *data = p;
    *n = got;
    return VKM_OK;
}

vkm_status vkm_file_read(const char *path, size_t max_bytes, char **data, size_t *n, vkm_err *err) {
    *data = NULL;
    *n = 0;
    vkm_status st = VKM_OK;
    char *p = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(err, "open", path);
    struct stat s;
    if (fstat(fd, &s)) {
        st = fail_errno(err, "stat", path);
        goto fail;
    }
    if (S_ISDIR(s.st_mode)) {
        st = vkm_fail(err, VKM_FAILED, "%s: is a folder, not a file", path);
        goto fail;
    }
    unsigned char magic[2];
    if (S_ISREG(s.st_mode) && pread(fd, magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b) {
        close(fd);
        return read_gz(path, max_bytes, data, n, err);
    }
    /* a pipe or /proc file says size 0: read until the end in either case */
    size_t cap = (s.st_size > 0 && (uint64_t)s.st_size <= max_bytes ? (size_t)s.st_size : 4096) + 2;
    size_t got = 0;
    if (s.st_size > 0 && (uint64_t)s.st_size > max_bytes) {
        st = vkm_fail(err, VKM_FAILED, "%s: is %lld bytes long, at most %zu are allowed here", path,
                      (long long)s.st_size, max_bytes);
        goto fail;
    }
    p = malloc(cap);
    while (p) {
        ssize_t r = read(fd, p + got, cap - 1 - got);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) {
            st = fail_errno(err, "read", path);
            goto fail;
        }
        if (!r) break;
        got += (size_t)r;
        if (got > max_bytes) {
            st = vkm_fail(err, VKM_FAILED, "%s: is longer than the %zu bytes allowed here", path,
                          max_bytes);
            goto fail;
        }
        if (got == cap - 1) {
            char *q = cap > SIZE_MAX / 2 ? NULL : realloc(p, cap *= 2);
            if (!q) free(p);
            p = q;
        }
    }
    if (!p) {
        st = vkm_fail(err, VKM_FAILED, "%s: out of host memory while reading", path);
        goto fail;
    }
    close(fd);
    p[got] = 0;
    *data = p;
    *n = got;
    return VKM_OK;
fail:
    free(p);
    close(fd);
    return st;
}

vkm_status vkm_map_open(vkm_map *m, const char *path, vkm_err *err) {
    *m = (vkm_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(err, "open", path);
    vkm_status st = VKM_OK;
    struct stat s;
    if (fstat(fd, &s)) {
        st = fail_errno(err, "stat", path);
    } else if (!S_ISREG(s.st_mode)) {
        st = vkm_fail(err, VKM_FAILED, "%s: is not a regular file", path);
    } else if (s.st_size > 0) {
        void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            st = fail_errno(err, "map", path);
        else
            *m = (vkm_map){p, (size_t)s.st_size};
    }
    close(fd);
    return st;
}

void vkm_map_close(vkm_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->n);
    *m = (vkm_map){0};
}

vkm_status vkm_save_begin(vkm_save *s, const char *path, vkm_err *err) {
    static unsigned counter;
    s->fd = -1;
    s->written = 0;
    vkm_status st = vkm_path_join(s->path, NULL, path, err);
    if (st) return st;
    unsigned serial = __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED);
    int n = snprintf(s->tmp, sizeof s->tmp, "%s.tmp.%d.%u", path, (int)getpid(), serial);
    if (n < 0 || n >= (int)sizeof s->tmp)
        return vkm_fail(err, VKM_FAILED, "path longer than %d bytes: %.80s...", VKM_PATH_MAX - 1,
                        path);
    s->fd = open(s->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s->fd < 0 && errno == EEXIST && !unlink(s->tmp)) /* left by a killed process of this id */
        s->fd = open(s->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return s->fd < 0 ? fail_errno(err, "create", s->tmp) : VKM_OK;
}

static vkm_status write_all(int fd, const void *data, size_t n, const char *path, vkm_err *err) {
    const char *p = data;
    while (n) {
        ssize_t w = write(fd, p, n < 1u << 30 ? n : 1u << 30);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return fail_errno(err, "write", path);
        p += w;
        n -= (size_t)w;
    }
    return VKM_OK;
}

vkm_status vkm_save_write(vkm_save *s, const void *data, size_t n, vkm_err *err) {
    VKM_BUG_ON(s->fd < 0, "the save of %s is over", s->path);
    vkm_status st = write_all(s->fd, data, n, s->path, err);
    if (st)
        vkm_save_abort(s);
    else
        s->written += n;
    return st;
}

static vkm_status sync_folder(const char *path, vkm_err *err) {
    char dir[VKM_PATH_MAX];
    vkm_status st = vkm_path_join(dir, NULL, path, err);
    if (st) return st;
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    else
        strcpy(dir, ".");
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_errno(err, "open the folder", dir);
    /* some file systems cannot fsync a folder (EINVAL): the rename is then as safe as they make it
     */
    if (fsync(fd) && errno != EINVAL && errno != ENOTSUP) st = fail_errno(err, "fsync", dir);
    close(fd);
    return st;
}

vkm_status vkm_save_commit(vkm_save *s, vkm_err *err) {
    VKM_BUG_ON(s->fd < 0, "the save of %s is over", s->path);
    const char *verb = NULL;
    int fd = s->fd;
    if (fsync(fd)) verb = "fsync";
    int e = errno;
    s->fd = -1;
    if (close(fd) && !verb) verb = "close", e = errno;
    if (!verb && rename(s->tmp, s->path)) verb = "rename the finished file to", e = errno;
    if (verb) {
        unlink(s->tmp);
        errno = e;
        return fail_errno(err, verb, s->path);
    }
    return sync_folder(s->path, err);
}

void vkm_save_abort(vkm_save *s) {
    if (s->fd < 0) return;
    close(s->fd);
    unlink(s->tmp);
    s->fd = -1;
}

vkm_status vkm_file_save(const char *path, const void *data, size_t n, vkm_err *err) {
    vkm_save s;
    vkm_status st = vkm_save_begin(&s, path, err);
    if (!st) st = vkm_save_write(&s, data, n, err);
    return st ? st : vkm_save_commit(&s, err);
}

vkm_status vkm_file_append(const char *path, const void *data, size_t n, vkm_err *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) return fail_errno(err, "open", path);
    vkm_status st = write_all(fd, data, n, path, err);
    if (close(fd) && !st) st = fail_errno(err, "close", path);
    return st;
}

vkm_status vkm_folder_remove(const char *path, vkm_err *err) {
    DIR *d = opendir(path);
    if (!d) return VKM_OK;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    if (rmdir(path))
        return vkm_fail(err, VKM_FAILED, "%s: cannot be removed: %s", path, strerror(errno));
    return VKM_OK;
}
