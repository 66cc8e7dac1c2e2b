/* What was built: the version, and the commit it was built from. */
#ifndef VKM_VERSION_H
#define VKM_VERSION_H

const char *vkm_version(void); /* "0.1.0" */
const char *vkm_commit(void);  /* "1a2b3c4d5e6f", with "+" if files were changed, or "unknown" */

#endif
