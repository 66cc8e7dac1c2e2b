/* `vkmoe report`. */
#include <stdio.h>

#include "cli/cli.h"
#include "report/report.h"

enum { MOST_RUNS = 256 };

typedef struct run_list {
    const char *dir[MOST_RUNS];
    size_t n;
} run_list;

static vkm_status add_run(void *value, const char *name, const char *text, vkm_err *err) {
    run_list *l = value;
    (void)name;
    if (l->n == MOST_RUNS)
        return vkm_fail(err, VKM_USAGE, "%s: at most %d runs in one report", text, MOST_RUNS);
    l->dir[l->n++] = text;
    return VKM_OK;
}

vkm_status vkm_cmd_report(int argc, char **argv, vkm_err *err) {
    static run_list runs;
    const char *output = "report.html";
    vkm_opt opts[] = {
        {"RUN", VKM_OPT_ARGS, &runs, .each = add_run, .help = "runs' folders, side by side"},
        {"output", VKM_OPT_STRING, &output, .arg = "FILE", .help = "the HTML file to write"},
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (!runs.n)
        return vkm_fail(err, VKM_USAGE, "RUN is missing (runs' folders); `vkmoe report --help`");
    if (!vkm_report_write(runs.dir, runs.n, output, err)) printf("report %s\n", output);
    return err->status;
}
