/* ablation_plot.h - an ablation table as a picture: a panel for each column, rows from left to right. */
#ifndef DINOBATCH_JOBS_ABLATION_PLOT_H
#define DINOBATCH_JOBS_ABLATION_PLOT_H

#include "ablation/ablation_results.h"

/* PNG at `path`: measured with spread on the left axis, published as open circles on an axis of its own on
 * the right, since other data and another scale have other heights. *drawn false: nothing has been measured.
 * Not collective. */
Status ablation_plot_draw(const AblationTable *table, const AblationResults *results, const char *path,
                          bool *drawn, Error *error);

#endif
