/* job_visualize_sheets.h - contact sheets of curations. */
#ifndef DINOBATCH_JOBS_JOB_VISUALIZE_SHEETS_H
#define DINOBATCH_JOBS_JOB_VISUALIZE_SHEETS_H

#include "visualize_sheet.h"

/* `visualize neighbours` of a file of curate retrieve: each query, and what it brought in. The outcome is
 * agreed. Collective over COMM. */
Status job_visualize_sheets_brought(const JobContext *context, const VisualizeSheetRequest *request,
                                    const char *curation, Error *error);

#endif
