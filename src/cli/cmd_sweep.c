/* `vkmoe sweep`: many runs of one config, arm by arm and seed by seed, and the table of them all.
 * Each run is a process of this program (`vkmoe train`, then `vkmoe eval`), so that a crash costs
 * one run; what is finished is not run again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/sweep.h"
#include "report/report.h"
#include "report/table.h"
#include "rl/arms.h"

/* ---- what is to be run -------------------------------------------------------------------------
 */

typedef struct sweep_options {
    const char *arms, *seeds, *models;
    int64_t jobs;
    int full;
} sweep_options;

/* "1..4,7" */
static vkm_status read_seeds(const char *text, int64_t *out, size_t *n, vkm_err *err) {
    char copy[1024], *rest = copy;
    if (strlen(text) >= sizeof copy) return vkm_fail(err, VKM_USAGE, "seeds: too long a list");
    strcpy(copy, text);
    *n = 0;
    for (char *part; (part = strsep(&rest, ","));) {
        char *dots = strstr(part, "..");
        int64_t first, last;
        if (dots) *dots = 0;
        if (vkm_text_int("seeds", part, 0, 1ll << 53, &first, err)) return err->status;
        last = first;
        if (dots && vkm_text_int("seeds", dots + 2, 0, 1ll << 53, &last, err)) return err->status;
        if (last < first || (uint64_t)(last - first) >= VKM_SWEEP_MOST_SEEDS - *n)
            return vkm_fail(err, VKM_USAGE,
                            "seeds: '%s..%s' is not a range, or the list is longer than %d", part,
                            dots ? dots + 2 : part, VKM_SWEEP_MOST_SEEDS);
        for (int64_t s = first; s <= last; s++) {
            for (size_t i = 0; i < *n; i++)
                if (out[i] == s)
                    return vkm_fail(err, VKM_USAGE, "seeds: %lld is named twice", (long long)s);
            out[(*n)++] = s;
        }
    }
    return VKM_OK;
}

/* A value's {seed} becomes the run's: none:from_ablated=runs/tiny/moe-s{seed} */
static void with_seed(const char *value, int64_t seed, char out[VKM_CONFIG_STRING_BYTES]) {
    const char *at = strstr(value, "{seed}");
    if (at)
        snprintf(out, VKM_CONFIG_STRING_BYTES, "%.*s%lld%s", (int)(at - value), value,
                 (long long)seed, at + 6);
    else
        snprintf(out, VKM_CONFIG_STRING_BYTES, "%s", value);
}

/* A row of the table: an arm, and keys of its own behind it: moe_detach:adam_v=tensor */
static vkm_status apply_row(vkm_config *c, const char *row, vkm_err *err) {
    char copy[256], text[VKM_CONFIG_STRING_BYTES], *rest = copy; /* add_run has measured it */
    snprintf(copy, sizeof copy, "%s", row);
    const char *arm = strsep(&rest, ":");
    if (!vkm_arm_find(arm, err) || vkm_config_set(c, "arm", arm, err)) return err->status;
    if (rest && vkm_config_set(c, "label", row, err)) return err->status;
    for (char *part; (part = strsep(&rest, ":"));) {
        char *value = strchr(part, '=');
        if (!value)
            return vkm_fail(err, VKM_USAGE, "arms: '%s' in '%s' is not KEY=VALUE", part, row);
        *value++ = 0;
        with_seed(value, c->seed, text);
        if (vkm_config_set(c, part, text, err)) return err->status;
    }
    return VKM_OK;
}

/* The run's folder and file names: letters, digits and a few signs. */
static void name_of(const char *row, int64_t seed, char out[VKM_SWEEP_NAME]) {
    snprintf(out, VKM_SWEEP_NAME, "%.255s-s%lld", row, (long long)seed);
    for (char *p = out; *p; p++)
        if (*p == ':' || *p == '/' || *p == ' ') *p = '_';
}

static vkm_status add_run(vkm_sweep *s, const vkm_config *base, const char *row, int64_t seed,
                          const char *model, vkm_err *err) {
    vkm_sweep_run *r = &s->runs[s->n];
    static vkm_config c;
    c = *base;
    if (strlen(row) >= sizeof r->row)
        return vkm_fail(err, VKM_USAGE, "arms: '%.40s...' is too long", row);
    name_of(row, seed, r->name);
    memcpy(r->row, row, strlen(row) + 1);
    r->seed = seed;
    r->max_steps = c.max_steps;
    c.seed = seed;
    if (vkm_path_join(r->dir, s->dir, r->name, err) ||
        vkm_config_set(&c, "output_dir", r->dir, err) ||
        (model && vkm_config_set(&c, "model", model, err)) || apply_row(&c, row, err) ||
        vkm_config_check(&c, err) || vkm_sweep_adopt(s, r, &c, err))
        return err->status;
    for (size_t i = 0; i < s->n; i++)
        if (!strcmp(s->runs[i].name, r->name))
            return vkm_fail(err, VKM_USAGE, "arms: '%s' is named twice", row);
    s->n++;
    return VKM_OK;
}

static size_t count_parts(const char *list) {
    size_t n = 1;
    for (; (list = strchr(list, ',')); list++) n++;
    return n;
}

static char *part_of(const char *list, size_t i, char out[VKM_PATH_MAX]) {
    while (i-- > 0) list = strchr(list, ',') + 1;
    snprintf(out, VKM_PATH_MAX, "%.*s", (int)strcspn(list, ","), list);
    return out;
}

/* Models take equal shares of the seeds, in order: with two, the first half is the first one's. */
static vkm_status plan(vkm_sweep *s, const vkm_config *base, const sweep_options *o, vkm_err *err) {
    int64_t seeds[VKM_SWEEP_MOST_SEEDS];
    char row[VKM_PATH_MAX], model[VKM_PATH_MAX];
    size_t n_seeds = 0, n_rows = count_parts(o->arms),
           n_models = o->models[0] ? count_parts(o->models) : 0;
    if (!o->arms[0])
        return vkm_fail(err, VKM_USAGE, "--arms is missing, such as absorb,moe_detach,oracle");
    if (read_seeds(o->seeds, seeds, &n_seeds, err)) return err->status;
    if (n_models && n_seeds % n_models)
        return vkm_fail(err, VKM_USAGE, "models: %zu seeds are no equal shares of %zu models",
                        n_seeds, n_models);
    s->runs = vkm_calloc(n_rows * n_seeds, sizeof *s->runs, "the sweep", err);
    for (size_t i = 0; i < n_seeds && !err->status; i++) {
        if (n_models) part_of(o->models, i * n_models / n_seeds, model);
        for (size_t k = 0; k < n_rows && !err->status; k++)
            (void)!add_run(s, base, part_of(o->arms, k, row), seeds[i], n_models ? model : NULL,
                           err);
    }
    return err->status;
}

/* ---- what came out ------------------------------------------------------------------------------
 */

static vkm_status save_text(const vkm_sweep *s, const char *name, vkm_strbuf *text, vkm_err *err) {
    char path[VKM_PATH_MAX];
    if (!vkm_strbuf_check(text, name, err) && !vkm_path_join(path, s->dir, name, err))
        (void)!vkm_file_save(path, vkm_strbuf_str(text), text->n, err);
    vkm_strbuf_free(text);
    return err->status;
}

static vkm_status save(const vkm_sweep *s, const char *const *dirs, const vkm_table *t,
                       vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf json = {0}, md = {0};
    vkm_table_json(t, &json);
    vkm_table_markdown(t, &md);
    if (save_text(s, "sweep.json", &json, err)) vkm_strbuf_free(&md);
    if (err->status || save_text(s, "table.md", &md, err) ||
        vkm_path_join(path, s->dir, "report.html", err) || vkm_report_write(dirs, s->n, path, err))
        return err->status;
    vkm_info("report %s", path);
    return VKM_OK;
}

static vkm_status conclude(const vkm_sweep *s, const vkm_config *base, vkm_err *err) {
    const char **dirs = vkm_calloc(s->n, sizeof *dirs, "the arms table", err);
    vkm_json *recorded = NULL;
    vkm_table t = {0};
    if (!dirs) return err->status;
    for (size_t i = 0; i < s->n; i++) dirs[i] = s->runs[i].dir;
    if (vkm_table_read(dirs, s->n, &t, err)) goto done;
    if (base->recorded_results[0] && vkm_json_load(base->recorded_results, NULL, &recorded, err))
        goto done;
    vkm_table_print(&t, recorded, stdout);
    (void)!save(s, dirs, &t, err);
done:
    vkm_table_free(&t);
    vkm_json_free(recorded);
    free(dirs);
    return err->status;
}

/* ---- the command --------------------------------------------------------------------------------
 */

/* CONFIG's name without folder and ending. */
static vkm_status default_folder(const char *config, vkm_config *c, vkm_err *err) {
    char folder[VKM_CONFIG_STRING_BYTES];
    const char *name = config ? strrchr(config, '/') : NULL;
    name = name ? name + 1 : config ? config : "sweep";
    snprintf(folder, sizeof folder, "runs/%.*s", (int)strcspn(name, "."), name);
    return c->output_dir[0] ? VKM_OK : vkm_config_set(c, "output_dir", folder, err);
}

vkm_status vkm_cmd_sweep(int argc, char **argv, vkm_err *err) {
    static vkm_cli_config given;
    static vkm_config base;
    static vkm_sweep s;
    vkm_cli_device d = VKM_CLI_DEVICE_DEFAULTS;
    sweep_options o = {.arms = "", .seeds = "1", .models = ""};
    vkm_opt own[] = {
        {"arms", VKM_OPT_STRING, &o.arms, .arg = "LIST",
         .help = "arms, separated by commas; keys of a row's own behind it: moe:adam_v=tensor"},
        {"seeds", VKM_OPT_STRING, &o.seeds, .arg = "LIST", .help = "such as 1..5 or 1,3,5"},
        {"models", VKM_OPT_STRING, &o.models, .arg = "LIST",
         .help = "models that share the seeds equally, in order; else the config's"},
        {"jobs", VKM_OPT_INT, &o.jobs, .min = 0, .max = VKM_SWEEP_MOST_JOBS,
         .help = "runs at a time; 0: one a core on the cpu backend, else one"},
        {"full", VKM_OPT_FLAG, &o.full, .help = "`vkmoe eval --full` behind each run"},
        VKM_CLI_DEVICE_OPTS(&d),
    };
    vkm_opt opts[VKM_CLI_MAX_OPTS];
    memcpy(opts, own, sizeof own);
    size_t n = VKM_COUNTOF(own) + vkm_cli_config_opts(&given, opts + VKM_COUNTOF(own));
    if (vkm_cli_parse(opts, n, argc, argv, err) || vkm_cli_config_resolve(&given, &base, err) ||
        default_folder(given.path, &base, err) || vkm_cli_choose_backend(&d, err))
        return err->status;
    s = (vkm_sweep){.device = d, .full = o.full};
    snprintf(s.dir, sizeof s.dir, "%s", base.output_dir);
    if (!base.grade_cache[0] && (size_t)snprintf(base.grade_cache, sizeof base.grade_cache,
                                                 "%s/verdicts", s.dir) >= sizeof base.grade_cache)
        return vkm_fail(err, VKM_USAGE, "output_dir: too long a name");
    if (vkm_dir_make(s.dir, err) || plan(&s, &base, &o, err)) goto done;
    vkm_sweep_share(&s, (uint32_t)o.jobs);
    if (!vkm_sweep_run_all(&s, err)) (void)!conclude(&s, &base, err);
done:
    free(s.runs);
    return err->status;
}
