/* run_config.c - from options to one checked configuration, the same on every rank. */
#include "run/run_config.h"

#include "base/memory.h"
#include "base/rng.h"

#include <string.h>
#include <unistd.h>

/* Whether the keys lie over the configuration of weights that are given. That is not read yet, and rules
 * between keys are checked where it is: those of the defaults say nothing of it. */
static bool overlays_weights(const Options *options)
{
    if (strcmp(options->job, "convert") == 0) return true;
    for (int i = 0; options->own && options->own[i].name; i++)
        if (strcmp(options->own[i].name, "model") == 0 && options->own_counts[i] > 0)
            return access(options->own_values[i][options->own_counts[i] - 1], R_OK) == 0;
    return false;
}

static Status overlay(Config *config, const Options *options, Error *error)
{
    for (int i = 0; i < options->config_file_count; i++)
        TRY(config_load_file(config, options->config_files[i], error));
    for (int i = 0; i < options->override_count; i++)
        TRY(config_override(config, options->overrides[i], error));
    if (options->output_dir)
        TRY(config_override_text(config, "train.output_dir", options->output_dir, "--output-dir", error));
    return overlays_weights(options) ? STATUS_OK : config_check(config, error);
}

Status run_config_load(Config *config, const Options *options, Error *error)
{
    config_init(config);
    Status status = overlay(config, options, error);
    if (status != STATUS_OK) config_fini(config);
    return status;
}

/* The ranks' configurations are equal when the least and the greatest hash of their texts are. */
static Status check_same(const Config *config, Comm *comm, Error *error)
{
    char *text = config_dump(config);
    int64_t least = (int64_t)(rng_hash_name(text) >> 1), greatest = least;
    memory_free(text);
    comm_all_reduce(comm, &least, 1, DTYPE_I64, COMM_MIN, NULL);
    comm_all_reduce(comm, &greatest, 1, DTYPE_I64, COMM_MAX, NULL);
    if (least == greatest) return STATUS_OK;
    return status_fail(
        error, STATUS_INPUT,
        "the ranks read different configurations: is a --config-file different between nodes?");
}

static void log_notes(const Config *config, Log *log)
{
    ConfigNotes notes;
    config_notes_init(&notes, config);
    for (int i = 0; i < notes.count; i++)
        log_info(log, "%s", notes.lines[i]);
    config_notes_fini(&notes);
}

Status run_config_load_all(Config *config, const Options *options, Comm *comm, Log *log, Error *error)
{
    Status local = run_config_load(config, options, error);
    Status status = comm_agree(comm, local, error);
    if (status == STATUS_OK) status = check_same(config, comm, error);
    if (status == STATUS_OK)
        log_notes(config, log);
    else if (local == STATUS_OK)
        config_fini(config);
    return status;
}
