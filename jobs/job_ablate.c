/* job_ablate.c - the rows of an ablation table, and the table.
 *
 *   dinobatch ablate list --table TABLE.yaml --output-dir DIR
 *   dinobatch ablate run --table TABLE.yaml --row N [--seed S] --output-dir DIR [--data-root DIR]
 * [key=value]... dinobatch ablate report --table TABLE.yaml --output-dir DIR [--results DIR]
 *
 * `run` trains and evaluates one row with one seed, and writes DIR/results/rowNN_seedS.h5; a row that is done
 * is skipped, one that was interrupted goes on. `report` makes DIR/NAME.md, .csv and .png of the files that
 * are there.
 */
#include "ablation/ablation_report.h"
#include "ablation_chain.h"
#include "ablation_plot.h"
#include "base/atomic_file.h"
#include "base/check.h"
#include "base/memory.h"
#include "job.h"
#include "run/run_folder.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const OptionSpec job_ablate_options[] = {
    {"table", "TABLE.yaml", "the ablation table", false},
    {"row", "N", "which row, from 1", false},
    {"seed", "S", "which seed (default: the table's first)", false},
    {"data-root", "DIR", "what {root} in the table stands for (default: ../shared/data)", false},
    {"results", "DIR", "folder of result files (default: OUTPUT/results)", false},
    {0},
};

const OptionsKind job_ablate_kinds[] = {
    {"run", "table row seed data-root"},
    {"list", "table"},
    {"report", "table results"},
    {0},
};

static const char DATA_ROOT[] = "../shared/data";

static void tell(const JobContext *context, cJSON *tree)
{
    char *text = cJSON_PrintUnformatted(tree);
    if (context->json && comm_rank(context->comm) == 0) printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(tree);
}

/* --- run --- */

static Status parse_run(const JobContext *context, const AblationTable *table, AblationRun *run, Error *error)
{
    const char *row = options_get(context->options, "row"), *seed = options_get(context->options, "seed"),
               *root = options_get(context->options, "data-root");
    if (!row) return status_fail(error, STATUS_INPUT, "ablate run needs --row N");
    char *end;
    long number = strtol(row, &end, 10);
    if (end == row || *end || number < 1 || number > table->row_count)
        return status_fail(error, STATUS_INPUT, "--row %s: expected a number from 1 to %d", row,
                           table->row_count);
    *run = (AblationRun){.table = table,
                         .row = (int)number - 1,
                         .seed = seed ? seed : table->seeds.texts[0],
                         .folder = context->options->output_dir,
                         .root = root ? root : DATA_ROOT};
    for (int s = 0; s < table->seeds.count; s++)
        if (strcmp(run->seed, table->seeds.texts[s]) == 0) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "--seed %s: not one of the table's", run->seed);
}

/* Keys of the command line must not make the row another experiment. */
static Status check_overrides(const JobContext *context, Error *error)
{
    Config plain, changed;
    config_init(&plain);
    config_init(&changed);
    Status status = STATUS_OK;
    for (int i = 0; i < context->options->override_count && status == STATUS_OK; i++)
        status = config_override(&changed, context->options->overrides[i], error);
    if (status == STATUS_OK) status = config_diff_check_resume(&plain, &changed, error);
    if (status != STATUS_OK) status_prefix(error, status, "what is of the experiment belongs in the table");
    config_fini(&plain);
    config_fini(&changed);
    return status;
}

/* Rank 0 looks; all learn. */
static Status look(const JobContext *context, const AblationRun *run, int row, const char *results,
                   AblationState *state, Error *error)
{
    int64_t found = 0;
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        status = ablation_results_state(run->table, row, run->seed, results, state, error);
        found = *state;
    }
    TRY(comm_agree(context->comm, status, error));
    comm_broadcast(context->comm, &found, 1, DTYPE_I64, 0, NULL);
    *state = (AblationState)found;
    return STATUS_OK;
}

/* The row that this one comes after has to be trained. */
static Status check_after(const JobContext *context, const AblationRun *run, const char *results,
                          Error *error)
{
    const AblationRow *row = &run->table->rows[run->row];
    if (!row->after) return STATUS_OK;
    int after = ablation_table_row(run->table, row->after);
    AblationState state;
    TRY(look(context, run, after, results, &state, error));
    if (state == ABLATION_DONE) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "row %d (%s) comes after row %d (%s), whose seed %s is not done",
                       run->row + 1, row->name, after + 1, row->after, run->seed);
}

/* Whether any rank was told to stop. Collective over COMM. */
static bool must_stop(const JobContext *context)
{
    int64_t stop = run_stop_requested(context->run);
    comm_all_reduce(context->comm, &stop, 1, DTYPE_I64, COMM_MAX, NULL);
    return stop != 0;
}

static Status run_chain(JobContext *context, JobChain *chain, Error *error)
{
    const Options *options = context->options;
    for (int i = 0; i < chain->count; i++) {
        ChainLink *link = &chain->links[i];
        if (must_stop(context))
            return status_fail(error, STATUS_REQUEUE, "stopped on request before job %d of %d of the row",
                               i + 1, chain->count);
        if (options->no_resume && !link->output) job_chain_add(link, "--no-resume");
        for (int o = 0; o < options->override_count; o++)
            job_chain_add(link, options->overrides[o]);
        char *line = job_chain_text(link);
        log_info(context->log, "job %d of %d: %s", i + 1, chain->count, line);
        memory_free(line);
        TRY(job_table_invoke(context, link->argc, link->argv, error));
    }
    return STATUS_OK;
}

/* Rank 0: the evaluations' figures, and the configuration that was trained, into the row's file. */
static Status write_row(const AblationRun *run, const JobChain *chain, const char *results, const char *model,
                        Error *error)
{
    int count = run->table->evaluation_count, first = chain->count - count;
    const char **files = memory_alloc_array((size_t)count + 1, sizeof *files);
    for (int e = 0; e < count; e++)
        files[e] = chain->links[first + e].output;
    Config config;
    config_init(&config);
    char *path = job_chain_format("%s/config.yaml", model);
    Status status = config_load_file(&config, path, error);
    if (status == STATUS_OK) {
        char *text = config_dump(&config);
        status = ablation_results_write(run->table, run->row, run->seed, results, files, text, error);
        memory_free(text);
    }
    config_fini(&config);
    memory_free(path);
    memory_free(files);
    return status;
}

static void tell_row(const JobContext *context, const AblationRun *run, const char *results, bool before)
{
    char *path = ablation_results_path(results, run->row, run->seed);
    if (comm_rank(context->comm) == 0 && !context->json)
        printf("%s: row %d (%s), seed %s%s: %s\n", run->table->name, run->row + 1,
               run->table->rows[run->row].name, run->seed, before ? ", done before" : "", path);
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "ablate run");
    cJSON_AddStringToObject(tree, "table", run->table->name);
    cJSON_AddNumberToObject(tree, "row", run->row + 1);
    cJSON_AddStringToObject(tree, "seed", run->seed);
    cJSON_AddBoolToObject(tree, "done_before", before);
    cJSON_AddStringToObject(tree, "output", path);
    tell(context, tree);
    memory_free(path);
}

/* What makes the row, all on the same ranks. */
static Status run_row(JobContext *context, const AblationRun *run, const char *results, Error *error)
{
    char *folder = ablation_chain_folder(run, run->row), *model = ablation_chain_model(run, run->row);
    JobChain chain;
    ablation_chain_init(&chain, run);
    Status status = STATUS_OK;
    if (comm_rank(context->comm) == 0) {
        status = run_folder_make_path(folder, error);
        if (status == STATUS_OK) status = run_folder_make_path(results, error);
    }
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) status = run_start_manifest(context->run, folder, "manifest.json", "cpu", error);
    if (status == STATUS_OK) status = run_chain(context, &chain, error);
    if (status == STATUS_OK && comm_rank(context->comm) == 0)
        status = write_row(run, &chain, results, model, error);
    status = comm_agree(context->comm, status, error);
    job_chain_fini(&chain);
    memory_free(folder);
    memory_free(model);
    return status;
}

static Status ablate_run(JobContext *context, const AblationTable *table, const char *results, Error *error)
{
    AblationRun run = {0};
    AblationState state;
    TRY(parse_run(context, table, &run, error));
    TRY(check_overrides(context, error));
    TRY(look(context, &run, run.row, results, &state, error));
    bool done = state == ABLATION_DONE && !context->options->no_resume;
    if (!done) {
        TRY(check_after(context, &run, results, error));
        TRY(run_row(context, &run, results, error));
    }
    tell_row(context, &run, results, done);
    return STATUS_OK;
}

/* --- list --- */

/* How long a chain of rows a row comes at the end of: those of one number can run side by side. */
static int stage_of(const AblationTable *table, int row)
{
    const char *after = table->rows[row].after;
    return after ? 1 + stage_of(table, ablation_table_row(table, after)) : 0;
}

static Status ablate_list(JobContext *context, const AblationTable *table, const char *results, Error *error)
{
    static const char *const states[] = {"missing", "stale", "done"};
    if (comm_rank(context->comm) != 0) return STATUS_OK;
    if (!context->json) printf("row seed stage state name\n");
    for (int r = 0; r < table->row_count; r++)
        for (int s = 0; s < table->seeds.count; s++) {
            AblationState state;
            TRY(ablation_results_state(table, r, table->seeds.texts[s], results, &state, error));
            if (!context->json)
                printf("%d %s %d %s %s\n", r + 1, table->seeds.texts[s], stage_of(table, r), states[state],
                       table->rows[r].name);
        }
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "ablate list");
    cJSON_AddNumberToObject(tree, "rows", table->row_count);
    cJSON_AddNumberToObject(tree, "seeds", table->seeds.count);
    tell(context, tree);
    return STATUS_OK;
}

/* --- report --- */

static Status write_text(const char *folder, const char *name, const char *ending, char *text, Error *error)
{
    char *path = job_chain_format("%s/%s%s", folder, name, ending);
    Status status = atomic_file_write_text(path, text, error);
    if (status == STATUS_OK) printf("%s\n", path);
    memory_free(path);
    memory_free(text);
    return status;
}

static Status write_report(const AblationTable *table, const AblationResults *results, const char *folder,
                           Error *error)
{
    TRY(run_folder_make_path(folder, error));
    TRY(write_text(folder, table->name, ".md", ablation_report_markdown(table, results), error));
    TRY(write_text(folder, table->name, ".csv", ablation_report_csv(table, results), error));
    bool drawn;
    char *path = job_chain_format("%s/%s.png", folder, table->name);
    Status status = ablation_plot_draw(table, results, path, &drawn, error);
    if (status == STATUS_OK && drawn) printf("%s\n", path);
    memory_free(path);
    return status;
}

static Status ablate_report(JobContext *context, const AblationTable *table, const char *results,
                            Error *error)
{
    if (comm_rank(context->comm) != 0) return STATUS_OK;
    AblationResults all;
    Status status = ablation_results_load(&all, table, results, error);
    if (status == STATUS_OK) status = write_report(table, &all, context->options->output_dir, error);
    int measured = 0;
    for (int r = 0; r < all.count; r++)
        measured += all.rows[r].measured;
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "ablate report");
    cJSON_AddNumberToObject(tree, "measured", measured);
    cJSON_AddNumberToObject(tree, "of", table->row_count * table->seeds.count);
    tell(context, tree);
    ablation_results_fini(&all);
    return status;
}

Status job_ablate(JobContext *context, Error *error)
{
    static const struct {
        const char *name;
        Status (*run)(JobContext *context, const AblationTable *table, const char *results, Error *error);
    } kinds[] = {{"run", ablate_run}, {"list", ablate_list}, {"report", ablate_report}};
    const Options *options = context->options;
    const char *file = options_get(options, "table"), *results = options_get(options, "results");
    size_t k = 0, count = sizeof kinds / sizeof *kinds;
    while (k < count && strcmp(options->words[0], kinds[k].name) != 0)
        k++;
    CHECK(k < count); /* options_parse refuses what job_ablate_kinds has not */
    if (!file || !options->output_dir)
        return status_fail(error, STATUS_INPUT, "ablate %s needs --table TABLE.yaml and --output-dir DIR",
                           kinds[k].name);
    AblationTable table;
    char *folder = results ? memory_strdup(results) : job_chain_format("%s/results", options->output_dir);
    Status status = comm_agree(context->comm, ablation_table_load(&table, file, error), error);
    if (status == STATUS_OK)
        status = comm_agree(context->comm, kinds[k].run(context, &table, folder, error), error);
    ablation_table_fini(&table);
    memory_free(folder);
    return status;
}
