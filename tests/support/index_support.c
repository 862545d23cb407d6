/* index_support.c - see index_support.h. */
#include "index_support.h"

#include "base/memory.h"
#include "base/rng.h"

void index_support_fill(const IndexSupportData *data, int64_t first, int64_t n, float *values)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t id = first + i;
        if (data->copies > 0 && id % data->copies == 1) id--;
        Rng own = rng_at(data->seed, RNG_TEST, 1, (uint64_t)id);
        Rng centre = rng_at(data->seed, RNG_TEST, 2, rng_u64(&own) % (uint64_t)data->clusters);
        for (int64_t j = 0; j < data->d; j++)
            values[i * data->d + j] = (float)(rng_normal(&centre) + data->spread * rng_normal(&own));
    }
}

IndexRows index_support_rows(const IndexSupportData *data, const char *name, int64_t total, Comm *comm)
{
    int rank = comm_rank(comm), size = comm_size(comm);
    int64_t first = index_range_first(total, rank, size);
    int64_t count = index_range_first(total, rank + 1, size) - first;
    float *values = memory_alloc_array((size_t)(count * data->d), sizeof *values);
    index_support_fill(data, first, count, values);
    IndexRows rows = index_rows_memory(name, values, count, data->d);
    rows.first = first;
    rows.total = total;
    return rows;
}
