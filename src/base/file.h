/* Files: whole reads with a cap, read-only maps, and saves that are all or nothing.
 * A save writes a temporary name in the same folder, fsyncs it, renames it over the target and
 * fsyncs the folder: after a crash or a full disk the target is the old file or the new one. */
#ifndef VKM_FILE_H
#define VKM_FILE_H

#include "base/status.h"

#include <stdbool.h>

enum { VKM_PATH_MAX = 4096 };

/* Joins folder and name with one '/' ("" or NULL folder: the name alone). */
vkm_status vkm_path_join(char out[VKM_PATH_MAX], const char *dir, const char *name,
                         vkm_err *err) VKM_MUST_CHECK;

bool vkm_file_exists(const char *path); /* a regular file, links followed */
bool vkm_dir_exists(const char *path);
/* Makes the folder and its parents; fine when it is there. */
vkm_status vkm_dir_make(const char *path, vkm_err *err) VKM_MUST_CHECK;

/* Reads a whole file of at most max_bytes into memory, which has a NUL after its n bytes. A gzip
 * file (by its magic) is unpacked, and max_bytes holds for the unpacked size. Free with free(). */
vkm_status vkm_file_read(const char *path, size_t max_bytes, char **data, size_t *n,
                         vkm_err *err) VKM_MUST_CHECK;

/* A read-only map of a file. The file must not be truncated by others while it is mapped. */
typedef struct vkm_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t n;
} vkm_map;
vkm_status vkm_map_open(vkm_map *m, const char *path, vkm_err *err) VKM_MUST_CHECK;
void vkm_map_close(vkm_map *m); /* a zeroed map is fine */

/* An unfinished atomic save. */
typedef struct vkm_save {
    int fd; /* -1 when none is open */
    uint64_t written;
    char path[VKM_PATH_MAX], tmp[VKM_PATH_MAX];
} vkm_save;
vkm_status vkm_save_begin(vkm_save *s, const char *path, vkm_err *err) VKM_MUST_CHECK;
/* On failure (a full disk) the temporary file is removed and the save is over. */
vkm_status vkm_save_write(vkm_save *s, const void *data, size_t n, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_save_commit(vkm_save *s, vkm_err *err) VKM_MUST_CHECK;
/* Gives the save up and removes the temporary file; nothing after a commit or a failure. */
void vkm_save_abort(vkm_save *s);

/* One atomic save of n bytes. */
vkm_status vkm_file_save(const char *path, const void *data, size_t n, vkm_err *err) VKM_MUST_CHECK;
/* Appends n bytes in one write (made if absent): for logs of lines. Not fsynced. */
vkm_status vkm_file_append(const char *path, const void *data, size_t n,
                           vkm_err *err) VKM_MUST_CHECK;

/* Removes a folder of plain files; fine when there is none. */
vkm_status vkm_folder_remove(const char *path, vkm_err *err) VKM_MUST_CHECK;

#endif
