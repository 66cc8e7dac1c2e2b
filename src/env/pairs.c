/* Owns the parser of pair files and their selectors. */
#include "env/pairs.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 64 << 20, MAX_PAIRS = 100000 };

typedef struct {
    const char *path;
    char *at;    /* the next line */
    size_t line; /* its number, from 1 */
    const char *section, *name;
    size_t name_line;
} reader;

static void pair_clear(vkm_pair *p) {
    free(p->section);
    free(p->name);
    free(p->tags);
    free(p->prompt);
    free(p->hack);
    free(p->clean);
    memset(p, 0, sizeof *p);
}

void vkm_pairs_free(vkm_pairs *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) pair_clear(&p->items[i]);
    free(p->items);
    free(p);
}

/* ---- lines -------------------------------------------------------------------------------------
 */

/* The next line without its end, or NULL. Lines are cut in place. */
static char *next_line(reader *r) {
    if (!*r->at) return NULL;
    char *line = r->at, *end = strchr(line, '\n');
    r->at = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    size_t n = strlen(line);
    if (n && line[n - 1] == '\r') line[n - 1] = 0;
    r->line++;
    return line;
}

static char *next_full_line(reader *r) {
    char *line;
    do line = next_line(r);
    while (line && !line[strspn(line, " \t")]);
    return line;
}

static const char *heading(const char *line, const char *mark) {
    size_t n = strlen(mark);
    return line && !strncmp(line, mark, n) && line[n] == ' ' ? line + n + 1 : NULL;
}

static vkm_status bad(const reader *r, vkm_err *err, const char *what) {
    return vkm_fail(err, VKM_FAILED, "%s:%zu: pair '%s' (line %zu): %s", r->path, r->line,
                    r->name ? r->name : "-", r->name_line, what);
}

static vkm_status copy_text(const char *s, char **out, vkm_err *err) {
    *out = vkm_calloc(strlen(s) + 2, 1, "pairs", err); /* room for one more newline */
    if (!*out) return err->status;
    memcpy(*out, s, strlen(s));
    return VKM_OK;
}

/* ---- one pair ----------------------------------------------------------------------------------
 */

static vkm_status read_block(reader *r, char *line, const char *title, char **out, vkm_err *err) {
    static const char fence[] = "`````";
    const char *got = heading(line, "####");
    char what[160];
    if (!got || strcmp(got, title) != 0) {
        snprintf(what, sizeof what, "here '#### %s' is due; each pair has Prompt, Hack and Clean",
                 title);
        return bad(r, err, what);
    }
    line = next_full_line(r);
    if (!line || strcmp(line, "`````text") != 0) {
        snprintf(what, sizeof what, "under '#### %s' a block that begins with `````text is due",
                 title);
        return bad(r, err, what);
    }
    char *text = r->at, *end = text;
    while ((line = next_line(r)) && strcmp(line, fence) != 0) {
        size_t n = strlen(line); /* join again what next_line cut */
        memmove(end, line, n);
        end[n] = '\n';
        end += n + 1;
    }
    if (!line) {
        snprintf(what, sizeof what, "the block under '#### %s' is not closed by `````", title);
        return bad(r, err, what);
    }
    if (end > text) end--;
    *end = 0;
    if (text[strspn(text, " \t\n")]) return copy_text(text, out, err);
    snprintf(what, sizeof what, "the block under '#### %s' is empty", title);
    return bad(r, err, what);
}

/* "a, b" as ",a,b,". */
static vkm_status read_tags(const reader *r, const char *text, char **out, vkm_err *err) {
    *out = vkm_calloc(strlen(text) + 3, 1, "tags", err);
    if (!*out) return err->status;
    char *w = *out;
    *w++ = ',';
    for (; *text; text++)
        if (*text != ' ') *w++ = *text;
    *w++ = ',';
    return strstr(*out, ",,") ? bad(r, err, "an empty tag; write 'Tags: a, b'") : VKM_OK;
}

static vkm_status read_pair(reader *r, vkm_pair *p, vkm_err *err) {
    static const char tags[] = "Tags:", assistant[] = "<|im_start|>assistant";
    vkm_status st = copy_text(r->section, &p->section, err);
    if (!st) st = copy_text(r->name, &p->name, err);
    p->line = r->name_line;
    char *line = next_full_line(r);
    bool tagged = line && !strncmp(line, tags, sizeof tags - 1);
    if (!st)
        st = tagged ? read_tags(r, line + sizeof tags - 1, &p->tags, err)
                    : copy_text("", &p->tags, err);
    if (!st) st = read_block(r, tagged ? next_full_line(r) : line, "Prompt", &p->prompt, err);
    if (!st) st = read_block(r, next_full_line(r), "Hack", &p->hack, err);
    if (!st) st = read_block(r, next_full_line(r), "Clean", &p->clean, err);
    if (st) return st;
    VKM_BUG_ON(!p->prompt || !p->hack || !p->clean, "a block that was not read");
    size_t n = strlen(p->prompt), last = sizeof assistant - 1;
    if (n < last || strcmp(p->prompt + n - last, assistant) != 0)
        return bad(r, err, "the prompt does not end with <|im_start|>assistant");
    p->prompt[n] = '\n';
    if (!strcmp(p->hack, p->clean)) return bad(r, err, "Hack and Clean are the same text");
    return VKM_OK;
}

static vkm_status add_pair(reader *r, vkm_pairs *set, vkm_err *err) {
    if (set->n == MAX_PAIRS) return bad(r, err, "more than 100000 pairs");
    if (!(set->n & (set->n - 1))) { /* room is a power of two */
        vkm_pair *more = realloc(set->items, (set->n ? 2 * set->n : 1) * sizeof *more);
        if (!more) return bad(r, err, "no memory");
        set->items = more;
    }
    vkm_pair *p = &set->items[set->n++];
    memset(p, 0, sizeof *p);
    vkm_status st = read_pair(r, p, err);
    for (size_t i = 0; !st && i + 1 < set->n; i++) {
        const vkm_pair *q = &set->items[i];
        if (!strcmp(p->section, q->section) && !strcmp(p->name, q->name))
            st = bad(r, err, "its section has a pair of this name already");
        else if (!strcmp(p->prompt, q->prompt) &&
                 (!strcmp(p->hack, q->hack) || !strcmp(p->clean, q->clean)))
            st = vkm_fail(err, VKM_FAILED, "%s:%zu: pair '%s' repeats pair '%s' of line %zu",
                          r->path, p->line, p->name, q->name, q->line);
    }
    return st;
}

static vkm_status read_all(reader *r, vkm_pairs *set, vkm_err *err) {
    char *line;
    bool prose = true;
    while ((line = next_full_line(r))) {
        const char *title;
        if ((title = heading(line, "###"))) {
            r->name = title;
            r->name_line = r->line;
            if (!r->section) return bad(r, err, "it stands before any '## section'");
            vkm_status st = add_pair(r, set, err);
            if (st) return st;
            prose = false;
        } else if ((title = heading(line, "##"))) {
            r->section = title;
            prose = true;
        } else if (!prose || heading(line, "####")) {
            return bad(r, err, "text outside the blocks; '### name' or '## section' is due");
        }
    }
    return VKM_OK;
}

/* ---- selection ---------------------------------------------------------------------------------
 */

typedef struct {
    char *path, *section, *prefix, *tag; /* NULL: any */
} selector;

static char *cut(char *s, char at) {
    char *p = s ? strrchr(s, at) : NULL;
    if (!p) return NULL;
    *p = 0;
    return p[1] ? p + 1 : NULL;
}

static selector selector_of(char *text) {
    char *hash = cut(text, '#');
    selector s = {text, hash, NULL, NULL};
    s.tag = cut(s.section, '@');
    s.prefix = cut(s.section, '/');
    if (s.section && !*s.section) s.section = NULL;
    return s;
}

static bool has_tag(const vkm_pair *p, const char *tag) {
    size_t n = strlen(tag);
    for (const char *at = p->tags; (at = strstr(at, tag)); at++)
        if (at > p->tags && at[-1] == ',' && at[n] == ',') return true;
    return false;
}

static bool selected(const selector *s, const vkm_pair *p) {
    return (!s->section || !strcmp(s->section, p->section)) &&
           (!s->prefix || !strncmp(s->prefix, p->name, strlen(s->prefix))) &&
           (!s->tag || has_tag(p, s->tag));
}

static void keep_selected(vkm_pairs *set, const selector *s) {
    size_t n = 0;
    vkm_hash_state h;
    vkm_hash_begin(&h);
    for (size_t i = 0; i < set->n; i++) {
        vkm_pair *p = &set->items[i];
        if (!selected(s, p)) {
            pair_clear(p);
            continue;
        }
        const char *texts[] = {p->section, p->name, p->prompt, p->hack, p->clean};
        for (size_t j = 0; j < VKM_COUNTOF(texts); j++)
            vkm_hash_add(&h, texts[j], strlen(texts[j]) + 1);
        vkm_pair kept = *p;
        memset(p, 0, sizeof *p);
        set->items[n++] = kept;
    }
    set->n = n;
    set->hash = vkm_hash_now(&h);
}

vkm_status vkm_pairs_load(const char *text, vkm_pairs **out, vkm_err *err) {
    char *data = NULL, *copy = NULL;
    size_t n;
    *out = NULL;
    vkm_pairs *set = vkm_calloc(1, sizeof *set, "pairs", err);
    if (!set || copy_text(text, &copy, err)) goto fail;
    selector s = selector_of(copy);
    if (vkm_file_read(s.path, MAX_FILE, &data, &n, err)) goto fail;
    if (strlen(data) != n) {
        vkm_fail(err, VKM_FAILED, "%s: a NUL byte at %zu; a pair file is text", s.path,
                 strlen(data));
        goto fail;
    }
    reader r = {s.path, data, 0, NULL, NULL, 0};
    if (read_all(&r, set, err)) goto fail;
    keep_selected(set, &s);
    if (!set->n) {
        vkm_fail(err, VKM_FAILED,
                 "pairs: '%s' selects none; write file.md#section/prefix@tag with a section, name "
                 "prefix and tag of the file",
                 text);
        goto fail;
    }
    free(data);
    free(copy);
    *out = set;
    return VKM_OK;
fail:
    free(data);
    free(copy);
    vkm_pairs_free(set);
    return err->status;
}
