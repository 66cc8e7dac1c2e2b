/* The configuration of a run: a flat struct with one field a key of config.def. */
#ifndef VKM_CONFIG_H
#define VKM_CONFIG_H

#include "base/json.h"

#define VKM_CONFIG_STRING_BYTES 1024

/* Enumerated keys: VKM_loss_type_dr_grpo and so on. */
#define SECTION(may_change, title)
#define INT(key, def, min, max, meaning)
#define FLOAT(key, def, min, max, meaning)
#define STRING(key, def, meaning)
#define FLAG(key, def, meaning)
#define CHOICE(key, def, values, meaning) typedef enum { values } vkm_choice_##key;
#define V(key, value)                     VKM_##key##_##value,
#include "rl/config.def"
#undef INT
#undef FLOAT
#undef STRING
#undef FLAG
#undef CHOICE

struct vkm_config {
#define INT(key, def, min, max, meaning)   int64_t key;
#define FLOAT(key, def, min, max, meaning) double key;
#define STRING(key, def, meaning)          char key[VKM_CONFIG_STRING_BYTES];
#define FLAG(key, def, meaning)            int key;
#define CHOICE(key, def, values, meaning)  vkm_choice_##key key;
#include "rl/config.def"
#undef SECTION
#undef INT
#undef FLOAT
#undef STRING
#undef FLAG
#undef CHOICE
#undef V
};

typedef enum {
    VKM_KEY_SECTION, /* not a key: a title */
    VKM_KEY_INT,
    VKM_KEY_FLOAT,
    VKM_KEY_STRING,
    VKM_KEY_FLAG,
    VKM_KEY_CHOICE
} vkm_key_type;

typedef struct vkm_key {
    const char *name;
    vkm_key_type type;
    size_t offset;
    double min, max;
    const char *choices; /* "a|b" */
    const char *meaning;
    int may_change; /* a section's: its keys may differ in a resumed run */
} vkm_key;

extern const vkm_key vkm_keys[];
extern const size_t vkm_n_keys;

/* More of it, such as loading a file or preset, is in vkmoe.h. */
void vkm_config_default(vkm_config *c);
/* What the rows alone cannot say: required keys, and keys that contradict each other. */
vkm_status vkm_config_check(const vkm_config *c, vkm_err *err) VKM_MUST_CHECK;
/* Fails on the first key that a resumed run must not change, naming key and both values. */
vkm_status vkm_config_same_run(const vkm_config *saved, const vkm_config *now,
                               vkm_err *err) VKM_MUST_CHECK;
/* One value as text, as --set would take it. */
#define VKM_VALUE_BYTES VKM_CONFIG_STRING_BYTES
const char *vkm_config_value(const vkm_config *c, const vkm_key *k, char out[VKM_VALUE_BYTES]);
/* All keys as members of the JSON object that w has open, and back: strict, an unknown key is an
 * error with the nearest; absent keys keep their value. */
void vkm_config_write(const vkm_config *c, vkm_jw *w);
vkm_status vkm_config_read(vkm_config *c, vkm_jv object, vkm_err *err) VKM_MUST_CHECK;

/* Path of a file that comes with the program ("configs/smoke.json", "data/pairs.md"): beside the
 * working folder, else beside the program or in the folders above it. */
vkm_status vkm_shipped_path(const char *relative, char out[VKM_CONFIG_STRING_BYTES],
                            vkm_err *err) VKM_MUST_CHECK;

#endif
