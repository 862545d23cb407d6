/* job_curate_run.c - a whole curation: its jobs one after the other, on the same ranks.
 *
 *   dinobatch curate run CURATION.yaml --output-dir DIR [--data-root DIR] [--list] [key=value]...
 *
 * Configuration files and key=value of the command line go to every step, after those of the plan; curation.*
 * to the steps of curate alone, so that other thresholds do not train and extract anew.
 * DIR/steps.txt has the command lines of finished steps. A step is left out when its line is there, its file
 * too, and nothing before it had to be done again; a step that was stopped goes on where it was.
 */
#include "base/atomic_file.h"
#include "base/memory.h"
#include "base/text_file.h"
#include "curation_chain.h"
#include "job_curate.h"
#include "run/run_folder.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    JobContext *context;
    char *steps; /* DIR/steps.txt; owned */
    char *found; /* its text at the start, on all ranks; owned */
    char *done;  /* lines of this chain's steps that are done; owned */
    int done_before;
} Chain;

static Status read_found(Chain *chain, Error *error)
{
    Comm *comm = chain->context->comm;
    size_t length = 0;
    Status status = STATUS_OK;
    if (comm_rank(comm) == 0 && access(chain->steps, F_OK) == 0)
        status = text_file_read(chain->steps, TEXT_FILE_MOST, &chain->found, &length, error);
    TRY(comm_agree(comm, status, error));
    int64_t size = (int64_t)length;
    comm_broadcast(comm, &size, 1, DTYPE_I64, 0, NULL);
    if (!chain->found) chain->found = memory_alloc((size_t)size + 1);
    comm_broadcast(comm, chain->found, size, DTYPE_U8, 0, NULL);
    return STATUS_OK;
}

/* Whether a line of the text is `line`. */
static bool has_line(const char *text, const char *line)
{
    size_t length = strlen(line);
    while (*text) {
        size_t here = strcspn(text, "\n");
        if (here == length && memcmp(text, line, length) == 0) return true;
        text += here + (text[here] != 0);
    }
    return false;
}

static void add_done(Chain *chain, const char *line)
{
    size_t size = strlen(chain->done) + strlen(line) + 2;
    char *longer = memory_alloc(size);
    snprintf(longer, size, "%s%s\n", chain->done, line);
    memory_free(chain->done);
    chain->done = longer;
}

/* Before a step is done again what it, and those behind it, wrote by another command line counts no more. */
static Status write_done(Chain *chain, Error *error)
{
    Status status = STATUS_OK;
    if (comm_rank(chain->context->comm) == 0)
        status = atomic_file_write_text(chain->steps, chain->done, error);
    return comm_agree(chain->context->comm, status, error);
}

static Status run_link(Chain *chain, ChainLink *link, const char *line, Error *error)
{
    JobContext *context = chain->context;
    if (context->options->no_resume) job_chain_add(link, "--no-resume");
    TRY(write_done(chain, error));
    TRY(job_table_invoke(context, link->argc, link->argv, error));
    add_done(chain, line);
    return write_done(chain, error);
}

/* Rank 0 looks; all learn. */
static bool is_there(const Chain *chain, const char *file)
{
    int64_t there = file && comm_rank(chain->context->comm) == 0 && access(file, R_OK) == 0;
    comm_broadcast(chain->context->comm, &there, 1, DTYPE_I64, 0, NULL);
    return there != 0;
}

/* Whether any rank was told to stop. Collective over COMM. */
static bool must_stop(const JobContext *context)
{
    int64_t stop = run_stop_requested(context->run);
    comm_all_reduce(context->comm, &stop, 1, DTYPE_I64, COMM_MAX, NULL);
    return stop != 0;
}

static Status run_links(Chain *chain, const JobChain *links, Error *error)
{
    JobContext *context = chain->context;
    bool anew = context->options->no_resume;
    Status status = STATUS_OK;
    for (int i = 0; i < links->count && status == STATUS_OK; i++) {
        ChainLink *link = &links->links[i];
        char *line = job_chain_text(link);
        bool done = !anew && has_line(chain->found, line) && (!link->output || is_there(chain, link->output));
        log_info(context->log, "step %d of %d%s: %s", i + 1, links->count, done ? ", done before" : "", line);
        if (done) {
            chain->done_before++;
            add_done(chain, line);
        } else if (must_stop(context)) {
            status = status_fail(error, STATUS_REQUEUE, "stopped on request before step %d of %d", i + 1,
                                 links->count);
        } else {
            anew = true;
            status = run_link(chain, link, line, error);
        }
        memory_free(line);
    }
    return status;
}

static void tell(const Chain *chain, const CurationPlan *plan, int steps)
{
    const char *folder = chain->context->options->output_dir;
    if (comm_rank(chain->context->comm) == 0)
        printf("curation %s: %d steps, %d of them done before, in %s\n", plan->name, steps,
               chain->done_before, folder);
    cJSON *tree = cJSON_CreateObject();
    cJSON_AddStringToObject(tree, "job", "curate run");
    cJSON_AddStringToObject(tree, "name", plan->name);
    cJSON_AddStringToObject(tree, "output", folder);
    cJSON_AddNumberToObject(tree, "steps", steps);
    cJSON_AddNumberToObject(tree, "done_before", chain->done_before);
    job_curate_tell(chain->context, tree);
}

static Status run_plan(JobContext *context, const CurationPlan *plan, const JobChain *links, Error *error)
{
    const char *folder = context->options->output_dir;
    size_t size = strlen(folder) + sizeof "/steps.txt";
    Chain chain = {.context = context, .steps = memory_alloc(size), .done = memory_strdup("")};
    snprintf(chain.steps, size, "%s/steps.txt", folder);
    Status status = comm_rank(context->comm) == 0 ? run_folder_make_path(folder, error) : STATUS_OK;
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) status = run_start_manifest(context->run, folder, "manifest.json", "cpu", error);
    if (status == STATUS_OK) status = read_found(&chain, error);
    if (status == STATUS_OK) status = run_links(&chain, links, error);
    if (status == STATUS_OK) tell(&chain, plan, links->count);
    memory_free(chain.found);
    memory_free(chain.done);
    memory_free(chain.steps);
    return status;
}

static void print_chain(const JobContext *context, const JobChain *links)
{
    for (int i = 0; i < links->count && comm_rank(context->comm) == 0; i++) {
        char *line = job_chain_text(&links->links[i]);
        printf("%s\n", line);
        memory_free(line);
    }
}

/* The steps, and what the command line says of all of them. */
static void make_links(JobChain *links, const CurationPlan *plan, const Options *options)
{
    curation_chain_init(links, plan, options->output_dir);
    for (int i = 0; i < links->count; i++) {
        ChainLink *link = &links->links[i];
        for (int f = 0; f < options->config_file_count; f++) {
            job_chain_add(link, "--config-file");
            job_chain_add(link, options->config_files[f]);
        }
        bool curates = strcmp(link->argv[1], "curate") == 0;
        for (int o = 0; o < options->override_count; o++)
            if (curates || strncmp(options->overrides[o], "curation.", sizeof "curation." - 1) != 0)
                job_chain_add(link, options->overrides[o]);
    }
}

Status job_curate_run(JobContext *context, Error *error)
{
    const Options *options = context->options;
    if (options->word_count != 2 || !options->output_dir)
        return status_fail(error, STATUS_INPUT, "curate run needs CURATION.yaml and --output-dir DIR");
    CurationPlan plan;
    Status status = curation_plan_load(&plan, options->words[1], options_get(options, "data-root"), error);
    status = comm_agree(context->comm, status, error);
    if (status == STATUS_OK) {
        JobChain links;
        make_links(&links, &plan, options);
        if (options_get(options, "list"))
            print_chain(context, &links);
        else
            status = run_plan(context, &plan, &links, error);
        job_chain_fini(&links);
    }
    curation_plan_fini(&plan);
    return status;
}
