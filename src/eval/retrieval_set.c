/* retrieval_set.c - see retrieval_set.h. */
#include "eval/retrieval_set.h"

#include "base/memory.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_BLOCK = 4096 }; /* keys that are read at a time */

/* --- from a file --- */

static Status read_rows(const IndexRows *rows, int64_t first, int64_t n, float *out, Error *error)
{
    const RetrievalSet *set = rows->context;
    return features_file_read(&set->file, rows->first + first, n, out, NULL, error);
}

static void room(RetrievalSet *set, int64_t count)
{
    set->labels = memory_alloc_array((size_t)count, sizeof *set->labels);
    set->hashes = memory_alloc_array((size_t)count, sizeof *set->hashes);
}

static void add_key(RetrievalSet *set, const char *key)
{
    set->hashes[set->keys.count] = rng_hash_name(key);
    text_table_append(&set->keys, key, strlen(key));
}

/* Not collective. */
static Status open_part(RetrievalSet *set, const char *path, int rank, int ranks, Error *error)
{
    FeaturesFile *file = &set->file;
    TRY(features_file_open(file, path, error));
    set->is_file = true;
    if (file->meta.views > 1)
        return status_fail(error, STATUS_INPUT,
                           "%s: has %lld views of each picture; retrieval wants features without --views",
                           path, (long long)file->meta.views);
    if (file->meta.upside_down)
        return status_fail(error, STATUS_INPUT, "%s: is of pictures upside down", path);
    int64_t first = index_range_first(file->n, rank, ranks);
    int64_t count = index_range_first(file->n, rank + 1, ranks) - first;
    set->rows = (IndexRows){.name = path,
                            .count = count,
                            .first = first,
                            .total = file->n,
                            .d = file->d,
                            .context = set,
                            .read = read_rows};
    set->classes = file->classes;
    room(set, count);
    TRY(features_file_read(file, first, count, NULL, set->labels, error));
    size_t stride = file->key_bytes + 1;
    char *keys = memory_alloc_array(KEY_BLOCK, stride);
    Status status = STATUS_OK;
    for (int64_t at = 0; at < count && status == STATUS_OK; at += KEY_BLOCK) {
        int64_t n = count - at < KEY_BLOCK ? count - at : KEY_BLOCK;
        status = features_file_read_keys(file, first + at, n, keys, error);
        for (int64_t i = 0; i < n && status == STATUS_OK; i++)
            add_key(set, keys + (size_t)i * stride);
    }
    memory_free(keys);
    return status;
}

Status retrieval_set_open(RetrievalSet *set, const char *path, Comm *comm, Error *error)
{
    *set = (RetrievalSet){.name = path};
    return comm_agree(comm, open_part(set, path, comm_rank(comm), comm_size(comm), error), error);
}

/* --- from features at hand --- */

void retrieval_set_take(RetrievalSet *set, const char *name, const FeatureRows *rows, const DataSet *data)
{
    *set = (RetrievalSet){.name = name};
    set->rows = index_rows_memory(name, rows->values, rows->count, rows->d);
    set->rows.first = rows->first;
    set->rows.total = rows->total;
    room(set, rows->count);
    for (int64_t i = 0; i < rows->count; i++) {
        char key[DATA_SET_KEY_MAX];
        data_set_key(data, rows->indices[i], key, sizeof key);
        add_key(set, key);
        int64_t label = rows->labels[i];
        set->labels[i] = label < 0 ? -1 : (int64_t)(rng_hash_name(data_set_class_name(data, label)) >> 1);
    }
}

void retrieval_set_fini(RetrievalSet *set)
{
    memory_free(set->labels);
    memory_free(set->hashes);
    text_table_destroy(&set->keys);
    if (set->is_file) features_file_close(&set->file);
    *set = (RetrievalSet){0};
}

/* --- questions --- */

bool retrieval_set_same_data(const char *left, const char *right)
{
    size_t length = strcspn(left, ";");
    return length == strcspn(right, ";") && memcmp(left, right, length) == 0;
}

typedef struct {
    uint64_t hash;
    int64_t number; /* in the table */
} Wanted;

static int by_hash(const void *left, const void *right)
{
    const Wanted *a = left, *b = right;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

static int64_t lower_bound(const Wanted *wanted, int64_t n, uint64_t hash)
{
    int64_t low = 0, high = n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (wanted[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

Status retrieval_set_find(const RetrievalSet *set, const TextTable *keys, int64_t *places, Comm *comm,
                          Error *error)
{
    int64_t n = keys->count;
    Wanted *wanted = memory_alloc_array((size_t)n, sizeof *wanted);
    int64_t *times = memory_alloc_array((size_t)n, sizeof *times);
    for (int64_t i = 0; i < n; i++) {
        wanted[i] = (Wanted){rng_hash_name(text_table_get(keys, i)), i};
        places[i] = -1;
    }
    qsort(wanted, (size_t)n, sizeof *wanted, by_hash);
    for (int64_t row = 0; row < set->rows.count; row++) {
        const char *key = text_table_get(&set->keys, row);
        for (int64_t i = lower_bound(wanted, n, set->hashes[row]);
             i < n && wanted[i].hash == set->hashes[row]; i++) {
            int64_t number = wanted[i].number;
            if (strcmp(text_table_get(keys, number), key) != 0) continue;
            places[number] = set->rows.first + row;
            times[number]++;
        }
    }
    comm_all_reduce(comm, places, n, DTYPE_I64, COMM_MAX, NULL);
    comm_all_reduce(comm, times, n, DTYPE_I64, COMM_SUM, NULL);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < n && status == STATUS_OK; i++)
        if (times[i] > 1)
            status = status_fail(error, STATUS_INPUT, "%s: %lld rows have the key '%s'", set->name,
                                 (long long)times[i], text_table_get(keys, i));
    memory_free(times);
    memory_free(wanted);
    return status;
}

Status retrieval_set_check_labels(const RetrievalSet *set, Comm *comm, Error *error)
{
    Status status = STATUS_OK;
    for (int64_t i = 0; i < set->rows.count && status == STATUS_OK; i++)
        if (set->labels[i] < 0 || (set->is_file && set->labels[i] >= set->classes))
            status = status_fail(error, STATUS_INPUT,
                                 "%s: row %lld has no label, and retrieval without --truth needs one",
                                 set->name, (long long)(set->rows.first + i));
    return comm_agree(comm, status, error);
}
