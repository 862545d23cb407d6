/* assembled_set.c - see assembled_set.h. */
#include "curation/assembled_set.h"

#include "base/check.h"
#include "base/memory.h"
#include "curation/feature_source.h"
#include "data/key_search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPAN = 1 << 14 }; /* keys of consecutive rows that are read at a time, at most */

static const char POOL[] = "pool";

/* --- life --- */

void assembled_set_init(AssembledSet *set, int sets, int parts)
{
    *set = (AssembledSet){.sets = memory_alloc_array((size_t)sets, sizeof *set->sets),
                          .prefixes = memory_alloc_array((size_t)sets, sizeof *set->prefixes),
                          .rows = memory_alloc_array((size_t)parts, sizeof *set->rows)};
}

void assembled_set_fini(AssembledSet *set)
{
    for (int i = 0; i < set->set_count; i++)
        data_set_destroy(set->sets[i]);
    memory_free(set->sets);
    memory_free(set->prefixes);
    memory_free(set->rows);
    memory_free(set->places);
    memory_free(set->origins);
    memory_free(set->inputs);
    memory_free(set->taken);
    *set = (AssembledSet){0};
}

/* --- parts --- */

static Status open_set(AssembledSet *set, const char *prefix, const char *spec, Error *error)
{
    TRY(data_set_create(&set->sets[set->set_count], spec, error));
    set->prefixes[set->set_count++] = prefix;
    return STATUS_OK;
}

Status assembled_set_open_pool(AssembledSet *set, const char *spec, Error *error)
{
    CHECK(set->pool_sets == set->set_count);
    TRY(open_set(set, POOL, spec, error));
    set->pool_sets++;
    return STATUS_OK;
}

static void reserve(AssembledSet *set, int64_t more)
{
    int64_t room = set->count + more;
    if (room <= set->room) return;
    set->places =
        memory_grow(set->places, (size_t)set->room * sizeof *set->places, (size_t)room * sizeof *set->places);
    set->origins = memory_grow(set->origins, (size_t)set->room * sizeof *set->origins,
                               (size_t)room * sizeof *set->origins);
    set->room = room;
}

/* A line of the table for a part of that name. */
static Status begin_part(AssembledSet *set, const char *name, Error *error)
{
    if (!*name || strcmp(name, POOL) == 0 || strlen(name) >= COMPOSITION_TABLE_NAME ||
        strpbrk(name, "/,|\"\n"))
        return status_fail(error, STATUS_INPUT, "a part cannot be called '%s'", name);
    for (int i = 0; i < set->part_count; i++)
        if (strcmp(set->rows[i].name, name) == 0)
            return status_fail(error, STATUS_INPUT, "two parts are called %s", name);
    CompositionRow *row = &set->rows[set->part_count];
    *row = (CompositionRow){.mode = ""};
    snprintf(row->name, sizeof row->name, "%s", name);
    return STATUS_OK;
}

Status assembled_set_add_as_is(AssembledSet *set, const char *name, const char *spec, Error *error)
{
    TRY(begin_part(set, name, error));
    CompositionRow *row = &set->rows[set->part_count];
    TRY(open_set(set, row->name, spec, error));
    int64_t images = data_set_count(set->sets[set->set_count - 1]);
    row->mode = "as is";
    row->images = row->retrieved = row->final = images;
    reserve(set, images);
    for (int64_t i = 0; i < images; i++) {
        set->places[set->count] = (DataPlace){set->set_count - 1, i};
        set->origins[set->count++] =
            (AssembledOrigin){.query = -1, .similarity = 1.0f, .neighbour = -1, .part = set->part_count};
    }
    set->part_count++;
    return STATUS_OK;
}

/* All retrieval files are of one pool. */
static Status check_pool(AssembledSet *set, const RetrievalFile *file, const char *path, Error *error)
{
    if (!set->inputs) {
        set->inputs = memory_strdup(file->inputs);
        set->digest = file->digest;
        set->pool_rows = file->pool_rows;
        set->taken = memory_alloc((size_t)(file->pool_rows + 7) / 8);
        return STATUS_OK;
    }
    if (file->digest == set->digest && file->pool_rows == set->pool_rows) return STATUS_OK;
    return status_fail(error, STATUS_INPUT, "%s was retrieved from another pool than the files before it",
                       path);
}

static void take_pictures(AssembledSet *set, const RetrievalFile *file)
{
    CompositionRow *row = &set->rows[set->part_count];
    reserve(set, file->n);
    for (int64_t i = 0; i < file->n; i++) {
        uint8_t *byte = &set->taken[file->row[i] / 8], bit = (uint8_t)(1 << file->row[i] % 8);
        if (!file->first[i] || (*byte & bit)) {
            row->repeats++;
            continue;
        }
        *byte |= bit;
        set->places[set->count] = (DataPlace){0, file->row[i]}; /* the row, until it is found */
        set->origins[set->count++] = (AssembledOrigin){.query = file->query[i],
                                                       .similarity = file->similarity[i],
                                                       .neighbour = (int32_t)file->neighbour[i],
                                                       .part = set->part_count};
    }
}

Status assembled_set_add_retrieved(AssembledSet *set, const char *path, Error *error)
{
    RetrievalFile file;
    Status status = retrieval_file_read(&file, path, error);
    if (status == STATUS_OK) status = check_pool(set, &file, path, error);
    if (status == STATUS_OK) status = begin_part(set, file.name, error);
    if (status == STATUS_OK) {
        CompositionRow *row = &set->rows[set->part_count];
        row->mode = file.is_cluster ? "cluster" : "sample";
        row->images = file.query_rows;
        row->retrieved = file.retrieved;
        row->final = file.n;
        take_pictures(set, &file);
        set->part_count++;
    }
    retrieval_file_fini(&file);
    return status;
}

/* --- the pool's pictures --- */

/* A picture of the pool. */
typedef struct {
    int64_t row, number; /* in places[] */
} Wanted;

static int by_row(const void *left, const void *right)
{
    const Wanted *a = left, *b = right;
    return a->row < b->row ? -1 : a->row > b->row;
}

/* *wanted by row (owned by the caller); returns how many. */
static int64_t list_wanted(const AssembledSet *set, Wanted **wanted)
{
    *wanted = memory_alloc_array((size_t)set->count, sizeof **wanted);
    int64_t n = 0;
    for (int64_t i = 0; i < set->count; i++)
        if (strcmp(set->rows[set->origins[i].part].mode, "as is") != 0)
            (*wanted)[n++] = (Wanted){set->places[i].index, i};
    qsort(*wanted, (size_t)n, sizeof **wanted, by_row);
    return n;
}

/* keys[i], each `room` bytes, of ascending rows; neighbours are read together. */
static Status read_keys(const FeatureSource *source, const Wanted *wanted, int64_t n, size_t room, char *keys,
                        Error *error)
{
    char *span = memory_alloc_array(SPAN, room);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < n && status == STATUS_OK;) {
        int64_t start = wanted[i].row, last = i;
        while (last + 1 < n && wanted[last + 1].row < start + SPAN)
            last++;
        status = feature_source_read_pool_keys(source, start, wanted[last].row - start + 1, span, error);
        for (; i <= last && status == STATUS_OK; i++)
            memcpy(keys + (size_t)i * room, span + (size_t)(wanted[i].row - start) * room, room);
    }
    memory_free(span);
    return status;
}

/* places[n] of the wanted ones. */
static Status find_share(const AssembledSet *set, const FeatureSource *source, const Wanted *wanted,
                         int64_t n, DataPlace *places, Error *error)
{
    size_t room = source->key_bytes + 1;
    char *text = memory_alloc_array((size_t)n, room);
    const char **keys = memory_alloc_array((size_t)n, sizeof *keys);
    for (int64_t i = 0; i < n; i++)
        keys[i] = text + (size_t)i * room;
    Status status = read_keys(source, wanted, n, room, text, error);
    if (status == STATUS_OK)
        status = key_search_run(places, keys, n, (const DataSet *const *)set->sets, set->pool_sets, error);
    for (int64_t i = 0; i < n && status == STATUS_OK; i++)
        if (places[i].set < 0)
            status = status_fail(error, STATUS_INPUT, "no picture of the pool has the key '%s' of row %lld",
                                 keys[i], (long long)wanted[i].row);
    memory_free(keys);
    memory_free(text);
    return status;
}

static Status find_all(AssembledSet *set, const FeatureSource *source, Comm *comm, Error *error)
{
    Wanted *wanted;
    int64_t n = list_wanted(set, &wanted), share = (n + comm_size(comm) - 1) / comm_size(comm);
    int64_t first = share * comm_rank(comm), mine = first >= n ? 0 : n - first < share ? n - first : share;
    DataPlace *places = memory_alloc_array((size_t)(share * comm_size(comm)), sizeof *places);
    Status status = find_share(set, source, wanted + (mine > 0 ? first : 0), mine, places + first, error);
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) {
        comm_all_gather(comm, places, places + first, 2 * share, DTYPE_I64, NULL);
        for (int64_t i = 0; i < n; i++)
            set->places[wanted[i].number] = places[i];
    }
    memory_free(places);
    memory_free(wanted);
    return status;
}

Status assembled_set_find(AssembledSet *set, const char *const *paths, int count, Comm *comm, Error *error)
{
    FeatureSource source;
    Status status = feature_source_open(&source, paths, count, NULL, comm, error);
    if (status == STATUS_OK) status = feature_source_check_upright(&source, true, error);
    if (status == STATUS_OK && source.digest != set->digest)
        status = status_fail(error, STATUS_INPUT,
                             "%s: not the features that the pictures were retrieved from", source.name);
    if (status == STATUS_OK) status = find_all(set, &source, comm, error);
    feature_source_close(&source);
    return status;
}

ShardProvenance assembled_set_provenance(const void *context, int64_t index)
{
    const AssembledSet *set = context;
    const AssembledOrigin *origin = &set->origins[index];
    const CompositionRow *row = &set->rows[origin->part];
    bool as_is = strcmp(row->mode, "as is") == 0;
    return (ShardProvenance){.source = set->prefixes[set->places[index].set],
                             .query_set = as_is ? "" : row->name,
                             .mode = row->mode,
                             .query = origin->query,
                             .neighbour = origin->neighbour,
                             .similarity = origin->similarity};
}
