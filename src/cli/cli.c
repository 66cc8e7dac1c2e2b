/* Owns the command table, the option parser and the device options. Commands own their work. */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ops/device.h"
#include "base/text.h"

typedef struct command {
    const char *name;
    vkm_status (*run)(int argc, char **argv, vkm_err *err);
    const char *summary;
} command;

static const command commands[] = {
#define COMMAND(name, fn, summary) {name, fn, summary},
#include "cli/commands.def"
#undef COMMAND
};

static const command *find_command(const char *name) {
    for (size_t i = 0; i < VKM_COUNTOF(commands); i++)
        if (vkm_text_same(commands[i].name, name)) return &commands[i];
    return NULL;
}

/* ---- help ------------------------------------------------------------------------------------ */

static int is_positional(const vkm_opt *o) {
    return o->type == VKM_OPT_ARG || o->type == VKM_OPT_ARG_MAYBE || o->type == VKM_OPT_ARGS;
}

static void print_default(const vkm_opt *o) {
    char text[1024];
    switch (o->type) {
    case VKM_OPT_INT:
        printf(" [%lld]", (long long)*(int64_t *)o->value);
        break;
    case VKM_OPT_FLOAT:
        printf(" [%g]", *(double *)o->value);
        break;
    case VKM_OPT_STRING:
    case VKM_OPT_ARG_MAYBE:
        if (*(const char **)o->value && **(const char **)o->value)
            printf(" [%s]", *(const char **)o->value);
        break;
    case VKM_OPT_CHOICE:
        printf(" [%s]", vkm_text_choice_name(o->choices, *(int *)o->value, text));
        break;
    case VKM_OPT_EACH:
        if (o->shown && *o->shown(o->name, text)) printf(" [%s]", text);
        break;
    case VKM_OPT_ARG:
    case VKM_OPT_ARGS:
    case VKM_OPT_FLAG:
        break;
    }
}

static void print_option(const vkm_opt *o) {
    const char *value = o->arg                      ? o->arg
                        : o->type == VKM_OPT_INT    ? "N"
                        : o->type == VKM_OPT_FLOAT  ? "X"
                        : o->type == VKM_OPT_CHOICE ? o->choices
                        : o->type == VKM_OPT_STRING ? "TEXT"
                        : o->type == VKM_OPT_EACH   ? "VALUE"
                                                    : "";
    char head[128];
    snprintf(head, sizeof head, "%s%s%s%s", is_positional(o) ? "" : "--", o->name,
             *value ? " " : "", value);
    printf("  %-30s %s", head, o->help ? o->help : "");
    print_default(o);
    putchar('\n');
}

static void print_command_help(const char *name, const vkm_opt *opts, size_t n) {
    const command *c = find_command(name);
    printf("usage: vkmoe %s [options]", name);
    for (size_t i = 0; i < n; i++)
        if (is_positional(&opts[i]))
            printf(opts[i].type == VKM_OPT_ARG    ? " %s"
                   : opts[i].type == VKM_OPT_ARGS ? " %s..."
                                                  : " [%s]",
                   opts[i].name);
    printf("\n%s\n\n", c ? c->summary : "");
    for (size_t i = 0; i < n; i++)
        if (is_positional(&opts[i])) print_option(&opts[i]);
    for (size_t i = 0; i < n; i++)
        if (!is_positional(&opts[i])) print_option(&opts[i]);
    puts("  --quiet                        only warnings on stderr\n"
         "  --verbose                      details on stderr\n"
         "  --help                         this text");
}

static void print_help(FILE *f) {
    fputs("vkmoe trains Qwen3-type language models by GRPO with a two-expert LoRA adapter on any\n"
          "Vulkan device or the CPU, with the same bits everywhere.\n\n"
          "usage: vkmoe COMMAND [options]\n\n",
          f);
    for (size_t i = 0; i < VKM_COUNTOF(commands); i++)
        fprintf(f, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fputs("\n`vkmoe COMMAND --help` lists its options and their defaults. Exit codes: 0 done, 1 "
          "failed,\n"
          "2 usage, 75 device lost (restart from the checkpoint).\n",
          f);
}

/* ---- parser ---------------------------------------------------------------------------------- */

static vkm_status set_option(const vkm_opt *o, const char *text, vkm_err *err) {
    char label[VKM_CHOICE_BYTES];
    snprintf(label, sizeof label, "%s%s", is_positional(o) ? "" : "--", o->name);
    switch (o->type) {
    case VKM_OPT_INT:
        return vkm_text_int(label, text, (int64_t)o->min, (int64_t)o->max, o->value, err);
    case VKM_OPT_FLOAT:
        return vkm_text_float(label, text, o->min, o->max, o->value, err);
    case VKM_OPT_CHOICE:
        return vkm_text_choice(label, text, o->choices, o->value, err);
    case VKM_OPT_ARGS:
    case VKM_OPT_EACH:
        return o->each(o->value, o->name, text, err);
    case VKM_OPT_FLAG:
        *(int *)o->value = 1;
        return VKM_OK;
    case VKM_OPT_ARG:
    case VKM_OPT_ARG_MAYBE:
    case VKM_OPT_STRING:
        *(const char **)o->value = text;
        return VKM_OK;
    }
    return VKM_OK;
}

/* Logging options that every command takes; 0 if `name` is none of them. */
static int set_verbosity(const char *name) {
    if (!strcmp(name, "quiet"))
        vkm_log_verbosity = VKM_LOG_QUIET;
    else if (!strcmp(name, "verbose"))
        vkm_log_verbosity = VKM_LOG_DEBUG;
    else
        return 0;
    return 1;
}

static vkm_status unknown_option(const vkm_opt *opts, size_t n, const char *where, const char *name,
                                 vkm_err *err) {
    const char *names[VKM_CLI_MAX_OPTS] = {"help", "quiet", "verbose"};
    char hint[VKM_CHOICE_BYTES * 2];
    VKM_BUG_ON(n + 3 > VKM_CLI_MAX_OPTS, "%zu options", n);
    for (size_t i = 0; i < n; i++)
        if (!is_positional(&opts[i])) names[i + 3] = opts[i].name;
    return vkm_fail(err, VKM_USAGE, "unknown option '--%s'%s; `vkmoe %s --help` lists them", name,
                    vkm_text_hint(name, "--", names, n + 3, hint), where);
}

static const vkm_opt *next_positional(const vkm_opt *opts, size_t n, size_t *at) {
    while (*at < n && !is_positional(&opts[*at])) ++*at;
    if (*at < n && opts[*at].type == VKM_OPT_ARGS) return &opts[*at];
    return *at < n ? &opts[(*at)++] : NULL;
}

vkm_status vkm_cli_parse(const vkm_opt *opts, size_t n, int argc, char **argv, vkm_err *err) {
    size_t at = 0;
    int only_args = 0;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            print_command_help(argv[0], opts, n);
            exit(VKM_OK);
        } else if (!strcmp(argv[i], "--")) {
            break;
        }
    for (int i = 1; i < argc; i++) {
        char *word = argv[i];
        if (only_args || word[0] != '-' || !word[1]) {
            const vkm_opt *o = next_positional(opts, n, &at);
            if (!o)
                return vkm_fail(err, VKM_USAGE, "'%s' is one argument too many; `vkmoe %s --help`",
                                word, argv[0]);
            if (set_option(o, word, err)) return err->status;
            continue;
        }
        if (!strcmp(word, "--")) {
            only_args = 1;
            continue;
        }
        char name[VKM_CHOICE_BYTES];
        const char *text = strchr(word, '=');
        const char *begin = word + strspn(word, "-");
        size_t len = text ? (size_t)(text - begin) : strlen(begin);
        snprintf(name, sizeof name, "%.*s", (int)len, begin);
        if (!text && set_verbosity(name)) continue;
        const vkm_opt *o = NULL;
        for (size_t k = 0; k < n && !o; k++)
            if (!is_positional(&opts[k]) && vkm_text_same(opts[k].name, name)) o = &opts[k];
        if (!o || word[1] != '-') return unknown_option(opts, n, argv[0], name, err);
        if (o->type == VKM_OPT_FLAG && text)
            return vkm_fail(err, VKM_USAGE, "--%s takes no value", o->name);
        if (o->type != VKM_OPT_FLAG && !text && i + 1 == argc)
            return vkm_fail(err, VKM_USAGE, "--%s needs a value", o->name);
        if (text)
            text++;
        else if (o->type != VKM_OPT_FLAG)
            text = argv[++i];
        if (set_option(o, text, err)) return err->status;
    }
    const vkm_opt *o = next_positional(opts, n, &at);
    if (o && o->type == VKM_OPT_ARG)
        return vkm_fail(err, VKM_USAGE, "%s is missing (%s); `vkmoe %s --help`", o->name,
                        o->help ? o->help : "see the usage", argv[0]);
    return VKM_OK;
}

/* ---- device ---------------------------------------------------------------------------------- */

vkm_status vkm_cli_choose_backend(vkm_cli_device *d, vkm_err *err) {
    vkm_dev_info *list = NULL;
    vkm_err none = {0};
    uint32_t n = 0;
    (void)err;
    if (d->backend != VKM_CLI_AUTO) return VKM_OK;
    d->backend = d->device ? VKM_CLI_VULKAN : VKM_CLI_CPU;
    if (!d->device && !vkm_dev_list(&list, &n, &none)) /* no loader or driver: no GPU */
        for (uint32_t i = 0; i < n; i++)
            if (list[i].type != VKM_DEV_SOFTWARE && !list[i].refused[0])
                d->backend = VKM_CLI_VULKAN;
    free(list);
    return VKM_OK;
}

static vkm_dev_options device_options(const vkm_cli_device *d) {
    return (vkm_dev_options){
        .backend = d->backend == VKM_CLI_CPU ? VKM_CPU : VKM_VULKAN,
        .device = d->device,
        .threads = (int)d->threads,
        .fast = d->fast,
        .flush_denormals = d->flush_denormals,
        .validate = d->validate,
        .shaders = d->shaders,
        .check_hazards = d->check_hazards,
        .profile = d->profile,
    };
}

vkm_status vkm_cli_open_device(vkm_cli_device *d, const vkm_config *c, vkm_dev **out,
                               vkm_err *err) {
    if (c) d->fast = c->numerics == VKM_numerics_fast;
    if (vkm_cli_choose_backend(d, err)) return err->status;
    vkm_dev_options o = device_options(d);
    if (vkm_device_open(&o, out, err)) return err->status;
    vkm_info("device: %s, %s", vkm_dev_name(*out), vkm_dev_driver(*out));
    return VKM_OK;
}

void vkm_cli_close_device(const vkm_cli_device *d, vkm_dev *dev) {
    if (!dev) return;
    if (d->profile) vkm_dev_print_profile(dev, stderr);
    vkm_dev_close(dev);
}

/* ---- program --------------------------------------------------------------------------------- */

static vkm_status unknown_command(const char *name, vkm_err *err) {
    const char *names[VKM_COUNTOF(commands)];
    char hint[VKM_CHOICE_BYTES * 2];
    for (size_t i = 0; i < VKM_COUNTOF(commands); i++) names[i] = commands[i].name;
    return vkm_fail(err, VKM_USAGE, "unknown command '%s'%s; `vkmoe --help` lists them", name,
                    vkm_text_hint(name, "", names, VKM_COUNTOF(commands), hint));
}

/* An error is one line, also when it quotes a text of several. */
static void print_error(const char *name, const vkm_err *err) {
    char line[sizeof err->msg];
    for (size_t i = 0; i < sizeof line; i++) {
        unsigned char c = (unsigned char)err->msg[i];
        line[i] = (char)(c && (c < 0x20 || c == 0x7f) ? '?' : c);
    }
    fprintf(stderr, "vkmoe%s%s: %s\n", *name == '-' ? "" : " ", *name == '-' ? "" : name, line);
}

int vkm_cli_main(int argc, char **argv) {
    vkm_err err = {0};
    (void)signal(SIGXFSZ, SIG_IGN); /* past `ulimit -f` a write fails and is reported */
    const char *name = argc > 1 ? argv[1] : "";
    if (!*name) {
        print_help(stderr);
        return VKM_USAGE;
    }
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_help(stdout);
    } else if (!strcmp(name, "--version")) {
        printf("vkmoe %s (%s)\n", vkm_version(), vkm_commit());
    } else {
        const command *c = find_command(name);
        if (c)
            c->run(argc - 1, argv + 1, &err);
        else
            unknown_command(name, &err);
    }
    if ((fflush(stdout) || ferror(stdout)) && !err.status)
        vkm_fail(&err, VKM_FAILED, "stdout could not be written; is the disk full?");
    if (err.status) print_error(name, &err);
    return err.status;
}
