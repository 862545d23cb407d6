/* curation_run.c - see curation_run.h. */
#include "curation/curation_run.h"

#include "base/rng.h"
#include "run/version.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

CurationMeta curation_run_meta(const CurationRun *run, const char *step, const FeatureSource *source)
{
    return (CurationMeta){.step = step,
                          .inputs = source->inputs,
                          .digest = source->digest,
                          .config = run->config_text,
                          .version = version_number()};
}

Status curation_run_path(const CurationRun *run, const char *name, char *path, Error *error)
{
    if (snprintf(path, CURATION_RUN_PATH, "%s/%s", run->folder, name) >= CURATION_RUN_PATH)
        return status_fail(error, STATUS_INPUT, "--output-dir: the path is too long");
    return STATUS_OK;
}

uint64_t curation_run_digest(uint64_t digest, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return rng_hash_bytes(digest, text, strlen(text) + 1);
}

ShardIndexOptions curation_run_index(const CurationRun *run, const char *factory)
{
    const Config *config = run->config;
    return (ShardIndexOptions){.factory = factory,
                               .nprobe = config->curation.nprobe,
                               .train_rows = config->curation.train_rows,
                               .refine = config->curation.refine,
                               .gpu = config->curation.gpu && strcmp(factory, "Flat") != 0,
                               .seed = (uint64_t)config->curation.seed};
}

int64_t curation_run_neighbours(const CurationRun *run, const char *name, int64_t others)
{
    int64_t wanted = run->config->curation.neighbours;
    if (wanted <= others) return wanted;
    log_info(run->log, "curation.neighbours: %lld asked for, %lld is all that a row can have in %s",
             (long long)wanted, (long long)others, name);
    return others;
}

void curation_run_put_search(const CurationRun *run, CurationFile *file, int64_t neighbours)
{
    const Config *config = run->config;
    curation_file_put_int(file, "neighbours", neighbours);
    curation_file_put_text(file, "index", config->curation.index);
    curation_file_put_int(file, "nprobe", config->curation.nprobe);
    curation_file_put_int(file, "refine", config->curation.refine);
    curation_file_put_int(file, "train_rows", config->curation.train_rows);
    curation_file_put_int(file, "seed", config->curation.seed);
}
