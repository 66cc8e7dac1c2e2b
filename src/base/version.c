/* Owns the version and commit of the build; commit.h is written by tools/commit.cmake. */
#include "commit.h"
#include "vkmoe.h"

const char *vkm_version(void) {
    return VKM_VERSION;
}
const char *vkm_commit(void) {
    return VKM_COMMIT;
}
