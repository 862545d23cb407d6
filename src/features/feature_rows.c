/* feature_rows.c - see feature_rows.h. */
#include "features/feature_rows.h"

#include "base/memory.h"

#include <string.h>

enum { GATHER_ROWS = 4096 };

void feature_rows_init(FeatureRows *rows, int64_t capacity, int64_t d)
{
    *rows = (FeatureRows){.d = d};
    rows->values = memory_alloc_array((size_t)capacity, (size_t)d * sizeof *rows->values);
    rows->labels = memory_alloc_array((size_t)capacity, sizeof *rows->labels);
    rows->indices = memory_alloc_array((size_t)capacity, sizeof *rows->indices);
}

void feature_rows_fini(FeatureRows *rows)
{
    memory_free(rows->values);
    memory_free(rows->labels);
    memory_free(rows->indices);
    *rows = (FeatureRows){0};
}

void feature_rows_number(FeatureRows *rows, Comm *comm)
{
    int ranks = comm_size(comm);
    int64_t *counts = memory_alloc_array((size_t)ranks, sizeof *counts);
    comm_all_gather(comm, counts, &rows->count, 1, DTYPE_I64, NULL);
    rows->first = rows->total = 0;
    for (int r = 0; r < ranks; r++) {
        if (r < comm_rank(comm)) rows->first += counts[r];
        rows->total += counts[r];
    }
    memory_free(counts);
}

/* One piece in flight. */
typedef struct {
    float *values;   /* [GATHER_ROWS, d] */
    int64_t *labels; /* [GATHER_ROWS] */
    int64_t *indices;
} Piece;

/* The rows of rank `source` to all, piece by piece; rank 0 hands them on as long as its sink takes them. */
static Status gather_rank(const FeatureRows *rows, Comm *comm, int source, int64_t first, int64_t count,
                          const Piece *piece, FeatureRowsSink sink, void *context, Status status,
                          Error *error)
{
    for (int64_t at = 0; at < count; at += GATHER_ROWS) {
        int64_t n = count - at < GATHER_ROWS ? count - at : GATHER_ROWS;
        if (source == comm_rank(comm)) {
            memcpy(piece->values, rows->values + at * rows->d, (size_t)(n * rows->d) * sizeof *piece->values);
            memcpy(piece->labels, rows->labels + at, (size_t)n * sizeof *piece->labels);
            memcpy(piece->indices, rows->indices + at, (size_t)n * sizeof *piece->indices);
        }
        comm_broadcast(comm, piece->values, n * rows->d, DTYPE_F32, source, NULL);
        comm_broadcast(comm, piece->labels, n, DTYPE_I64, source, NULL);
        comm_broadcast(comm, piece->indices, n, DTYPE_I64, source, NULL);
        if (comm_rank(comm) == 0 && status == STATUS_OK)
            status = sink(context, first + at, n, piece->values, piece->labels, piece->indices, error);
    }
    return status;
}

Status feature_rows_gather(const FeatureRows *rows, Comm *comm, FeatureRowsSink sink, void *context,
                           Error *error)
{
    int ranks = comm_size(comm);
    int64_t *counts = memory_alloc_array((size_t)ranks, sizeof *counts);
    comm_all_gather(comm, counts, &rows->count, 1, DTYPE_I64, NULL);
    Piece piece = {.values = memory_alloc_array(GATHER_ROWS, (size_t)rows->d * sizeof(float)),
                   .labels = memory_alloc_array(GATHER_ROWS, sizeof(int64_t)),
                   .indices = memory_alloc_array(GATHER_ROWS, sizeof(int64_t))};
    Status status = STATUS_OK;
    int64_t first = 0;
    for (int source = 0; source < ranks; source++) {
        status = gather_rank(rows, comm, source, first, counts[source], &piece, sink, context, status, error);
        first += counts[source];
    }
    memory_free(piece.values);
    memory_free(piece.labels);
    memory_free(piece.indices);
    memory_free(counts);
    return comm_agree(comm, status, error);
}
