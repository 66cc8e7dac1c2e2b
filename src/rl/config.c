/* Owns the keys of a run: defaults, parsing, checks, text and JSON forms. */
#include "rl/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* Choices begin with '|' while they are pasted together; the table skips it. */
#define V(key, value)              "|" #value
#define SECTION(may_change, title) {title, VKM_KEY_SECTION, 0, 0, 0, NULL, NULL, may_change},
#define ROW(key, type, min, max, choices, meaning)                                                 \
    {#key, type, offsetof(vkm_config, key), min, max, choices, meaning, 0},
#define INT(key, def, min, max, meaning)   ROW(key, VKM_KEY_INT, min, max, NULL, meaning)
#define FLOAT(key, def, min, max, meaning) ROW(key, VKM_KEY_FLOAT, min, max, NULL, meaning)
#define STRING(key, def, meaning)          ROW(key, VKM_KEY_STRING, 0, 0, NULL, meaning)
#define FLAG(key, def, meaning)            ROW(key, VKM_KEY_FLAG, 0, 1, "false|true", meaning)
#define CHOICE(key, def, values, meaning)  ROW(key, VKM_KEY_CHOICE, 0, 0, &(values)[1], meaning)
const vkm_key vkm_keys[] = {
#include "rl/config.def"
};
#undef V
#undef SECTION
#undef INT
#undef FLOAT
#undef STRING
#undef FLAG
#undef CHOICE
const size_t vkm_n_keys = VKM_COUNTOF(vkm_keys);

_Static_assert(sizeof(vkm_choice_loss_type) == sizeof(int), "choices are stored as int");

void vkm_config_default(vkm_config *c) {
    *c = (vkm_config){
#define SECTION(may_change, title)
#define INT(key, def, min, max, meaning)   .key = (def),
#define FLOAT(key, def, min, max, meaning) .key = (def),
#define STRING(key, def, meaning)          .key = def,
#define FLAG(key, def, meaning)            .key = (def),
#define CHOICE(key, def, values, meaning)  .key = VKM_##key##_##def,
#include "rl/config.def"
    };
}

vkm_config *vkm_config_new(vkm_err *err) {
    vkm_config *c = vkm_calloc(1, sizeof *c, "a config", err);
    if (c) vkm_config_default(c);
    return c;
}

void vkm_config_free(vkm_config *c) {
    free(c);
}

static void *field(vkm_config *c, const vkm_key *k) {
    return (char *)c + k->offset;
}
static const void *field_of(const vkm_config *c, const vkm_key *k) {
    return (const char *)c + k->offset;
}

static const vkm_key *find_key(const char *name) {
    for (size_t i = 0; i < vkm_n_keys; i++)
        if (vkm_keys[i].type != VKM_KEY_SECTION && vkm_text_same(vkm_keys[i].name, name))
            return &vkm_keys[i];
    return NULL;
}

static const char *hint_for(const char *name, char out[VKM_CHOICE_BYTES * 2]) {
    const char *names[VKM_COUNTOF(vkm_keys)] = {0};
    for (size_t i = 0; i < vkm_n_keys; i++)
        if (vkm_keys[i].type != VKM_KEY_SECTION) names[i] = vkm_keys[i].name;
    return vkm_text_hint(name, "", names, vkm_n_keys, out);
}

static vkm_status set_string(char *out, const char *key, const char *text, vkm_err *err) {
    if (strlen(text) >= VKM_CONFIG_STRING_BYTES)
        return vkm_fail(err, VKM_USAGE, "%s: longer than %d bytes", key,
                        VKM_CONFIG_STRING_BYTES - 1);
    strcpy(out, text);
    return VKM_OK;
}

vkm_status vkm_config_set(vkm_config *c, const char *key, const char *text, vkm_err *err) {
    const vkm_key *k = find_key(key);
    char hint[VKM_CHOICE_BYTES * 2];
    if (!k)
        return vkm_fail(err, VKM_USAGE, "unknown key '%s'%s; `vkmoe config` lists them", key,
                        hint_for(key, hint));
    switch (k->type) {
    case VKM_KEY_INT:
        return vkm_text_int(k->name, text, (int64_t)k->min, (int64_t)k->max, field(c, k), err);
    case VKM_KEY_FLOAT:
        return vkm_text_float(k->name, text, k->min, k->max, field(c, k), err);
    case VKM_KEY_FLAG:
    case VKM_KEY_CHOICE:
        return vkm_text_choice(k->name, text, k->choices, field(c, k), err);
    case VKM_KEY_STRING:
        return set_string(field(c, k), k->name, text, err);
    case VKM_KEY_SECTION:
        break;
    }
    return VKM_OK;
}

const char *vkm_config_value(const vkm_config *c, const vkm_key *k, char out[VKM_VALUE_BYTES]) {
    const void *p = field_of(c, k);
    out[0] = 0;
    switch (k->type) {
    case VKM_KEY_INT:
        snprintf(out, VKM_VALUE_BYTES, "%lld", (long long)*(const int64_t *)p);
        break;
    case VKM_KEY_FLOAT: /* the fewest digits that read back as the same number */
        for (int digits = 6; digits <= 17; digits++) {
            snprintf(out, VKM_VALUE_BYTES, "%.*g", digits, *(const double *)p);
            if (strtod(out, NULL) == *(const double *)p) break;
        }
        break;
    case VKM_KEY_FLAG:
    case VKM_KEY_CHOICE:
        return vkm_text_choice_name(k->choices, *(const int *)p, out);
    case VKM_KEY_STRING:
        snprintf(out, VKM_VALUE_BYTES, "%s", (const char *)p);
        break;
    case VKM_KEY_SECTION:
        break;
    }
    return out;
}

vkm_status vkm_config_same_run(const vkm_config *saved, const vkm_config *now, vkm_err *err) {
    char a[VKM_VALUE_BYTES], b[VKM_VALUE_BYTES];
    int may_change = 0, own_file = saved->eval_data[0] && now->eval_data[0];
    for (size_t i = 0; i < vkm_n_keys; i++) {
        const vkm_key *k = &vkm_keys[i];
        if (k->type == VKM_KEY_SECTION) may_change = k->may_change;
        /* training's problems depend on these only where evaluation takes some of them away */
        if (own_file && (k->offset == offsetof(vkm_config, eval_data) ||
                         k->offset == offsetof(vkm_config, eval_problems)))
            continue;
        if (may_change || k->type == VKM_KEY_SECTION) continue;
        if (strcmp(vkm_config_value(saved, k, a), vkm_config_value(now, k, b)) != 0)
            return vkm_fail(
                err, VKM_USAGE,
                "the checkpoint is of another config: %s was '%.200s' and is now '%.200s'; set "
                "it back, or begin a new run in another output_dir",
                k->name, a, b);
    }
    return VKM_OK;
}

vkm_status vkm_config_check(const vkm_config *c, vkm_err *err) {
    const struct {
        const char *key, *value;
    } needed[] = {{"model", c->model}, {"data", c->data}, {"modes", c->modes}, {"arm", c->arm}};
    for (size_t i = 0; i < VKM_COUNTOF(needed); i++)
        if (!needed[i].value[0])
            return vkm_fail(err, VKM_USAGE, "%s is missing: set it in the config or by --%s",
                            needed[i].key, needed[i].key);
    enum { MOST_ROLLOUTS = 65535 }; /* rows of one decode: a grid dimension */
    if (c->num_prompts * c->num_generations > MOST_ROLLOUTS)
        return vkm_fail(err, VKM_USAGE,
                        "num_prompts: %lld x num_generations %lld are %lld rollouts a step, at "
                        "most %d; lower one of them",
                        (long long)c->num_prompts, (long long)c->num_generations,
                        (long long)(c->num_prompts * c->num_generations), MOST_ROLLOUTS);
    if (c->teachers_per_group >= c->num_generations)
        return vkm_fail(
            err, VKM_USAGE,
            "teachers_per_group: %lld leaves no student in a group of num_generations %lld",
            (long long)c->teachers_per_group, (long long)c->num_generations);
    if (c->teacher_steps && c->teachers_per_group && !c->teacher_pool[0])
        return vkm_fail(err, VKM_USAGE,
                        "teacher_pool is missing: teacher_steps is %lld, teachers_per_group %lld",
                        (long long)c->teacher_steps, (long long)c->teachers_per_group);
    if ((c->reward_from == VKM_reward_from_grader) != !c->reward_command[0])
        return vkm_fail(err, VKM_USAGE,
                        c->reward_command[0]
                            ? "reward_command is set, reward_from is grader: set reward_from to "
                              "command or both, or leave the command out"
                            : "reward_command is missing: reward_from asks for a program");
    if (c->eval_every && !c->eval_data[0] && !c->eval_problems)
        return vkm_fail(err, VKM_USAGE,
                        "eval_data and eval_problems are missing: eval_every is %lld",
                        (long long)c->eval_every);
    if (c->stop_at_step > c->max_steps)
        return vkm_fail(err, VKM_USAGE, "stop_at_step: %lld is past max_steps %lld",
                        (long long)c->stop_at_step, (long long)c->max_steps);
    return VKM_OK;
}
