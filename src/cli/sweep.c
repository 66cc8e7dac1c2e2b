/* Owns the processes of a sweep. */
#include "cli/sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/team.h"
#include "report/lines.h"
#include "report/outcome.h"
#include "rl/checkpoint.h"
#include "rl/interrupt.h"

/* ---- the state of a folder ---------------------------------------------------------------------
 */

static vkm_status path_of(const vkm_sweep *s, const vkm_sweep_run *r, const char *ending,
                          char out[VKM_PATH_MAX], vkm_err *err) {
    char name[VKM_SWEEP_NAME + 16];
    snprintf(name, sizeof name, "%s%s", r->name, ending);
    return vkm_path_join(out, s->dir, name, err);
}

vkm_status vkm_sweep_adopt(vkm_sweep *s, vkm_sweep_run *r, const vkm_config *c, vkm_err *err) {
    static vkm_config saved;
    char path[VKM_PATH_MAX];
    vkm_strbuf text = {0};
    vkm_jw w = vkm_jw_begin(&text, 2);
    r->evaluates = c->eval_data[0] || c->eval_problems;
    vkm_config_default(&saved);
    if (vkm_path_join(path, r->dir, "config.json", err)) return err->status;
    if (vkm_file_exists(path) &&
        (vkm_config_load(&saved, path, err) || vkm_config_same_run(&saved, c, err)))
        return vkm_fail_in(err, "%s", r->dir);
    vkm_jw_obj(&w, NULL);
    vkm_config_write(c, &w);
    vkm_jw_end_obj(&w);
    vkm_strbuf_putc(&text, '\n');
    if (!vkm_strbuf_check(&text, "a run's config", err) && !path_of(s, r, ".json", path, err))
        (void)!vkm_file_save(path, text.data, text.n, err);
    vkm_strbuf_free(&text);
    return err->status;
}

typedef struct last_step {
    double step;
} last_step;

static vkm_status see_line(vkm_json *line, void *ctx, vkm_err *err) {
    last_step *l = ctx;
    double step = vkm_number_of(vkm_json_root(line), "step");
    (void)err;
    if (step > l->step) l->step = step;
    vkm_json_free(line);
    return VKM_OK;
}

static int64_t last_in(const vkm_sweep_run *r, const char *log) {
    vkm_err err = {0};
    last_step l = {0};
    (void)!vkm_lines_each(r->dir, log, NULL, see_line, &l, &err);
    return (int64_t)l.step;
}

static int is_trained(const vkm_sweep_run *r) {
    return last_in(r, "steps.jsonl") >= r->max_steps &&
           (!r->evaluates || last_in(r, "eval.jsonl") >= r->max_steps);
}

static int is_evaluated(const vkm_sweep_run *r) {
    char path[VKM_PATH_MAX], name[64];
    vkm_err err = {0};
    snprintf(name, sizeof name, "evals/step-%06lld.json", (long long)r->max_steps);
    return !vkm_path_join(path, r->dir, name, &err) && vkm_file_exists(path);
}

static int has_checkpoint(const vkm_sweep_run *r) {
    uint32_t *steps = NULL;
    size_t n = 0;
    vkm_err err = {0};
    (void)!vkm_ckpt_list(r->dir, &steps, &n, &err);
    free(steps);
    return n > 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    return remove(path);
}

/* ---- processes ---------------------------------------------------------------------------------
 */

void vkm_sweep_share(vkm_sweep *s, uint32_t wanted) {
    uint32_t cores = vkm_cpu_count(), waiting = 0;
    int on_cpu = s->device.backend == VKM_CLI_CPU;
    for (size_t i = 0; i < s->n; i++) waiting += !s->runs[i].finished;
    s->jobs = wanted ? wanted : on_cpu ? cores : 1;
    if (s->jobs > waiting) s->jobs = waiting;
    if (s->jobs > VKM_SWEEP_MOST_JOBS) s->jobs = VKM_SWEEP_MOST_JOBS;
    if (s->jobs < 1) s->jobs = 1;
    if (on_cpu && !s->device.threads) s->device.threads = cores > s->jobs ? cores / s->jobs : 1;
}

typedef struct command {
    const char *argv[128];
    size_t n;
    char threads[24];
    char set[48][VKM_VALUE_BYTES + 64]; /* --set KEY=VALUE */
    size_t n_set;
} command;

static void word(command *c, const char *text) {
    VKM_BUG_ON(c->n + 1 >= VKM_COUNTOF(c->argv), "room for '%s'", text);
    c->argv[c->n++] = text;
}

static void device_words(const vkm_cli_device *d, command *c) {
    word(c, "--backend");
    word(c, d->backend == VKM_CLI_CPU ? "cpu" : "vulkan");
    if (d->device) word(c, "--device"), word(c, d->device);
    if (d->flush_denormals) word(c, "--flush-denormals");
    snprintf(c->threads, sizeof c->threads, "%lld", (long long)d->threads);
    word(c, "--threads");
    word(c, c->threads);
}

/* A full evaluation reads the run's own config: what the sweep wants otherwise, in keys that may
 * change, is said anew. */
static vkm_status evaluation_words(const vkm_sweep_run *r, const char *config, command *c,
                                   vkm_err *err) {
    static vkm_config saved, wanted;
    char path[VKM_PATH_MAX], a[VKM_VALUE_BYTES], b[VKM_VALUE_BYTES];
    int may_change = 0;
    vkm_config_default(&saved);
    vkm_config_default(&wanted);
    if (vkm_path_join(path, r->dir, "config.json", err) || vkm_config_load(&saved, path, err) ||
        vkm_config_load(&wanted, config, err))
        return err->status;
    for (size_t i = 0; i < vkm_n_keys; i++) {
        const vkm_key *k = &vkm_keys[i];
        if (k->type == VKM_KEY_SECTION) may_change = k->may_change;
        if (k->type == VKM_KEY_SECTION || !may_change) continue;
        vkm_config_value(&saved, k, a);
        vkm_config_value(&wanted, k, b);
        if (!strcmp(a, b) || c->n_set == VKM_COUNTOF(c->set)) continue;
        snprintf(c->set[c->n_set], sizeof c->set[0], "%s=%s", k->name, b);
        word(c, "--set");
        word(c, c->set[c->n_set++]);
    }
    return VKM_OK;
}

/* In the child: a group of its own, so that a Ctrl-C reaches it through the sweep alone. */
static void become(const command *c, const char *log) {
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644), in = open("/dev/null", O_RDONLY);
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (out >= 0 && in >= 0 && dup2(in, 0) >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0)
        execv("/proc/self/exe", (char *const *)c->argv);
    _exit(127);
}

static vkm_status spawn(const vkm_sweep *s, vkm_sweep_run *r, vkm_err *err) {
    char config[VKM_PATH_MAX], log[VKM_PATH_MAX];
    static command c;
    int trains = !is_trained(r);
    c = (command){0};
    if (path_of(s, r, ".json", config, err) || path_of(s, r, ".log", log, err)) return err->status;
    word(&c, "vkmoe");
    word(&c, trains ? "train" : "eval");
    word(&c, trains ? config : r->dir);
    if (!trains) {
        word(&c, "--full");
        if (evaluation_words(r, config, &c, err)) return err->status;
    }
    device_words(&s->device, &c);
    if (trains && has_checkpoint(r)) {
        word(&c, "--resume_from_checkpoint");
        word(&c, "latest");
    } else if (trains && vkm_dir_exists(r->dir)) {
        /* it stopped before its first checkpoint: there is nothing to go on from */
        (void)nftw(r->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    r->start_s = vkm_now_s();
    r->pid = fork();
    if (r->pid == 0) become(&c, log);
    if (r->pid < 0) {
        r->pid = 0;
        return vkm_fail(err, VKM_FAILED, "no process for %s: %s", r->name, strerror(errno));
    }
    return VKM_OK;
}

static void tell(const vkm_sweep *s, const vkm_sweep_run *r, size_t n_done) {
    static vkm_outcome out;
    vkm_err err = {0};
    if (vkm_outcome_read(r->dir, &out, &err)) return;
    const double *v = out.value;
    printf("[%zu/%zu] %-24s seed %-4lld hack %.3f -> %.3f, deployed off %.3f; solve off %.3f, "
           "hint-free %.3f (%.0f s)\n",
           n_done, s->n, r->row, (long long)r->seed, v[VKM_FIG_hack_on], v[VKM_FIG_hack_off],
           v[VKM_FIG_hack_deployed_off], v[VKM_FIG_solve_off], v[VKM_FIG_free_off], r->seconds);
    fflush(stdout);
}

/* The log's last line, which says why. */
static void tell_failure(const vkm_sweep *s, const vkm_sweep_run *r) {
    char log[VKM_PATH_MAX], *text = NULL;
    size_t n = 0;
    vkm_err err = {0};
    if (path_of(s, r, ".log", log, &err) || vkm_file_read(log, 64 << 20, &text, &n, &err)) return;
    while (n && text[n - 1] == '\n') text[--n] = 0;
    char *last = strrchr(text, '\n');
    vkm_warn("%s failed (exit %d): %.300s (its log is %s)", r->name, r->failed,
             last ? last + 1 : text, log);
    free(text);
}

/* A process of the run has ended: is another due (the full evaluation), or is it finished? */
static void reap(const vkm_sweep *s, vkm_sweep_run *r, int status) {
    r->pid = 0;
    r->seconds += vkm_now_s() - r->start_s;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        r->finished = is_trained(r) && (!s->full || is_evaluated(r));
    else
        r->failed = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static uint64_t steps_done(const vkm_sweep *s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += (uint64_t)(s->runs[i].finished ? s->runs[i].max_steps
                                            : last_in(&s->runs[i], "steps.jsonl"));
    return n;
}

static void stop_all(const vkm_sweep *s, int sig) {
    for (size_t i = 0; i < s->n; i++)
        if (s->runs[i].pid > 0) (void)kill(s->runs[i].pid, sig);
}

vkm_status vkm_sweep_run_all(vkm_sweep *s, vkm_err *err) {
    size_t n_done = 0, n_failed = 0;
    uint32_t running = 0;
    uint64_t total = 0;
    int stopping = 0;
    vkm_progress bar;
    for (size_t i = 0; i < s->n; i++) {
        vkm_sweep_run *r = &s->runs[i];
        total += (uint64_t)r->max_steps;
        r->finished = is_trained(r) && (!s->full || is_evaluated(r));
        if (r->finished) tell(s, r, ++n_done);
    }
    vkm_info("%zu runs, %zu finished before, %u at a time; logs are in %s", s->n, n_done, s->jobs,
             s->dir);
    vkm_progress_begin(&bar, "steps of all runs", steps_done(s), total);
    vkm_interrupt_begin();
    for (;;) {
        for (size_t i = 0; i < s->n && running < s->jobs && !stopping; i++)
            if (!s->runs[i].pid && !s->runs[i].finished && !s->runs[i].failed) {
                if (spawn(s, &s->runs[i], err)) stopping = 1;
                running += s->runs[i].pid > 0;
            }
        if (!running) break;
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        for (size_t i = 0; pid > 0 && i < s->n; i++) {
            vkm_sweep_run *r = &s->runs[i];
            if (r->pid != pid) continue;
            reap(s, r, status);
            running--;
            if (r->finished) tell(s, r, ++n_done);
            if (r->failed) {
                tell_failure(s, r);
                n_failed++;
                stopping |= r->failed == VKM_USAGE;
            }
        }
        if (vkm_interrupt_asked() && !stopping) {
            stopping = 1;
            stop_all(s, SIGINT); /* each saves after its step */
        }
        if (pid <= 0) {
            (void)usleep(200000);
            vkm_progress_at(&bar, steps_done(s), "%zu of %zu runs done", n_done, s->n);
        }
    }
    vkm_progress_end(&bar);
    vkm_interrupt_end();
    if (err->status) return err->status;
    if (n_failed)
        return vkm_fail(err, VKM_FAILED,
                        "%zu of %zu runs failed; run the same command again for them", n_failed,
                        s->n);
    if (n_done < s->n)
        return vkm_fail(err, VKM_FAILED,
                        "stopped: %zu of %zu runs are done; the same command goes on", n_done,
                        s->n);
    return VKM_OK;
}
