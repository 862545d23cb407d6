/* duplicate_keys.c - see duplicate_keys.h. */
#include "curation/duplicate_keys.h"

#include "base/memory.h"
#include "base/rng.h"
#include "index/id_exchange.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; /* keys that are read at a time */

#define HASHES (INT64_C(1) << 62)

/* As id_exchange.h wants it. */
typedef struct {
    int64_t hash, pool_row;
} Key;

static int by_hash_and_row(const void *left, const void *right)
{
    const Key *a = left, *b = right;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->pool_row < b->pool_row ? -1 : a->pool_row > b->pool_row;
}

/* Keys that may be equal get different hashes. */
static int64_t hash_key(const FeatureSource *source, DuplicateKeysScope scope, const char *key,
                        int64_t pool_row)
{
    int64_t row, file = feature_source_file(source, pool_row, &row) - source->files;
    if (scope == DUPLICATE_KEYS_IN_SET) file = 0;
    uint64_t hash = rng_hash_bytes(RNG_HASH_START, &file, sizeof file);
    return (int64_t)(rng_hash_bytes(hash, key, strlen(key)) >> 2);
}

static Status hash_keys(const FeatureSource *source, DuplicateKeysScope scope, Key *keys, Error *error)
{
    size_t room = source->key_bytes + 1;
    char *text = memory_alloc_array(BLOCK, room);
    Status status = STATUS_OK;
    for (int64_t first = 0; first < source->rows.count && status == STATUS_OK; first += BLOCK) {
        int64_t n = source->rows.count - first < BLOCK ? source->rows.count - first : BLOCK;
        status = feature_source_read_keys(source, first, n, text, error);
        for (int64_t i = 0; i < n && status == STATUS_OK; i++) {
            int64_t pool_row = feature_source_pool_row(source, first + i);
            keys[first + i] = (Key){hash_key(source, scope, text + (size_t)i * room, pool_row), pool_row};
        }
    }
    memory_free(text);
    return status;
}

static Status compare(const FeatureSource *source, DuplicateKeysScope scope, int64_t first, int64_t second,
                      Error *error)
{
    int64_t row, other_row;
    const FeaturesFile *file = feature_source_file(source, first, &row);
    const FeaturesFile *other = feature_source_file(source, second, &other_row);
    if (scope == DUPLICATE_KEYS_IN_FILE && file != other) return STATUS_OK;
    char *a = memory_alloc(source->key_bytes + 1), *b = memory_alloc(source->key_bytes + 1);
    Status status = feature_source_read_key(source, first, a, error);
    if (status == STATUS_OK) status = feature_source_read_key(source, second, b, error);
    if (status == STATUS_OK && strcmp(a, b) == 0)
        status =
            status_fail(error, STATUS_INPUT, "'%s' is the key of two rows: row %lld of %s and row %lld of %s",
                        a, (long long)row, file->file.path, (long long)other_row, other->file.path);
    memory_free(a);
    memory_free(b);
    return status;
}

/* All pairs of equal hashes. */
static Status compare_equal(const FeatureSource *source, DuplicateKeysScope scope, const Key *keys, int64_t n,
                            Error *error)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i + 1; j < n && keys[j].hash == keys[i].hash; j++)
            TRY(compare(source, scope, keys[i].pool_row, keys[j].pool_row, error));
    return STATUS_OK;
}

Status duplicate_keys_check(const FeatureSource *source, DuplicateKeysScope scope, Comm *comm, Error *error)
{
    Key *keys = memory_alloc_array((size_t)source->rows.count, sizeof *keys);
    Status status = comm_agree(comm, hash_keys(source, scope, keys, error), error);
    if (status == STATUS_OK) {
        qsort(keys, (size_t)source->rows.count, sizeof *keys, by_hash_and_row);
        IdExchange exchange;
        id_exchange_init(&exchange, (const int64_t *)(const void *)keys, source->rows.count, 2, HASHES, comm);
        qsort(exchange.taken, (size_t)exchange.count, sizeof *keys, by_hash_and_row);
        status =
            compare_equal(source, scope, (const Key *)(const void *)exchange.taken, exchange.count, error);
        id_exchange_fini(&exchange);
        status = comm_agree(comm, status, error);
    }
    memory_free(keys);
    return status;
}
