/* key_search.c - see key_search.h. */
#include "data/key_search.h"

#include "base/memory.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t hash;
    int64_t number; /* in keys[] */
} Wanted;

typedef struct {
    const char *const *keys;
    const DataSet *const *sets;
    Wanted *wanted; /* [n] sorted */
    int64_t n;
    DataPlace *places;
} Search;

static int by_hash(const void *left, const void *right)
{
    const Wanted *a = left, *b = right;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

/* The first of the wanted whose hash is not below. */
static int64_t lower_bound(const Search *search, uint64_t hash)
{
    int64_t low = 0, high = search->n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (search->wanted[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static Status twice(const Search *search, const char *key, DataPlace a, DataPlace b, Error *error)
{
    char first[DATA_SET_KEY_MAX], second[DATA_SET_KEY_MAX];
    data_set_location(search->sets[a.set], a.index, first, sizeof first);
    data_set_location(search->sets[b.set], b.index, second, sizeof second);
    return status_fail(error, STATUS_INPUT, "'%.200s' is the key of two pictures: %.300s and %.300s", key,
                       first, second);
}

static Status take(const Search *search, const char *key, DataPlace place, Error *error)
{
    uint64_t hash = rng_hash_name(key);
    for (int64_t i = lower_bound(search, hash); i < search->n && search->wanted[i].hash == hash; i++) {
        int64_t number = search->wanted[i].number;
        if (strcmp(search->keys[number], key) != 0) continue;
        if (search->places[number].set >= 0) return twice(search, key, search->places[number], place, error);
        search->places[number] = place;
    }
    return STATUS_OK;
}

Status key_search_run(DataPlace *places, const char *const *keys, int64_t n, const DataSet *const *sets,
                      int count, Error *error)
{
    Search search = {.keys = keys, .sets = sets, .n = n, .places = places};
    search.wanted = memory_alloc_array((size_t)n, sizeof *search.wanted);
    for (int64_t i = 0; i < n; i++) {
        places[i] = (DataPlace){-1, -1};
        search.wanted[i] = (Wanted){rng_hash_name(keys[i]), i};
    }
    qsort(search.wanted, (size_t)n, sizeof *search.wanted, by_hash);
    Status status = STATUS_OK;
    char key[DATA_SET_KEY_MAX];
    for (int s = 0; s < count && status == STATUS_OK; s++) {
        for (int64_t i = 0; i < data_set_count(sets[s]) && status == STATUS_OK; i++) {
            data_set_key(sets[s], i, key, sizeof key);
            status = take(&search, key, (DataPlace){s, i}, error);
        }
    }
    memory_free(search.wanted);
    return status;
}
