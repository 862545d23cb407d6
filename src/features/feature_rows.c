/* feature_rows.c - see feature_rows.h. */
#include "features/feature_rows.h"

#include "base/memory.h"

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
