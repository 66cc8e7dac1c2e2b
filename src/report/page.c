/* Owns the HTML file. The runs' texts are hostile (models wrote them): they enter as one JSON text
 * in which no '<' is left, the script shows them as text nodes only, and the policy lets no other
 * script run and nothing be fetched. */
#include "report/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "report/table.h"

extern const char vkm_page_css[], vkm_page_chart[], vkm_page_parts[], vkm_page_script[];

/* VKM_*_HASH: base64 of SHA-256 of these texts, worked out by CMakeLists.txt. */
static const char head[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "script-src 'sha256-" VKM_CHART_HASH "' 'sha256-" VKM_PARTS_HASH "' 'sha256-" VKM_SCRIPT_HASH
    "'; "
    "style-src 'sha256-" VKM_CSS_HASH "'; base-uri 'none'; form-action 'none'\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<title>vkmoe report</title>\n<style>";
static const char before_data[] =
    "</style>\n</head>\n<body>\n<main id=\"page\"></main>\n"
    "<noscript>This page draws its tables and charts by the script inside it; please allow "
    "scripts.</noscript>\n<script type=\"application/json\" id=\"data\">";
static const char between_scripts[] = "</script>\n<script>";
static const char tail[] = "</script>\n</body>\n</html>\n";

/* JSON that may stand in a script element: '<' can only be inside strings. */
static void add_escaped(vkm_strbuf *page, const vkm_strbuf *json) {
    const char *at = vkm_strbuf_str(json), *lt;
    for (; (lt = strchr(at, '<')); at = lt + 1) {
        vkm_strbuf_add(page, at, (size_t)(lt - at));
        vkm_strbuf_puts(page, "\\u003c");
    }
    vkm_strbuf_puts(page, at);
}

static vkm_status save(const vkm_strbuf *json, const char *output, vkm_err *err) {
    vkm_strbuf page = {0};
    vkm_strbuf_puts(&page, head);
    vkm_strbuf_puts(&page, vkm_page_css);
    vkm_strbuf_puts(&page, before_data);
    add_escaped(&page, json);
    const char *const scripts[] = {vkm_page_chart, vkm_page_parts, vkm_page_script};
    for (size_t i = 0; i < VKM_COUNTOF(scripts); i++) {
        vkm_strbuf_puts(&page, between_scripts);
        vkm_strbuf_puts(&page, scripts[i]);
    }
    vkm_strbuf_puts(&page, tail);
    if (!vkm_strbuf_check(&page, "the report", err))
        (void)!vkm_file_save(output, page.data, page.n, err);
    vkm_strbuf_free(&page);
    return err->status;
}

/* The arms table of several runs; runs that do not make one (the same arm and seed twice) leave the
 * reason in its place. */
static void add_table(const char *const *dirs, size_t n, vkm_jw *w) {
    vkm_table t = {0};
    vkm_err none = {0};
    vkm_jw_obj(w, "table");
    if (vkm_table_read(dirs, n, &t, &none))
        vkm_jw_str(w, "missing", none.msg);
    else
        vkm_table_write(&t, w);
    vkm_jw_end_obj(w);
    vkm_table_free(&t);
}

vkm_status vkm_report_write(const char *const *runs, size_t n, const char *output, vkm_err *err) {
    vkm_strbuf json = {0};
    vkm_jw w = vkm_jw_begin(&json, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_str(&w, "version", vkm_version());
    vkm_jw_str(&w, "commit", vkm_commit());
    vkm_jw_arr(&w, "runs");
    for (size_t i = 0; i < n && !err->status; i++) (void)!vkm_report_run(runs[i], &w, err);
    if (!err->status) {
        vkm_jw_end_arr(&w);
        if (n > 1) add_table(runs, n, &w);
    }
    if (!err->status) {
        vkm_jw_end_obj(&w);
        if (!vkm_strbuf_check(&json, "the report", err)) (void)!save(&json, output, err);
    }
    vkm_strbuf_free(&json);
    return err->status;
}
