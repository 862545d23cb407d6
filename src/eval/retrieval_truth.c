/* retrieval_truth.c - see retrieval_truth.h. */
#include "eval/retrieval_truth.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/text_file.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    RetrievalGrade grade;
} LISTS[] = {{"easy", RETRIEVAL_EASY}, {"hard", RETRIEVAL_HARD}, {"junk", RETRIEVAL_JUNK}};

enum { LIST_COUNT = sizeof LISTS / sizeof *LISTS };

/* --- from JSON --- */

static bool known_member(const char *name)
{
    for (int i = 0; i < LIST_COUNT; i++)
        if (strcmp(name, LISTS[i].name) == 0) return true;
    return strcmp(name, "query") == 0 || strcmp(name, "box") == 0;
}

static int64_t entries_of(const cJSON *item)
{
    int64_t count = 0;
    for (int i = 0; i < LIST_COUNT; i++)
        count += cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(item, LISTS[i].name));
    return count;
}

static Status take_list(RetrievalTruth *truth, const cJSON *item, int list, Error *error)
{
    const cJSON *keys = cJSON_GetObjectItemCaseSensitive(item, LISTS[list].name), *key;
    if (!keys) return STATUS_OK;
    int64_t query = truth->queries.count - 1;
    if (!cJSON_IsArray(keys))
        return status_fail(error, STATUS_INPUT, "%s: query '%s': \"%s\" is not a list", truth->path,
                           text_table_get(&truth->queries, query), LISTS[list].name);
    cJSON_ArrayForEach(key, keys)
    {
        if (!cJSON_IsString(key))
            return status_fail(error, STATUS_INPUT,
                               "%s: query '%s': \"%s\" holds something that is not a string", truth->path,
                               text_table_get(&truth->queries, query), LISTS[list].name);
        truth->entries[truth->keys.count] = (RetrievalEntry){query, -1, LISTS[list].grade};
        text_table_append(&truth->keys, key->valuestring, strlen(key->valuestring));
    }
    return STATUS_OK;
}

static Status take_query(RetrievalTruth *truth, const cJSON *item, int64_t number, Error *error)
{
    const cJSON *query = cJSON_GetObjectItemCaseSensitive(item, "query"), *member;
    if (!cJSON_IsString(query))
        return status_fail(error, STATUS_INPUT, "%s: queries[%lld] has no string \"query\"", truth->path,
                           (long long)number);
    cJSON_ArrayForEach(member, item)
    {
        if (!known_member(member->string))
            return status_fail(error, STATUS_INPUT,
                               "%s: query '%s': \"%s\" is none of query, box, easy, hard, junk", truth->path,
                               query->valuestring, member->string);
    }
    text_table_append(&truth->queries, query->valuestring, strlen(query->valuestring));
    for (int i = 0; i < LIST_COUNT; i++)
        TRY(take_list(truth, item, i, error));
    truth->starts[number + 1] = truth->keys.count;
    return STATUS_OK;
}

static Status take_tree(RetrievalTruth *truth, const cJSON *tree, Error *error)
{
    const cJSON *queries = cJSON_GetObjectItemCaseSensitive(tree, "queries"), *item;
    if (!cJSON_IsArray(queries) || cJSON_GetArraySize(queries) < 1)
        return status_fail(error, STATUS_INPUT, "%s: expected an object with a list \"queries\"",
                           truth->path);
    int64_t entries = 0, number = 0;
    cJSON_ArrayForEach(item, queries) entries += entries_of(item);
    truth->count = cJSON_GetArraySize(queries);
    truth->rows = memory_alloc_array((size_t)truth->count, sizeof *truth->rows);
    truth->starts = memory_alloc_array((size_t)truth->count + 1, sizeof *truth->starts);
    truth->entries = memory_alloc_array((size_t)entries, sizeof *truth->entries);
    cJSON_ArrayForEach(item, queries) TRY(take_query(truth, item, number++, error));
    return STATUS_OK;
}

Status retrieval_truth_load(RetrievalTruth *truth, const char *path, Error *error)
{
    *truth = (RetrievalTruth){.path = path};
    char *text = NULL;
    size_t size = 0;
    Status status = text_file_read(path, TEXT_FILE_MOST, &text, &size, error);
    if (status == STATUS_OK) {
        const char *end = NULL;
        cJSON *tree = cJSON_ParseWithOpts(text, &end, true);
        if (tree)
            status = take_tree(truth, tree, error);
        else
            status = status_fail(error, STATUS_INPUT, "%s: not JSON at byte %lld", path,
                                 (long long)(end ? end - text : 0));
        cJSON_Delete(tree);
    }
    memory_free(text);
    return status;
}

/* --- rows --- */

static int by_row(const void *left, const void *right)
{
    const RetrievalEntry *a = left, *b = right;
    return a->row < b->row ? -1 : a->row > b->row;
}

static int by_number(const void *left, const void *right)
{
    const int64_t *a = left, *b = right;
    return *a < *b ? -1 : *a > *b;
}

static Status check_queries(const RetrievalTruth *truth, const RetrievalSet *queries, Error *error)
{
    for (int64_t q = 0; q < truth->count; q++)
        if (truth->rows[q] < 0)
            return status_fail(error, STATUS_INPUT, "%s: the query '%s' is not in %s", truth->path,
                               text_table_get(&truth->queries, q), queries->name);
    int64_t *sorted = memory_alloc_array((size_t)truth->count, sizeof *sorted);
    memcpy(sorted, truth->rows, (size_t)truth->count * sizeof *sorted);
    qsort(sorted, (size_t)truth->count, sizeof *sorted, by_number);
    int64_t twice = -1;
    for (int64_t q = 1; q < truth->count && twice < 0; q++)
        if (sorted[q] == sorted[q - 1]) twice = sorted[q];
    memory_free(sorted);
    for (int64_t q = 0; q < truth->count && twice >= 0; q++)
        if (truth->rows[q] == twice)
            return status_fail(error, STATUS_INPUT, "%s: the query '%s' is listed twice", truth->path,
                               text_table_get(&truth->queries, q));
    return STATUS_OK;
}

static Status place_entries(RetrievalTruth *truth, const int64_t *places, const RetrievalSet *database,
                            Error *error)
{
    for (int64_t i = 0; i < truth->keys.count; i++) {
        RetrievalEntry *entry = &truth->entries[i];
        entry->row = places[i];
        if (places[i] < 0)
            return status_fail(error, STATUS_INPUT, "%s: query '%s': '%s' is not in %s", truth->path,
                               text_table_get(&truth->queries, entry->query), text_table_get(&truth->keys, i),
                               database->name);
    }
    for (int64_t q = 0; q < truth->count; q++) {
        RetrievalEntry *entries = truth->entries + truth->starts[q];
        int64_t n = truth->starts[q + 1] - truth->starts[q];
        qsort(entries, (size_t)n, sizeof *entries, by_row);
        for (int64_t i = 1; i < n; i++)
            if (entries[i].row == entries[i - 1].row)
                return status_fail(error, STATUS_INPUT, "%s: query '%s' lists row %lld of %s twice",
                                   truth->path, text_table_get(&truth->queries, q), (long long)entries[i].row,
                                   database->name);
    }
    return STATUS_OK;
}

Status retrieval_truth_resolve(RetrievalTruth *truth, const RetrievalSet *database,
                               const RetrievalSet *queries, Comm *comm, Error *error)
{
    TRY(retrieval_set_find(queries, &truth->queries, truth->rows, comm, error));
    TRY(check_queries(truth, queries, error));
    int64_t *places = memory_alloc_array((size_t)truth->keys.count, sizeof *places);
    Status status = retrieval_set_find(database, &truth->keys, places, comm, error);
    if (status == STATUS_OK) status = place_entries(truth, places, database, error);
    memory_free(places);
    return status;
}

void retrieval_truth_grade(const RetrievalTruth *truth, int64_t query, int64_t first, int64_t count,
                           uint8_t *grades)
{
    CHECK(query >= 0 && query < truth->count);
    memset(grades, RETRIEVAL_NEGATIVE, (size_t)count);
    int64_t low = truth->starts[query], end = truth->starts[query + 1], high = end;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (truth->entries[middle].row < first)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < end && truth->entries[low].row < first + count; low++)
        grades[truth->entries[low].row - first] = (uint8_t)truth->entries[low].grade;
}

void retrieval_truth_fini(RetrievalTruth *truth)
{
    memory_free(truth->rows);
    memory_free(truth->starts);
    memory_free(truth->entries);
    text_table_destroy(&truth->queries);
    text_table_destroy(&truth->keys);
    *truth = (RetrievalTruth){0};
}
