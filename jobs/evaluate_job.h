/* evaluate_job.h - what the evaluations of job_evaluate share: the checkpoint, features files, results. */
#ifndef DINOBATCH_JOBS_EVALUATE_JOB_H
#define DINOBATCH_JOBS_EVALUATE_JOB_H

#include "eval/eval_model.h"
#include "features/feature_rows.h"
#include "h5/result_file.h"
#include "job.h"

/* --train-data and --val-data into evaluation.*_dataset_path. */
Status evaluate_job_take_data(const JobContext *context, Config *config, Error *error);

/* --model and --which, on the job's device, with the data sets of the command line in its configuration.
 * eval_model_fini, also after a failure. Collective over COMM. */
Status evaluate_job_load(const JobContext *context, EvalModel *model, Error *error);

/* This rank's part of a features file for `what` ("k-NN"), each row with a label; *classes is raised to the
 * file's. feature_rows_fini, also after a failure. Collective over COMM. */
Status evaluate_job_read_features(const JobContext *context, const char *path, const char *what,
                                  FeatureRows *rows, int64_t *classes, Error *error);

/* STEM.json (one line) and STEM.h5 in `folder`. Not collective: one rank writes. */
Status evaluate_job_write(const char *folder, const char *stem, const char *json, const Result *result,
                          Error *error);

/* The evaluations beside k-NN: job_evaluate_<name>.c. */
Status job_evaluate_dense(JobContext *context, bool depth, Error *error);
Status job_evaluate_linear(JobContext *context, Error *error);
Status job_evaluate_logreg(JobContext *context, Error *error);
Status job_evaluate_retrieval(JobContext *context, Error *error);

#endif
