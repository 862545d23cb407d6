/* job.h - what a job is: one file jobs/job_<name>.c with one function, and one line in job_table.c.
 *
 * A job gets everything ready: MPI runs, the command line is parsed, the configuration is loaded, checked and
 * the same on every rank. It returns an agreed status (the same on all ranks, comm_agree); when one rank
 * alone cannot go on while others may wait for it, it calls run_fail. Results go to stdout on rank 0, and
 * with `json` the last line of stdout is one JSON object.
 */
#ifndef DINOBATCH_JOBS_JOB_H
#define DINOBATCH_JOBS_JOB_H

#include "config/config.h"
#include "run/options.h"
#include "run/run.h"

/* All borrowed from main. */
typedef struct {
    Run *run;
    Comm *comm; /* of run */
    Log *log;   /* of run */
    const Options *options;
    Config *config; /* resolved; the job may fill in what it derives */
    Device *device; /* after job_open_device; NULL before */
    bool json;
} JobContext;

typedef struct {
    const char *name;
    const char *help; /* one line */
    OptionsWanted wanted;
    Status (*run)(JobContext *context, Error *error);
    bool stops; /* on request, after saving; the others are ended by a signal as any program is */
} Job;

/* Every job; the last entry has no name. */
extern const Job JOB_TABLE[];

/* The job of that name; NULL and an error that names the nearest one. */
const Job *job_table_find(const char *name, Error *error);

/* Runs the command line argv[argc] ("dinobatch" JOB ..., as on a shell, the same on all ranks) inside of a
 * running job: a job with its own options, configuration, device and run folder, on the ranks of the outer
 * one. Results go to stdout. argv may be permuted. The outcome, a usage error too, is the same on all ranks.
 * Collective over COMM. */
Status job_table_invoke(const JobContext *outer, int argc, char **argv, Error *error);

extern const OptionSpec job_bench_options[];
Status job_bench(JobContext *context, Error *error);
extern const OptionSpec job_doctor_options[];
Status job_doctor(JobContext *context, Error *error);
extern const OptionSpec job_convert_options[];
Status job_convert(JobContext *context, Error *error);
extern const OptionSpec job_pack_options[], job_synth_options[];

Status job_pack(JobContext *context, Error *error);
Status job_pretrain(JobContext *context, Error *error);
Status job_distill(JobContext *context, Error *error);
Status job_synth(JobContext *context, Error *error);
Status job_validate(JobContext *context, Error *error);

extern const OptionSpec job_ablate_options[];
extern const OptionsKind job_ablate_kinds[];
Status job_ablate(JobContext *context, Error *error);

extern const OptionSpec job_plan_options[];
Status job_plan(JobContext *context, Error *error);

extern const OptionSpec job_curate_options[];
extern const OptionsKind job_curate_kinds[];
Status job_curate(JobContext *context, Error *error);

extern const OptionSpec job_evaluate_options[], job_extract_options[], job_visualize_options[];
extern const OptionsKind job_evaluate_kinds[], job_visualize_kinds[];
Status job_evaluate(JobContext *context, Error *error);
Status job_extract(JobContext *context, Error *error);
Status job_visualize(JobContext *context, Error *error);

#endif
