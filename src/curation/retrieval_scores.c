/* retrieval_scores.c - see retrieval_scores.h. */
#include "curation/retrieval_scores.h"

#include "base/memory.h"
#include "curation/feature_source.h"
#include "curation/retrieval_file.h"

#include <stdio.h>
#include <string.h>

static const int64_t PLACES[RETRIEVAL_SCORES_PLACES] = {1, 4, 10, 32};

/* Rows of features files and what they show. */
typedef struct {
    FeatureSource source;
    char *text;        /* [source.pool_rows] keys; owned */
    const char **keys; /* [source.pool_rows] owned array */
    CurationLabels labels;
} Shown;

static void shown_fini(Shown *shown)
{
    feature_source_close(&shown->source);
    memory_free(shown->text);
    memory_free(shown->keys);
    curation_truth_labels_fini(&shown->labels);
}

/* `prefix` NULL: the one that the set's folders tell. */
static Status shown_read(Shown *shown, const char *inputs, const CsvTable *table, const char *prefix,
                         Comm *comm, Error *error)
{
    int count;
    char *lines = memory_strdup(inputs);
    const char **paths = retrieval_file_split(lines, &count);
    FeatureSource *source = &shown->source;
    Status status = feature_source_open(source, paths, count, NULL, comm, error);
    memory_free(paths);
    memory_free(lines);
    TRY(status);
    size_t room = source->key_bytes + 1, n = (size_t)source->pool_rows;
    shown->text = memory_alloc_array(n, room);
    shown->keys = memory_alloc_array(n, sizeof *shown->keys);
    for (size_t i = 0; i < n; i++) {
        shown->keys[i] = shown->text + i * room;
        TRY(feature_source_read_key(source, (int64_t)i, shown->text + i * room, error));
    }
    char found[CURATION_TRUTH_PREFIX];
    if (!prefix) {
        TRY(curation_truth_prefix(found, table, source->files[0].meta.data, shown->keys[0], error));
        prefix = found;
    }
    return curation_truth_labels(&shown->labels, table, prefix, shown->keys, source->pool_rows, error);
}

/* How many places the file has for a query; 0: not all of each query's nearest are there. */
static int64_t places_of(const RetrievalFile *file)
{
    if (file->is_cluster || file->n != file->retrieved || file->query_rows == 0) return 0;
    return file->n % file->query_rows == 0 ? file->n / file->query_rows : 0;
}

static void score_places(RetrievalScores *scores, const RetrievalFile *file, const Shown *pool,
                         const Shown *queries)
{
    int64_t places = places_of(file), k[RETRIEVAL_SCORES_PLACES];
    while (scores->count < RETRIEVAL_SCORES_PLACES && PLACES[scores->count] <= places) {
        k[scores->count] = PLACES[scores->count];
        scores->count++;
    }
    if (scores->count > 0) /* in the order of queries, and of each from the nearest */
        curation_scores_retrieval(scores->at, k, scores->count, &queries->labels, &pool->labels, file->row,
                                  places);
}

static Status score(RetrievalScores *scores, const RetrievalFile *file, const char *path,
                    const CsvTable *table, const char *pool_prefix, Comm *comm, Error *error)
{
    Shown pool = {0}, queries = {0};
    Status status = shown_read(&pool, file->inputs, table, pool_prefix, comm, error);
    if (status == STATUS_OK) status = shown_read(&queries, file->queries, table, NULL, comm, error);
    if (status == STATUS_OK &&
        (pool.source.digest != file->digest || queries.source.pool_rows != file->query_rows))
        status = status_fail(error, STATUS_INPUT, "%s: %s and %s are not what it was retrieved from", path,
                             pool.source.name, queries.source.name);
    if (status == STATUS_OK) {
        score_places(scores, file, &pool, &queries);
        scores->of_set = curation_scores_of_set(&queries.labels, &pool.labels, file->row, file->n);
    }
    shown_fini(&pool);
    shown_fini(&queries);
    return status;
}

Status retrieval_scores_read(RetrievalScores *scores, const char *path, const char *truth,
                             const char *pool_prefix, Error *error)
{
    *scores = (RetrievalScores){0};
    RetrievalFile file;
    CsvTable table = {0};
    char labels[sizeof table.path];
    if (snprintf(labels, sizeof labels, "%s/labels.csv", truth) >= (int)sizeof labels)
        return status_fail(error, STATUS_INPUT, "%s: the path is too long", truth);
    Status status = retrieval_file_read(&file, path, error);
    if (status == STATUS_OK) status = csv_table_load(&table, labels, error);
    if (status == STATUS_OK) {
        scores->name = memory_strdup(file.name);
        scores->queries = file.query_rows;
        Comm *alone = comm_self_create();
        status = score(scores, &file, path, &table, pool_prefix, alone, error);
        comm_destroy(alone);
    }
    csv_table_fini(&table);
    retrieval_file_fini(&file);
    return status;
}

void retrieval_scores_fini(RetrievalScores *scores)
{
    memory_free(scores->name);
    *scores = (RetrievalScores){0};
}
