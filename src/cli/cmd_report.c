/* `vkmoe report` and `vkmoe table`: several runs, side by side. */
#include <stdio.h>

#include "cli/cli.h"
#include "report/report.h"
#include "report/table.h"

enum { MOST_RUNS = 1024 };

typedef struct run_list {
    const char *dir[MOST_RUNS];
    size_t n;
} run_list;
static run_list runs;

static vkm_status add_run(void *value, const char *name, const char *text, vkm_err *err) {
    run_list *l = value;
    (void)name;
    if (l->n == MOST_RUNS)
        return vkm_fail(err, VKM_USAGE, "%s: at most %d runs at once", text, MOST_RUNS);
    l->dir[l->n++] = text;
    return VKM_OK;
}

static vkm_status parse(vkm_opt *opts, size_t n, int argc, char **argv, vkm_err *err) {
    if (!vkm_cli_parse(opts, n, argc, argv, err) && !runs.n)
        vkm_fail(err, VKM_USAGE, "RUN is missing (runs' folders); `vkmoe %s --help`", argv[0]);
    return err->status;
}

vkm_status vkm_cmd_report(int argc, char **argv, vkm_err *err) {
    const char *output = "report.html";
    vkm_opt opts[] = {
        {"RUN", VKM_OPT_ARGS, &runs, .each = add_run, .help = "runs' folders, side by side"},
        {"output", VKM_OPT_STRING, &output, .arg = "FILE", .help = "the HTML file to write"},
    };
    if (parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (!vkm_report_write(runs.dir, runs.n, output, err)) printf("report %s\n", output);
    return err->status;
}

vkm_status vkm_cmd_table(int argc, char **argv, vkm_err *err) {
    const char *recorded = "";
    int json = 0, markdown = 0;
    vkm_opt opts[] = {
        {"RUN", VKM_OPT_ARGS, &runs, .each = add_run,
         .help = "runs' folders; those of one label (else arm) make a row"},
        VKM_CLI_JSON(&json),
        {"markdown", VKM_OPT_FLAG, &markdown, .help = "print Markdown: more columns, differences"},
        {"recorded", VKM_OPT_STRING, &recorded, .arg = "FILE",
         .help = "an earlier --json, or a sweep's sweep.json: its means stand below each row"},
    };
    vkm_table t = {0};
    vkm_strbuf text = {0};
    vkm_json *earlier = NULL;
    if (parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if ((recorded[0] && vkm_json_load(recorded, NULL, &earlier, err)) ||
        vkm_table_read(runs.dir, runs.n, &t, err))
        goto done;
    if (json)
        vkm_table_json(&t, &text);
    else if (markdown)
        vkm_table_markdown(&t, &text);
    else
        vkm_table_print(&t, earlier, stdout);
    if (!vkm_strbuf_check(&text, "the arms table", err)) fputs(vkm_strbuf_str(&text), stdout);
done:
    vkm_strbuf_free(&text);
    vkm_table_free(&t);
    vkm_json_free(earlier);
    return err->status;
}
