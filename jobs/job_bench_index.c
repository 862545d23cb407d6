/* job_bench_index.c - see job_bench_index.h. */
#include "job_bench_index.h"

#include "base/memory.h"
#include "report/gnuplot.h"
#include "run/run_folder.h"

#include <limits.h>

static const GnuplotPage PAGE = {1400, 560, 11, "#ffffff"};

/* Rank 0. */
static Status draw(const JobContext *context, const IndexBench *bench, Error *error)
{
    const char *folder = context->options->output_dir;
    char path[PATH_MAX], *script = index_bench_plot(bench);
    Status status = run_folder_make_path(folder, error);
    int length = snprintf(path, sizeof path, "%s/index.png", folder);
    if (status == STATUS_OK && (length < 0 || (size_t)length >= sizeof path))
        status = status_fail(error, STATUS_INPUT, "--output-dir: the name is too long");
    if (status == STATUS_OK) status = gnuplot_draw(script, &PAGE, path, error);
    if (status == STATUS_OK) log_info(context->log, "wrote %s", path);
    memory_free(script);
    return status;
}

Status job_bench_index(JobContext *context, const JobBenchIndex *request, BenchReport *report, Error *error)
{
    IndexBenchParams index = {.comm = context->comm,
                              .threads = request->threads,
                              .seconds = request->seconds,
                              .rows = request->rows,
                              .features = request->features,
                              .quick = request->quick};
    KmeansBenchParams kmeans = {.comm = context->comm, .threads = request->threads, .quick = request->quick};
    log_info(context->log, "search");
    TRY(index_bench_run(&report->index, &index, error));
    report->has_index = true;
    if (request->out) bench_report_print_index(&report->index, request->out);
    fflush(stdout);
    log_info(context->log, "k-means");
    TRY(kmeans_bench_run(report->kmeans, &report->kmeans_count, &kmeans, error));
    if (request->out) bench_report_print_kmeans(report->kmeans, report->kmeans_count, request->out);
    fflush(stdout);
    Status status = STATUS_OK;
    if (request->out && context->options->output_dir) status = draw(context, &report->index, error);
    return comm_agree(context->comm, status, error);
}
