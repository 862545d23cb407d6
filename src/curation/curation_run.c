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
                          .key_digest = source->key_digest,
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
    return rng_hash_text(digest, text);
}

Status curation_run_make_index(const CurationRun *run, const IndexRows *rows, const char *factory,
                               ShardIndex **index, Error *error)
{
    const Config *config = run->config;
    bool flat = strcmp(factory, "Flat") == 0;
    ShardIndexOptions options = {.factory = factory,
                                 .nprobe = config->curation.nprobe,
                                 .train_rows = config->curation.train_rows,
                                 .refine = config->curation.refine,
                                 .gpu = config->curation.gpu && !flat,
                                 .seed = (uint64_t)config->curation.seed};
    TRY(shard_index_create(index, rows, &options, run->ops, run->comm, error));
    if (flat) return STATUS_OK;
    ShardIndexSeconds seconds = shard_index_seconds(*index);
    double bytes = (double)shard_index_bytes(*index);
    comm_all_reduce(run->comm, &bytes, 1, DTYPE_F64, COMM_SUM, NULL);
    log_info(run->log, "%s, %s: lists learnt in %.1f s, filled in %.1f s; %.3f GB on all ranks", rows->name,
             factory, seconds.train, seconds.fill, bytes * 1e-9);
    return STATUS_OK;
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

void curation_run_put_views(const FeatureSource *pool, CurationFile *file)
{
    const char *list = pool->files[0].meta.view_list;
    if (!list) return;
    curation_file_put_int(file, "views", pool->views);
    curation_file_put_text(file, "view_list", list);
}

void curation_run_put_normalization(const CurationRun *run, CurationFile *file, double background_most)
{
    curation_file_put_int(file, "score_normalization", run->config->curation.score_normalization);
    if (run->config->curation.score_normalization)
        curation_file_put_double(file, "background_most", background_most);
}
