/* Owns the problem file: its schema, its checks, and the hint in a prompt. */
#include "env/problems.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ASSERTS = 100000, REFUSAL_TEXT = 120 };

static const char *const known_fields[] = {
    "id",
    "difficulty",
    "prompt",
    "func_name",
    "setup_code",
    "gt_answer",
    "canonical_solution",
    "dataset",
    "evaluator",
    "question",
    "answer",
    "hint",
    "prompt_metadata",
    "completion_gt_pass", /* columns that only travel along */
};

void vkm_problem_clear(vkm_problem *p) {
    for (size_t i = 0; i < p->n_asserts; i++) vkm_assert_clear(&p->asserts[i]);
    free(p->asserts);
    for (size_t i = 0; i < p->n_tags; i++) free(p->tags[i].key), free(p->tags[i].value);
    free(p->tags);
    free(p->difficulty);
    free(p->system);
    free(p->user);
    free(p->func_name);
    free(p->setup_code);
    free(p->canonical_solution);
    memset(p, 0, sizeof *p);
}

void vkm_problems_free(vkm_problems *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) vkm_problem_clear(&p->items[i]);
    for (size_t i = 0; i < p->n_refused; i++) free(p->refused[i].text);
    free(p->items);
    free(p->refused);
    free(p->path);
    free(p);
}

const vkm_problem *vkm_problems_find(const vkm_problems *p, int64_t id) {
    for (size_t i = 0; i < p->n; i++)
        if (p->items[i].id == id) return &p->items[i];
    return NULL;
}

static vkm_status text_copy(const char *s, size_t n, char **out, vkm_err *err) {
    *out = vkm_calloc(n + 1, 1, "a problem", err);
    if (!*out) return err->status;
    memcpy(*out, s, n);
    return VKM_OK;
}

static vkm_status text_field(vkm_jv line, const char *key, char **out, vkm_err *err) {
    const char *s;
    vkm_status st = vkm_json_get_str(line, key, VKM_JSON_REQ, &s, err);
    return st ? st : text_copy(s, strlen(s), out, err);
}

static size_t count_phrase(const char *s) {
    size_t n = 0;
    for (; (s = strstr(s, VKM_HINT_PHRASE)); s += sizeof VKM_HINT_PHRASE - 1) n++;
    return n;
}

static vkm_status read_prompt(vkm_jv line, vkm_problem *p, vkm_err *err) {
    static const char *const roles[] = {"system", "user"};
    static const char *const message_fields[] = {"role", "content"};
    char **texts[] = {&p->system, &p->user};
    vkm_jv prompt;
    vkm_status st = vkm_json_get_array(line, "prompt", VKM_JSON_REQ, &prompt, err);
    if (st) return st;
    if (vkm_json_count(prompt) != 2)
        return vkm_json_fail(prompt, err, "%zu messages; a prompt is a system and a user message",
                             vkm_json_count(prompt));
    vkm_jv m = vkm_json_first(prompt);
    for (int i = 0; i < 2; i++, m = vkm_json_next(m)) {
        const char *role;
        if ((st = vkm_json_known_keys(m, message_fields, 2, err))) return st;
        if ((st = vkm_json_get_str(m, "role", VKM_JSON_REQ, &role, err))) return st;
        if (strcmp(role, roles[i]) != 0)
            return vkm_json_fail(vkm_json_find(m, "role"), err,
                                 "'%.32s'; message %d of a prompt is the %s message", role, i,
                                 roles[i]);
        if ((st = text_field(m, "content", texts[i], err))) return st;
    }
    size_t n = count_phrase(p->user);
    if (n == 1) return VKM_OK;
    return vkm_json_fail(prompt, err,
                         "the user message holds the phrase '" VKM_HINT_PHRASE "' %zu times; "
                         "it must hold it exactly once, where a mode's hint goes",
                         n);
}

static bool is_name(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char c = (char)(s[i] | 32);
        if (!((c >= 'a' && c <= 'z') || s[i] == '_' || (i && s[i] >= '0' && s[i] <= '9')))
            return false;
    }
    return n > 0;
}

static vkm_status read_func_name(vkm_jv line, vkm_problem *p, vkm_err *err) {
    static const char prefix[] = "Solution().";
    vkm_status st = text_field(line, "func_name", &p->func_name, err);
    if (st) return st;
    size_t n = strlen(p->func_name), skip = sizeof prefix - 1;
    if (n < skip || memcmp(p->func_name, prefix, skip) != 0 ||
        !is_name(p->func_name + skip, n - skip))
        return vkm_json_fail(vkm_json_find(line, "func_name"), err,
                             "'%.64s' is not a method of Solution, such as 'Solution().solve'",
                             p->func_name);
    p->method = p->func_name + skip;
    return VKM_OK;
}

/* Reads the asserts until one is of a form that is not handled: *refused then describes it. */
static vkm_status read_asserts(vkm_jv line, vkm_problem *p, vkm_refusal *refused, vkm_err *err) {
    vkm_jv list;
    vkm_status st = vkm_json_get_array(line, "gt_answer", VKM_JSON_REQ, &list, err);
    if (st) return st;
    size_t n = vkm_json_count(list);
    if (!n || n > MAX_ASSERTS)
        return vkm_json_fail(list, err, "%zu asserts; give 1 to %d", n, MAX_ASSERTS);
    p->asserts = vkm_calloc(n, sizeof *p->asserts, "asserts", err);
    if (!p->asserts) return err->status;
    for (vkm_jv e = vkm_json_first(list); e.v; e = vkm_json_next(e), p->n_asserts++) {
        const char *s;
        if ((st = vkm_json_str(e, &s, err))) return st;
        const char *form = vkm_assert_parse(s, strlen(s), &p->asserts[p->n_asserts]);
        if (!form) continue;
        *refused = (vkm_refusal){p->id, p->line, p->n_asserts, form, NULL};
        size_t cut = strlen(s) < REFUSAL_TEXT ? strlen(s) : REFUSAL_TEXT;
        while (cut && cut < strlen(s) && ((unsigned char)s[cut] & 0xc0) == 0x80) cut--;
        return text_copy(s, cut, &refused->text, err);
    }
    return VKM_OK;
}

/* Short scalars of prompt_metadata; texts, lists and objects of other kinds travel along unread. */
static vkm_status read_tags(vkm_jv line, vkm_problem *p, vkm_err *err) {
    enum { MOST_TAGS = 16, MOST_BYTES = 40 };
    vkm_jv meta = vkm_json_find(line, "prompt_metadata");
    if (!meta.v || vkm_json_typeof(meta) != VKM_JSON_OBJECT) return VKM_OK;
    p->tags = vkm_calloc(MOST_TAGS, sizeof *p->tags, "a problem", err);
    if (!p->tags) return err->status;
    for (vkm_jv m = vkm_json_first(meta); m.v && p->n_tags < MOST_TAGS; m = vkm_json_next(m)) {
        const char *text = NULL;
        char number[32];
        int64_t i;
        bool b;
        vkm_err not_so = {0};
        vkm_json_type type = vkm_json_typeof(m);
        if (type == VKM_JSON_BOOL && !vkm_json_bool(m, &b, &not_so)) text = b ? "true" : "false";
        if (type == VKM_JSON_STRING && vkm_json_str(m, &text, &not_so)) text = NULL;
        if (type == VKM_JSON_NUMBER && !vkm_json_i64(m, INT64_MIN, INT64_MAX, &i, &not_so)) {
            snprintf(number, sizeof number, "%lld", (long long)i);
            text = number;
        }
        const char *key = vkm_json_key(m);
        if (!text || strlen(text) > MOST_BYTES || strlen(key) > MOST_BYTES) continue;
        vkm_problem_tag *tag = &p->tags[p->n_tags++];
        if (text_copy(key, strlen(key), &tag->key, err) ||
            text_copy(text, strlen(text), &tag->value, err))
            return err->status;
    }
    return VKM_OK;
}

const char *vkm_problem_tag_value(const vkm_problem *p, const char *key) {
    for (size_t i = 0; i < p->n_tags; i++)
        if (strcmp(p->tags[i].key, key) == 0) return p->tags[i].value;
    return NULL;
}

static void hash_text(vkm_hash_state *h, const char *s) {
    VKM_BUG_ON(!s, "a field that was not read");
    vkm_hash_add(h, s, strlen(s) + 1);
}

static vkm_hash128 problem_hash(const vkm_problem *p) {
    vkm_hash_state h;
    vkm_hash_begin(&h);
    hash_text(&h, p->func_name);
    hash_text(&h, p->setup_code);
    hash_text(&h, p->canonical_solution);
    for (size_t i = 0; i < p->n_asserts; i++) hash_text(&h, p->asserts[i].line);
    return vkm_hash_now(&h);
}

static vkm_status read_problem(vkm_jv line, vkm_problem *p, vkm_refusal *refused, vkm_err *err) {
    vkm_status st;
    if ((st = vkm_json_known_keys(line, known_fields, VKM_COUNTOF(known_fields), err)) ||
        (st = vkm_json_get_i64(line, "id", VKM_JSON_REQ, 0, (int64_t)1 << 53, &p->id, err)) ||
        (st = text_field(line, "difficulty", &p->difficulty, err)) ||
        (st = read_prompt(line, p, err)) || (st = read_func_name(line, p, err)) ||
        (st = text_field(line, "setup_code", &p->setup_code, err)) ||
        (st = text_field(line, "canonical_solution", &p->canonical_solution, err)) ||
        (st = read_asserts(line, p, refused, err)) || (st = read_tags(line, p, err)))
        return st;
    if (!refused->form) p->hash = problem_hash(p);
    return VKM_OK;
}

vkm_status vkm_problem_read(vkm_jv object, vkm_problem *out, vkm_err *err) {
    vkm_refusal refused = {0};
    *out = (vkm_problem){.line = 1};
    vkm_status st = read_problem(object, out, &refused, err);
    if (!st && refused.form)
        st = vkm_json_fail(vkm_json_find(object, "gt_answer"), err,
                           "assert %zu is of a form that is not graded (%s): %s", refused.i_assert,
                           refused.form, refused.text);
    free(refused.text);
    if (st) vkm_problem_clear(out);
    return st;
}

static void *grown(void *items, size_t n, size_t size, vkm_err *err) {
    if (n & (n - 1)) return items; /* room is a power of two */
    void *more = realloc(items, (n ? 2 * n : 1) * size);
    if (!more) vkm_fail(err, VKM_FAILED, "out of host memory for %zu problems", n);
    return more;
}

vkm_status vkm_problems_add(vkm_problems *set, vkm_jv line, size_t number, vkm_err *err) {
    vkm_problem p = {.line = number};
    vkm_refusal refused = {0};
    vkm_status st = read_problem(line, &p, &refused, err);
    if (st) goto fail;
    const vkm_problem *twin = vkm_problems_find(set, p.id);
    size_t twin_line = twin ? twin->line : 0;
    for (size_t i = 0; i < set->n_refused; i++)
        if (set->refused[i].id == p.id) twin_line = set->refused[i].line;
    if (twin_line) {
        st = vkm_json_fail(vkm_json_find(line, "id"), err,
                           "%lld is the id of line %zu already; give each problem its own",
                           (long long)p.id, twin_line);
        goto fail;
    }
    if (refused.form) {
        vkm_refusal *r = grown(set->refused, set->n_refused, sizeof *r, err);
        if (!r) goto no_memory;
        set->refused = r;
        r[set->n_refused++] = refused;
        vkm_problem_clear(&p);
        return VKM_OK;
    }
    vkm_problem *items = grown(set->items, set->n, sizeof *items, err);
    if (!items) goto no_memory;
    set->items = items;
    items[set->n++] = p;
    return VKM_OK;
no_memory:
    st = err->status;
fail:
    free(refused.text);
    vkm_problem_clear(&p);
    return st;
}

vkm_status vkm_problems_new(const char *path, vkm_problems **out, vkm_err *err) {
    vkm_problems *set = vkm_calloc(1, sizeof *set, "problems", err);
    *out = NULL;
    if (!set || text_copy(path, strlen(path), &set->path, err)) {
        vkm_problems_free(set);
        return err->status;
    }
    *out = set;
    return VKM_OK;
}

vkm_status vkm_problems_load(const char *path, vkm_problems **out, vkm_err *err) {
    vkm_jsonl *file = NULL;
    vkm_json *doc = NULL;
    vkm_problems *set;
    *out = NULL;
    vkm_status st = vkm_problems_new(path, &set, err);
    if (!st) st = vkm_jsonl_open(path, NULL, &file, err);
    while (!st && !(st = vkm_jsonl_next(file, &doc, err)) && doc) {
        st = vkm_problems_add(set, vkm_json_root(doc), vkm_jsonl_line(file), err);
        vkm_json_free(doc);
        doc = NULL;
    }
    vkm_jsonl_free(file);
    if (!st && !set->n && set->n_refused)
        st =
            vkm_fail(err, VKM_FAILED,
                     "%s: no problem can be graded; the first, line %zu, has an assert of the form "
                     "'%s': write `assert CALL == LITERAL`",
                     path, set->refused[0].line, set->refused[0].form);
    if (!st && !set->n)
        st = vkm_fail(err, VKM_FAILED, "%s: no problems in it; one JSON object a line is needed",
                      path);
    if (st) {
        vkm_problems_free(set);
        return st;
    }
    *out = set;
    return VKM_OK;
}

void vkm_problem_user(const vkm_problem *p, const vkm_mode *mode, vkm_strbuf *out) {
    const char *at = strstr(p->user, VKM_HINT_PHRASE);
    VKM_BUG_ON(!at, "a problem that was not checked");
    vkm_strbuf_add(out, p->user, (size_t)(at - p->user));
    vkm_mode_hint(mode, out);
    vkm_strbuf_puts(out, at + sizeof VKM_HINT_PHRASE - 1);
}
