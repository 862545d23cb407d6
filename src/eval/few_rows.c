/* few_rows.c - see few_rows.h. */
#include "eval/few_rows.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"

#include <string.h>

enum { DRAW = 2 /* step of RNG_EVALUATION */ };

int64_t *few_rows_labels(const FeatureRows *rows, Comm *comm)
{
    int64_t *labels = memory_alloc_array((size_t)rows->total, sizeof *labels);
    int ranks = comm_size(comm);
    int64_t *counts = memory_alloc_array((size_t)ranks, sizeof *counts), first = 0;
    comm_all_gather(comm, counts, &rows->count, 1, DTYPE_I64, NULL);
    memcpy(labels + rows->first, rows->labels, (size_t)rows->count * sizeof *labels);
    for (int r = 0; r < ranks; r++) {
        comm_broadcast(comm, labels + first, counts[r], DTYPE_I64, r, NULL);
        first += counts[r];
    }
    memory_free(counts);
    return labels;
}

void few_rows_pick(uint8_t *picked, const int64_t *labels, int64_t n, int64_t classes, int64_t per_class,
                   uint64_t seed)
{
    CHECK(n >= 0);
    int64_t *starts = memory_alloc_array((size_t)classes + 1, sizeof *starts);
    int64_t *order = memory_alloc_array((size_t)n, sizeof *order);
    for (int64_t i = 0; i < n; i++)
        starts[labels[i] + 1]++;
    for (int64_t c = 0; c < classes; c++)
        starts[c + 1] += starts[c];
    int64_t *next = memory_alloc_array((size_t)classes, sizeof *next);
    memcpy(next, starts, (size_t)classes * sizeof *next);
    for (int64_t i = 0; i < n; i++)
        order[next[labels[i]]++] = i;
    memset(picked, 0, (size_t)n);
    for (int64_t c = 0; c < classes; c++) {
        int64_t *rows = order + starts[c], count = starts[c + 1] - starts[c];
        Rng rng = rng_at(seed, RNG_EVALUATION, DRAW, (uint64_t)c);
        for (int64_t i = 0; i < per_class && i < count; i++) {
            int64_t other = rng_integer(&rng, i, count - 1), row = rows[other];
            rows[other] = rows[i];
            picked[row] = 1;
        }
    }
    memory_free(next);
    memory_free(order);
    memory_free(starts);
}
