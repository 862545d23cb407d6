/* feature_stream.c - see feature_stream.h. */
#include "features/feature_stream.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "features/feature_work.h"
#include "run/progress.h"

#include <string.h>

enum {
    PROGRESS_LINES = 5,
    BATCHES = 32,       /* that a small set is at least made of, for ranks to have a share of it, */
    PICTURES_LEAST = 8, /* as long as these are so many */
    RECORD = 4,         /* numbers of a row: label, index, patches down and across */
};

/* Rows of one batch. */
typedef struct {
    int64_t count, patches; /* rows, and their patch tokens */
    int64_t *records;       /* [count, RECORD] */
    float *values;          /* [count, columns] */
    float *tokens;          /* [patches, D]; NULL where nobody wants them */
} Part;

typedef struct {
    const FeatureExtractor *extractor;
    const Ops *ops;
    Comm *comm;
    FeatureWork *work;
    EvalLoader *loader;
    int64_t columns, width, most; /* of a row, of a token; images of a batch at most */
    Part own, come;               /* this rank's; another's at rank 0 */
    int64_t *counts;              /* [ranks, 3] rows, patch tokens, images that cannot be read */
    int64_t *lengths;             /* [2 * ranks] of comm_all_to_all */
    int64_t *unpacked;            /* [most, 4] labels, indices, grids */
    FeatureSink sink;
    void *context;
    FeatureStreamResult *result;
} Stream;

static Part part_create(const Stream *stream)
{
    size_t most = (size_t)stream->most;
    Part part = {.records = memory_alloc_array(most * RECORD, sizeof *part.records),
                 .values = memory_alloc_array(most * (size_t)stream->columns + 1, sizeof *part.values)};
    if (stream->extractor->patches)
        part.tokens = memory_alloc_array(
            most * (size_t)(feature_work_patches(stream->extractor) * stream->width), sizeof *part.tokens);
    return part;
}

static void part_destroy(Part *part)
{
    memory_free(part->records);
    memory_free(part->values);
    memory_free(part->tokens);
}

/* --- a rank's batch --- */

/* Moves what belongs to readable images to the front; the others are counted in counts[2]. */
static void keep_valid(const Stream *stream, const EvalBatch *batch, Part *part, int64_t *unreadable)
{
    size_t row = (size_t)stream->columns * sizeof *part->values;
    int64_t kept = 0, tokens = 0, seen = 0;
    for (int64_t i = 0; i < batch->count; i++) {
        EvalSize grid = {0};
        if (part->tokens) grid = feature_work_grid(stream->extractor, batch->sizes[i]);
        int64_t patches = grid.height * grid.width, from = seen;
        seen += patches;
        if (!batch->valid[i]) continue;
        int64_t record[RECORD] = {batch->labels[i], batch->indices[i], grid.height, grid.width};
        memcpy(part->records + kept * RECORD, record, sizeof record);
        if (kept != i)
            memmove(part->values + kept * stream->columns, part->values + i * stream->columns, row);
        if (tokens != from)
            memmove(part->tokens + tokens * stream->width, part->tokens + from * stream->width,
                    (size_t)(patches * stream->width) * sizeof *part->tokens);
        tokens += patches;
        kept++;
    }
    part->count = kept;
    part->patches = tokens;
    *unreadable = batch->count - kept;
}

/* The next batch of this rank, or nothing behind its last. */
static Status compute(Stream *stream, int64_t *unreadable, Error *error)
{
    EvalBatch *batch = NULL;
    stream->own.count = stream->own.patches = *unreadable = 0;
    TRY(eval_loader_next(stream->loader, &batch, error));
    if (!batch) return STATUS_OK;
    feature_work_run(stream->work, stream->ops, batch, stream->own.values, stream->own.tokens);
    keep_valid(stream, batch, &stream->own, unreadable);
    eval_loader_release(stream->loader, batch);
    return STATUS_OK;
}

/* --- to rank 0 --- */

/* `count` elements of `source` to rank 0's `out`. Collective over COMM. */
static void send(const Stream *stream, int source, void *out, const void *in, int64_t count, Dtype dtype)
{
    int ranks = comm_size(stream->comm), rank = comm_rank(stream->comm);
    int64_t *come = stream->lengths, *sent = stream->lengths + ranks;
    if (count == 0) return;
    memset(stream->lengths, 0, 2 * (size_t)ranks * sizeof *stream->lengths);
    if (rank == source) sent[0] = count;
    if (rank == 0) come[source] = count;
    comm_all_to_all(stream->comm, out, come, in, sent, dtype);
}

static Status hand_on(Stream *stream, const Part *part, Error *error)
{
    int64_t n = part->count, *labels = stream->unpacked, *indices = labels + n, *grids = indices + n;
    for (int64_t i = 0; i < n; i++) {
        const int64_t *record = part->records + i * RECORD;
        labels[i] = record[0];
        indices[i] = record[1];
        grids[2 * i] = record[2];
        grids[2 * i + 1] = record[3];
    }
    FeaturePiece piece = {.first = stream->result->rows,
                          .count = n,
                          .values = part->values,
                          .tokens = part->tokens,
                          .grids = grids,
                          .labels = labels,
                          .indices = indices};
    return n > 0 ? stream->sink(stream->context, &piece, error) : STATUS_OK;
}

/* The ranks' batches of one turn. Collective over COMM; the status is rank 0's sink's. */
static Status collect_turn(Stream *stream, Error *error)
{
    int rank = comm_rank(stream->comm);
    Status status = STATUS_OK;
    for (int source = 0; source < comm_size(stream->comm); source++) {
        const int64_t *counts = stream->counts + (int64_t)source * 3;
        Part *come = source == 0 ? &stream->own : &stream->come;
        const Part *own = &stream->own;
        if (source > 0 && counts[0] > 0) {
            come->count = counts[0];
            come->patches = counts[1];
            send(stream, source, come->records, own->records, counts[0] * RECORD, DTYPE_I64);
            send(stream, source, come->values, own->values, counts[0] * stream->columns, DTYPE_F32);
            send(stream, source, come->tokens, own->tokens, counts[1] * stream->width, DTYPE_F32);
        }
        if (rank == 0 && counts[0] > 0 && status == STATUS_OK) status = hand_on(stream, come, error);
        stream->result->rows += counts[0];
        stream->result->skipped += counts[2];
    }
    return status;
}

/* All turns. How rank 0's sink fared is agreed on in the next turn, so that the others go on while it works.
 * Collective over COMM. */
static Status run_turns(Stream *stream, const EvalLoaderParams *params, int64_t pictures, Error *error)
{
    const FeatureExtractor *extractor = stream->extractor;
    Progress progress =
        progress_begin(extractor->log, extractor->what, 0, pictures, pictures / PROGRESS_LINES + 1);
    progress.unit = "images";
    Status status = STATUS_OK, sunk = STATUS_OK;
    for (int64_t done = 0; done < pictures;) {
        int64_t counts[3] = {0};
        status = sunk == STATUS_OK ? compute(stream, &counts[2], error) : sunk;
        counts[0] = stream->own.count;
        counts[1] = stream->own.patches;
        status = comm_agree(stream->comm, status, error);
        if (status != STATUS_OK) break;
        comm_all_gather(stream->comm, stream->counts, counts, 3, DTYPE_I64, NULL);
        sunk = collect_turn(stream, error);
        done = done + params->step < pictures ? done + params->step : pictures;
        progress_update(&progress, done, "");
    }
    progress_end(&progress);
    TRY(status);
    return comm_agree(stream->comm, sunk, error);
}

/* Small sets in batches for many ranks, whatever their number is. */
static int64_t batch_size(const FeatureExtractor *extractor, int64_t pictures)
{
    int64_t views = feature_extractor_views(extractor), share = (pictures + BATCHES - 1) / BATCHES;
    int64_t images = (share > PICTURES_LEAST ? share : PICTURES_LEAST) * views;
    return images < extractor->input.batch_size ? images : extractor->input.batch_size;
}

Status feature_stream_run(const FeatureExtractor *extractor, const Ops *ops, Comm *comm, const DataSet *set,
                          FeatureSink sink, void *context, FeatureStreamResult *result, Error *error)
{
    double start = clock_seconds();
    int ranks = comm_size(comm), rank = comm_rank(comm);
    int64_t pictures = data_set_count(set), views = feature_extractor_views(extractor);
    FeatureExtractor bounded = *extractor;
    bounded.input.batch_size = batch_size(extractor, pictures);
    *result = (FeatureStreamResult){0};
    TRY(comm_agree(comm, feature_extractor_check(extractor, error), error));
    CHECK(!extractor->backbone || !extractor->backbone->hooks);
    const Whitening *whitening = extractor->whitening;
    Stream stream = {.extractor = &bounded,
                     .ops = ops,
                     .comm = comm,
                     .columns =
                         whitening ? whitening_columns(whitening) : feature_extractor_columns(extractor),
                     .width = extractor->backbone ? extractor->backbone->vit->config.embed_dim : 0,
                     .most = feature_work_pictures(&bounded) * views,
                     .sink = sink,
                     .context = context,
                     .result = result};
    EvalLoaderParams params = feature_work_loader(&bounded, 0, pictures);
    params.step = params.batch_size * ranks;
    params.first = rank * params.batch_size < pictures ? rank * params.batch_size : pictures;
    stream.work = feature_work_create(&bounded, ops->device);
    stream.own = part_create(&stream);
    if (rank == 0 && ranks > 1) stream.come = part_create(&stream);
    stream.counts = memory_alloc_array((size_t)ranks * 3, sizeof *stream.counts);
    stream.lengths = memory_alloc_array((size_t)ranks * 2, sizeof *stream.lengths);
    stream.unpacked = memory_alloc_array((size_t)stream.most * RECORD, sizeof *stream.unpacked);
    Status status = comm_agree(comm, eval_loader_create(&stream.loader, &params, set, error), error);
    if (status == STATUS_OK) status = run_turns(&stream, &params, pictures, error);
    if (status == STATUS_OK) feature_work_tell_corrupt(set, comm, extractor->log);
    eval_loader_destroy(stream.loader);
    feature_work_destroy(stream.work);
    part_destroy(&stream.own);
    part_destroy(&stream.come);
    memory_free(stream.counts);
    memory_free(stream.lengths);
    memory_free(stream.unpacked);
    result->skipped /= views;
    result->seconds = clock_seconds() - start;
    if (status == STATUS_OK && result->rows == 0)
        status = status_fail(error, STATUS_INPUT, "none of the %lld images can be read",
                             (long long)result->skipped);
    return status;
}
