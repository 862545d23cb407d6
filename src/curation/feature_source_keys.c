/* feature_source_keys.c - the keys of feature_source.h: of any rows, one for each picture. */
#include "base/check.h"
#include "base/memory.h"
#include "curation/feature_source.h"

#include <string.h>

enum { SPAN = 1024 }; /* pictures that one reading with gaps, or through views, spans */

/* Of `n` pictures of a file, from `picture` on: one key in views, in file->key_bytes + 1 bytes each. */
static Status read_file_keys(const FeaturesFile *file, int64_t picture, int64_t n, char *keys, Error *error)
{
    int64_t views = file->meta.views;
    size_t room = file->key_bytes + 1;
    if (views == 1) return features_file_read_keys(file, picture, n, keys, error);
    char *all = memory_alloc_array(SPAN * (size_t)views, room);
    Status status = STATUS_OK;
    for (int64_t at = 0; at < n && status == STATUS_OK; at += SPAN) {
        int64_t here = n - at < SPAN ? n - at : SPAN;
        status = features_file_read_keys(file, (picture + at) * views, here * views, all, error);
        for (int64_t i = 0; i < here && status == STATUS_OK; i++)
            memcpy(keys + (size_t)(at + i) * room, all + (size_t)(i * views) * room, room);
    }
    memory_free(all);
    return status;
}

Status feature_source_read_pool_keys(const FeatureSource *source, int64_t first, int64_t n, char *keys,
                                     Error *error)
{
    size_t room = source->key_bytes + 1;
    while (n > 0) {
        int64_t picture;
        const FeaturesFile *file = feature_source_file(source, first, &picture);
        int64_t left = file->n / source->views - picture, here = left < n ? left : n;
        TRY(read_file_keys(file, picture, here, keys, error));
        for (int64_t i = here - 1; i > 0; i--)
            memmove(keys + (size_t)i * room, keys + (size_t)i * (file->key_bytes + 1), file->key_bytes + 1);
        keys += (size_t)here * room;
        first += here;
        n -= here;
    }
    return STATUS_OK;
}

Status feature_source_read_keys(const FeatureSource *source, int64_t first, int64_t n, char *keys,
                                Error *error)
{
    CHECK(first >= 0 && n >= 0 && first + n <= source->rows.count);
    if (!source->kept)
        return feature_source_read_pool_keys(source, source->rows.first + first, n, keys, error);
    size_t room = source->key_bytes + 1;
    char *span = memory_alloc_array(SPAN, room);
    Status status = STATUS_OK;
    for (int64_t end = first + n; first < end && status == STATUS_OK;) {
        int64_t start = source->kept[first], last = first;
        while (last + 1 < end && source->kept[last + 1] < start + SPAN)
            last++;
        status = feature_source_read_pool_keys(source, start, source->kept[last] - start + 1, span, error);
        for (; first <= last; first++, keys += room)
            memcpy(keys, span + (size_t)(source->kept[first] - start) * room, room);
    }
    memory_free(span);
    return status;
}

Status feature_source_read_key(const FeatureSource *source, int64_t pool_row, char *key, Error *error)
{
    return feature_source_read_pool_keys(source, pool_row, 1, key, error);
}
