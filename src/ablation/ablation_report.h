/* ablation_report.h - an ablation table as Markdown and CSV: measured beside published.
 *
 * Every number comes from result files or from the table's YAML; text that was made twice from the same files
 * is the same to the byte.
 */
#ifndef DINOBATCH_ABLATION_ABLATION_REPORT_H
#define DINOBATCH_ABLATION_ABLATION_REPORT_H

#include "ablation/ablation_results.h"

/* All owned by the caller: memory_free. */

/* A table of rows: for each column the mean over seeds with its standard deviation, the difference to the row
 * above or `beside`, the published figure where the column has any; the digest of the row's configuration;
 * below it what is missing. */
char *ablation_report_markdown(const AblationTable *table, const AblationResults *results);

/* row,name,column,unit,seeds,mean,spread,step,published,digest: a line for each cell; empty where there is no
 * number. */
char *ablation_report_csv(const AblationTable *table, const AblationResults *results);

#endif
