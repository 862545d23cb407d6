/* job_table.c - every job, and jobs inside of jobs. */
#include "job.h"
#include "run/run_config.h"

#include <string.h>

const Job JOB_TABLE[] = {
    {"pack",
     "a folder, tar or list of pictures into HDF5 shards",
     {job_pack_options, NULL, 0, 0, NULL},
     job_pack,
     false},
    {"synth",
     "writes the procedural labelled data set",
     {job_synth_options, NULL, 0, 0, NULL},
     job_synth,
     false},
    {"pretrain", "trains student and teacher", {0}, job_pretrain, true},
    {"distill", "trains a small student against a frozen larger teacher", {0}, job_distill, true},
    {"extract",
     "features of a data set by a checkpoint or a copy-detection network",
     {job_extract_options, NULL, 0, 0, NULL},
     job_extract,
     false},
    {"curate",
     "a data curation, or one of its steps, on features files",
     {job_curate_options, "run|calibrate|dedup|exclude|cluster|retrieve|assemble|score [CURATION.yaml]", 1, 2,
      job_curate_kinds},
     job_curate,
     true},
    {"convert",
     "weights from and to safetensors: reference, Hugging Face, timm names",
     {job_convert_options, "IN OUT", 2, 2, NULL},
     job_convert,
     false},
    {"evaluate",
     "figures of a trained backbone",
     {job_evaluate_options, "knn|linear|logreg|retrieval|segmentation|depth", 1, 1, job_evaluate_kinds},
     job_evaluate,
     false},
    {"ablate",
     "an ablation table: its rows, and the report",
     {job_ablate_options, "run|list|report", 1, 1, job_ablate_kinds},
     job_ablate,
     true},
    {"validate",
     "checks a file against its schema and checksums",
     {NULL, "FILE", 1, 1, NULL},
     job_validate,
     false},
    {"visualize",
     "pictures of features, of a training and of a curation",
     {job_visualize_options, "pca|matches|attention|curves|duplicates|neighbours", 1, 1, job_visualize_kinds},
     job_visualize,
     false},
    {"plan",
     "memory, traffic, time and GPU-hours on a described cluster",
     {job_plan_options, NULL, 0, 0, NULL},
     job_plan,
     false},
    {"bench",
     "hot operations and the whole step, against the machine's limits",
     {job_bench_options, NULL, 0, 0, NULL},
     job_bench,
     false},
    {"doctor",
     "what this build and this machine can do, and whether jobs will run here",
     {job_doctor_options, NULL, 0, 0, NULL},
     job_doctor,
     false},
    {0},
};
enum { JOB_COUNT = sizeof JOB_TABLE / sizeof *JOB_TABLE - 1 };

const Job *job_table_find(const char *name, Error *error)
{
    const char *names[JOB_COUNT];
    for (int i = 0; i < JOB_COUNT; i++) {
        if (strcmp(JOB_TABLE[i].name, name) == 0) return &JOB_TABLE[i];
        names[i] = JOB_TABLE[i].name;
    }
    const char *near = options_nearest(name, names, JOB_COUNT);
    if (near)
        status_fail(error, STATUS_INPUT, "unknown job '%s'; did you mean %s?", name, near);
    else
        status_fail(error, STATUS_INPUT, "unknown job '%s'; see dinobatch --help", name);
    return NULL;
}

Status job_table_invoke(const JobContext *outer, int argc, char **argv, Error *error)
{
    const Job *job = job_table_find(argv[1], error);
    if (!job) return STATUS_INPUT;
    Options options;
    Config config;
    Status status = options_parse(&options, &job->wanted, argc, argv, error);
    if (status == STATUS_OK) {
        Run run = run_inside(outer->run, argc, argv);
        status = run_config_load_all(&config, &options, run.comm, &run.log, error);
        if (status == STATUS_OK) {
            JobContext context = {
                .run = &run, .comm = run.comm, .log = &run.log, .options = &options, .config = &config};
            status = job->run(&context, error);
            comm_detach_device(run.comm);
            device_close(context.device);
            config_fini(&config);
        }
        run_leave(&run, status);
    }
    options_fini(&options);
    return status;
}
