/* feature_source.c - see feature_source.h. */
#include "curation/feature_source.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"
#include "curation/curation_file.h"
#include "features/features_match.h"
#include "index/id_exchange.h"

#include <stdio.h>
#include <string.h>

enum {
    SPAN = 1024,          /* rows of the files that one reading with gaps spans */
    KEEP_BLOCK = 1 << 20, /* rows of /keep that are read at a time */
    KEY_BLOCK = 1 << 14,  /* keys that are read at a time */
};

/* --- reading rows --- */

int64_t feature_source_pool_row(const FeatureSource *source, int64_t i)
{
    CHECK(i >= 0 && i < source->rows.count);
    return source->kept ? source->kept[i] : source->rows.first + i;
}

/* The number of the file of a pool row. */
static int file_of(const FeatureSource *source, int64_t pool_row)
{
    CHECK(pool_row >= 0 && pool_row < source->pool_rows);
    int low = 0, high = source->file_count - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (source->file_first[middle] <= pool_row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

const FeaturesFile *feature_source_file(const FeatureSource *source, int64_t pool_row, int64_t *row)
{
    int file = file_of(source, pool_row);
    *row = pool_row - source->file_first[file];
    return &source->files[file];
}

/* Rows of all files together, [first, first + n), from as many files as they lie in. */
static Status read_files(const FeatureSource *source, int64_t first, int64_t n, float *out, Error *error)
{
    int64_t views = source->views;
    while (n > 0) {
        int64_t picture;
        const FeaturesFile *file = feature_source_file(source, first / views, &picture);
        int64_t row = picture * views + first % views, here = file->n - row < n ? file->n - row : n;
        TRY(features_file_read(file, row, here, out, NULL, error));
        out += here * source->rows.d;
        first += here;
        n -= here;
    }
    return STATUS_OK;
}

/* The row of all files together that row i of this rank's rows, or of its view_rows, is. */
static int64_t file_row(const FeatureSource *source, bool views, int64_t i)
{
    int64_t picture = views ? i / source->views : i, view = views ? i % source->views : 0;
    return feature_source_pool_row(source, picture) * source->views + view;
}

/* Rows that lie near each other are read together, with what lies between them. */
static Status read_gaps(const FeatureSource *source, bool views, int64_t first, int64_t n, float *out,
                        Error *error)
{
    int64_t d = source->rows.d, end = first + n;
    while (first < end) {
        int64_t start = file_row(source, views, first), last = first;
        while (last + 1 < end && file_row(source, views, last + 1) < start + SPAN)
            last++;
        TRY(read_files(source, start, file_row(source, views, last) - start + 1, source->span, error));
        for (; first <= last; first++, out += d)
            memcpy(out, source->span + (file_row(source, views, first) - start) * d, (size_t)d * sizeof *out);
    }
    return STATUS_OK;
}

static Status read_rows(const IndexRows *rows, int64_t first, int64_t n, float *out, Error *error)
{
    const FeatureSource *source = rows->context;
    return source->span ? read_gaps(source, false, first, n, out, error)
                        : read_files(source, rows->first + first, n, out, error);
}

static Status read_view_rows(const IndexRows *rows, int64_t first, int64_t n, float *out, Error *error)
{
    const FeatureSource *source = rows->context;
    return source->kept ? read_gaps(source, true, first, n, out, error)
                        : read_files(source, rows->first + first, n, out, error);
}

static void tell_place(const FeatureSource *source, int64_t file_row, char *text, size_t size)
{
    int64_t picture;
    const FeaturesFile *file = feature_source_file(source, file_row / source->views, &picture);
    snprintf(text, size, "%s: row %lld", file->file.path,
             (long long)(picture * source->views + file_row % source->views));
}

static void place_row(const IndexRows *rows, int64_t row, char *text, size_t size)
{
    tell_place(rows->context, file_row(rows->context, false, row), text, size);
}

static void place_view_row(const IndexRows *rows, int64_t row, char *text, size_t size)
{
    tell_place(rows->context, file_row(rows->context, true, row), text, size);
}

/* --- opening --- */

Status feature_source_check_upright(const FeatureSource *source, bool upright, Error *error)
{
    if (source->upside_down != upright) return STATUS_OK;
    return status_fail(error, STATUS_INPUT,
                       upright ? "%s is of pictures upside down, which are for probes alone"
                               : "%s: probes are pictures upside down (extract --upside-down), these are not",
                       source->files[0].file.path);
}

Status feature_source_check_views(const FeatureSource *a, const FeatureSource *b, Error *error)
{
    return features_match_views(&a->files[0], &b->files[0], error);
}

Status feature_source_check_same(const FeatureSource *a, const FeatureSource *b, Log *log, Error *error)
{
    const FeaturesFile *x = &a->files[0], *y = &b->files[0];
    TRY(features_match(x, y, error));
    if (strcmp(x->meta.model, y->meta.model) != 0)
        log_warning(log, "%s is by %s, %s by %s: taken for the same model", x->file.path, x->meta.model,
                    y->file.path, y->meta.model);
    return STATUS_OK;
}

static Status open_files(FeatureSource *source, const char *const *paths, int count, Error *error)
{
    source->files = memory_alloc_array((size_t)count, sizeof *source->files);
    source->file_first = memory_alloc_array((size_t)count + 1, sizeof *source->file_first);
    size_t bytes = 1;
    for (int i = 0; i < count; i++)
        bytes += strlen(paths[i]) + 1;
    source->inputs = memory_alloc(bytes);
    for (int i = 0; i < count; i++) {
        FeaturesFile *file = &source->files[i];
        TRY(features_file_open(file, paths[i], error));
        source->file_count++;
        if (i > 0) TRY(features_match(&source->files[0], file, error));
        if (i > 0) TRY(features_match_views(&source->files[0], file, error));
        if (i > 0) TRY(features_match_upright(&source->files[0], file, error));
        source->views = file->meta.views;
        source->upside_down = file->meta.upside_down;
        source->file_first[i + 1] = source->file_first[i] + file->n / file->meta.views;
        if (file->key_bytes > source->key_bytes) source->key_bytes = file->key_bytes;
        size_t used = strlen(source->inputs);
        snprintf(source->inputs + used, bytes - used, "%s%s", i ? "\n" : "", paths[i]);
    }
    source->pool_rows = source->file_first[count];
    size_t room = strlen(paths[0]) + 32;
    source->name = memory_alloc(room);
    if (count == 1)
        snprintf(source->name, room, "%s", paths[0]);
    else
        snprintf(source->name, room, "%s and %d more", paths[0], count - 1);
    return STATUS_OK;
}

/* source->digest, by rank 0. Collective over COMM. */
static Status make_digest(FeatureSource *source, Comm *comm, Error *error)
{
    uint64_t digest = RNG_HASH_START;
    Status status = STATUS_OK;
    for (int i = 0; i < source->file_count && comm_rank(comm) == 0 && status == STATUS_OK; i++)
        status = features_digest(&source->files[i], &digest, error);
    TRY(comm_agree(comm, status, error));
    comm_broadcast(comm, &digest, 1, DTYPE_I64, 0, NULL);
    source->digest = source->set_digest = digest;
    return STATUS_OK;
}

/* source->key_digest: a sum over rows, in which a key counts with its place. Each rank reads its share.
 * Collective over COMM. */
static Status make_key_digest(FeatureSource *source, Comm *comm, Error *error)
{
    int size = comm_size(comm), rank = comm_rank(comm);
    int64_t end = index_range_first(source->pool_rows, rank + 1, size);
    size_t room = source->key_bytes + 1;
    char *keys = memory_alloc_array(KEY_BLOCK, room);
    uint64_t sum = 0;
    Status status = STATUS_OK;
    for (int64_t at = index_range_first(source->pool_rows, rank, size); at < end && status == STATUS_OK;) {
        int64_t n = end - at < KEY_BLOCK ? end - at : KEY_BLOCK;
        status = feature_source_read_pool_keys(source, at, n, keys, error);
        for (int64_t i = 0; i < n && status == STATUS_OK; i++, at++)
            sum += rng_hash_text(rng_hash_bytes(RNG_HASH_START, &at, sizeof at), keys + (size_t)i * room);
    }
    memory_free(keys);
    TRY(comm_agree(comm, status, error));
    uint64_t *all = memory_alloc_array((size_t)size, sizeof *all);
    comm_all_gather(comm, all, &sum, 1, DTYPE_I64, NULL);
    uint64_t digest = rng_hash_bytes(RNG_HASH_START, &source->pool_rows, sizeof source->pool_rows);
    for (int r = 0; r < size; r++)
        digest += all[r];
    memory_free(all);
    source->key_digest = digest;
    return STATUS_OK;
}

/* --- what an earlier step kept --- */

/* This rank's run of pool rows, looked through: those that stay. */
typedef struct {
    int64_t *records; /* [count, 2] set row, pool row; owned */
    int64_t count, room;
    uint64_t hash; /* a sum over rows, small enough to be added over all ranks */
} Kept;

static void note(Kept *kept, int64_t pool_row)
{
    if (kept->count == kept->room) {
        int64_t room = kept->room * 2 + 1024;
        kept->records = memory_grow(kept->records, (size_t)kept->room * 2 * sizeof(int64_t),
                                    (size_t)room * 2 * sizeof(int64_t));
        kept->room = room;
    }
    kept->records[2 * kept->count++ + 1] = pool_row;
    kept->hash += rng_hash_bytes(RNG_HASH_START, &pool_row, sizeof pool_row) >> 36;
}

static Status scan_keep(const CurationInput *input, int64_t first, int64_t count, Kept *kept, Error *error)
{
    uint8_t *block = memory_alloc(KEEP_BLOCK);
    Status status = STATUS_OK;
    for (int64_t at = 0; at < count && status == STATUS_OK; at += KEEP_BLOCK) {
        int64_t n = count - at < KEEP_BLOCK ? count - at : KEEP_BLOCK;
        status = curation_file_read(input, "/keep", H5_TYPE_U8, first + at, n, block, error);
        for (int64_t i = 0; i < n && status == STATUS_OK; i++)
            if (block[i]) note(kept, first + at + i);
    }
    memory_free(block);
    return status;
}

static Status read_keep(const FeatureSource *source, const char *path, const Comm *comm, Kept *kept,
                        Error *error)
{
    CurationInput input;
    TRY(curation_file_open(&input, path, "/keep", error));
    int64_t first = index_range_first(source->pool_rows, comm_rank(comm), comm_size(comm));
    int64_t count = index_range_first(source->pool_rows, comm_rank(comm) + 1, comm_size(comm)) - first;
    Status status = STATUS_OK;
    if (input.n != source->pool_rows)
        status = status_fail(error, STATUS_INPUT, "%s decides about %lld rows, but %s has %lld", path,
                             (long long)input.n, source->name, (long long)source->pool_rows);
    else if (input.key_digest != source->key_digest)
        status = status_fail(error, STATUS_INPUT, "%s decides about other pictures than those of %s", path,
                             source->name);
    else
        status = scan_keep(&input, first, count, kept, error);
    curation_file_close(&input);
    return status;
}

/* Set rows are numbered over the ranks and go to their owners. Collective over COMM. */
static void deal_kept(FeatureSource *source, Kept *kept, Comm *comm)
{
    int size = comm_size(comm);
    int64_t mine[2] = {kept->count, (int64_t)kept->hash}, total = 0, first = 0;
    int64_t *all = memory_alloc_array(2 * (size_t)size, sizeof *all);
    comm_all_gather(comm, all, mine, 2, DTYPE_I64, NULL);
    uint64_t hash = 0;
    for (int r = 0; r < size; r++) {
        if (r < comm_rank(comm)) first += all[2 * r];
        total += all[2 * r];
        hash += (uint64_t)all[2 * r + 1];
    }
    memory_free(all);
    for (int64_t i = 0; i < kept->count; i++)
        kept->records[2 * i] = first + i;
    IdExchange exchange;
    id_exchange_init(&exchange, kept->records, kept->count, 2, total, comm);
    source->kept = memory_alloc_array((size_t)exchange.count, sizeof *source->kept);
    for (int64_t i = 0; i < exchange.count; i++)
        source->kept[i] = exchange.taken[2 * i + 1];
    id_exchange_fini(&exchange);
    source->rows.total = total;
    source->set_digest = rng_hash_bytes(source->digest, &hash, sizeof hash);
}

/* Each rank tells of the pool rows from its first set row to the next rank's. Collective over COMM. */
static void share_pool(FeatureSource *source, Comm *comm)
{
    int size = comm_size(comm), rank = comm_rank(comm);
    int64_t mine = source->rows.count > 0 ? feature_source_pool_row(source, 0) : source->pool_rows;
    int64_t *all = memory_alloc_array((size_t)size + 1, sizeof *all);
    comm_all_gather(comm, all, &mine, 1, DTYPE_I64, NULL);
    all[0] = 0;
    all[size] = source->pool_rows;
    source->pool_first = all[rank];
    source->pool_count = all[rank + 1] - all[rank];
    memory_free(all);
}

/* --- life --- */

Status feature_source_open(FeatureSource *source, const char *const *paths, int count, const char *keep,
                           Comm *comm, Error *error)
{
    CHECK(count > 0);
    *source = (FeatureSource){.key_bytes = 1};
    TRY(comm_agree(comm, open_files(source, paths, count, error), error));
    TRY(make_digest(source, comm, error));
    TRY(make_key_digest(source, comm, error));
    source->rows = (IndexRows){.name = source->name,
                               .total = source->pool_rows,
                               .d = source->files[0].d,
                               .context = source,
                               .read = read_rows,
                               .place = place_row};
    if (keep) {
        Kept kept = {0};
        Status status = comm_agree(comm, read_keep(source, keep, comm, &kept, error), error);
        if (status == STATUS_OK) deal_kept(source, &kept, comm);
        memory_free(kept.records);
        TRY(status);
    }
    int64_t total = source->rows.total;
    if (total == 0)
        return status_fail(error, STATUS_INPUT, "%s: no rows%s%s", source->name, keep ? " are kept by " : "",
                           keep ? keep : "");
    source->rows.first = index_range_first(total, comm_rank(comm), comm_size(comm));
    source->rows.count = index_range_first(total, comm_rank(comm) + 1, comm_size(comm)) - source->rows.first;
    if (keep || source->views > 1)
        source->span = memory_alloc_array((size_t)(SPAN * source->rows.d), sizeof *source->span);
    source->view_rows = source->rows;
    source->view_rows.first *= source->views;
    source->view_rows.count *= source->views;
    source->view_rows.total *= source->views;
    source->view_rows.read = read_view_rows;
    source->view_rows.place = place_view_row;
    share_pool(source, comm);
    return STATUS_OK;
}

void feature_source_close(FeatureSource *source)
{
    for (int i = 0; i < source->file_count; i++)
        features_file_close(&source->files[i]);
    memory_free(source->files);
    memory_free(source->file_first);
    memory_free(source->kept);
    memory_free(source->span);
    memory_free(source->name);
    memory_free(source->inputs);
    *source = (FeatureSource){0};
}
