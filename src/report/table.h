/* The arms table: outcomes of many runs, arm by arm, with t intervals over seeds, and differences
 * between arms paired by warm start and seed. */
#ifndef VKM_TABLE_H
#define VKM_TABLE_H

#include <stdio.h>

#include "report/outcome.h"
#include "rl/stats.h"

typedef struct vkm_arm_row {
    char arm[64];
    size_t n_runs;
    struct vkm_arm_run {
        const vkm_outcome *run; /* tells the model and the seed */
        const double *value;    /* (VKM_N_FIGURES) its figures, or those derived from it */
    } * of;                     /* (n_runs) */
    vkm_mean mean[VKM_N_FIGURES];
} vkm_arm_row;

typedef struct vkm_table {
    vkm_arm_row *rows; /* (n_rows) in the order in which arms first come, derived rows behind */
    size_t n_rows;
    const vkm_outcome *runs; /* (n_runs) the caller's */
    size_t n_runs;
    double *derived;   /* values of derived rows */
    vkm_outcome *read; /* those of vkm_table_read, else NULL */
} vkm_table;

/* Rows of the arms that the runs have, and derived ones: `base`, the model without an adapter, and
 * `none-early-stop`. The table points into the outcomes. */
vkm_status vkm_table_make(const vkm_outcome *runs, size_t n, vkm_table *out,
                          vkm_err *err) VKM_MUST_CHECK;
/* The same of n runs' folders, as vkm_outcome_read reads them. */
vkm_status vkm_table_read(const char *const *dirs, size_t n, vkm_table *out,
                          vkm_err *err) VKM_MUST_CHECK;
void vkm_table_free(vkm_table *t);
const vkm_arm_row *vkm_table_find(const vkm_table *t, const char *arm); /* NULL: no such row */

/* One arm's figure minus another's, over the runs that both have (same model and seed). */
typedef struct vkm_difference {
    vkm_mean mean;
    int one_sign; /* the mean has the same sign on every model */
} vkm_difference;
vkm_difference vkm_table_difference(const vkm_arm_row *a, const vkm_arm_row *b, vkm_figure_id f);

/* The table for a terminal; recorded: NULL, or an earlier vkm_table_json, whose means
 * stand below each arm's. */
void vkm_table_print(const vkm_table *t, const vkm_json *recorded, FILE *f);
/* Markdown: groups of columns, differences from `absorb`, `hint` and `oracle`. */
void vkm_table_markdown(const vkm_table *t, vkm_strbuf *out);
/* Figures, arms with means and all values of each run, differences: into an object that is open. */
void vkm_table_write(const vkm_table *t, vkm_jw *w);
/* A JSON file of that, with version and commit. */
void vkm_table_json(const vkm_table *t, vkm_strbuf *out);

#endif
