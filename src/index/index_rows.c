/* index_rows.c - see index_rows.h. */
#include "index/index_rows.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LANES = 16 }; /* sums of a product that go side by side */

/* --- dealing --- */

/* Where part `part` of `parts` begins: the first total % parts are one longer. */
static int64_t part_first(int64_t total, int64_t part, int64_t parts)
{
    int64_t longer = total % parts;
    return part * (total / parts) + (part < longer ? part : longer);
}

int64_t index_range_first(int64_t total, int rank, int size)
{
    return part_first(total, rank, size);
}

int index_range_owner(int64_t total, int64_t id, int size)
{
    CHECK(id >= 0 && id < total);
    int64_t length = total / size, longer = total % size;
    int64_t boundary = longer * (length + 1);
    return (int)(id < boundary ? id / (length + 1) : longer + (id - boundary) / length);
}

/* --- rows in memory --- */

static Status read_memory(const IndexRows *rows, int64_t first, int64_t n, float *out, Error *error)
{
    (void)error;
    const float *values = rows->context;
    memcpy(out, values + first * rows->d, (size_t)(n * rows->d) * sizeof *out);
    return STATUS_OK;
}

IndexRows index_rows_memory(const char *name, const float *values, int64_t count, int64_t d)
{
    /* read_memory only reads; other kinds of rows need a context that they can change */
    return (IndexRows){.name = name,
                       .count = count,
                       .total = count,
                       .d = d,
                       .context = (void *)(uintptr_t)values,
                       .read = read_memory};
}

/* --- a part of others --- */

static Status read_part(const IndexRows *rows, int64_t first, int64_t n, float *out, Error *error)
{
    const IndexRows *whole = rows->context;
    return whole->read(whole, rows->first - whole->first + first, n, out, error);
}

static void place_part(const IndexRows *rows, int64_t row, char *text, size_t size)
{
    const IndexRows *whole = rows->context;
    whole->place(whole, rows->first - whole->first + row, text, size);
}

IndexRows index_rows_part(const IndexRows *whole, int64_t first, int64_t count)
{
    CHECK(first >= 0 && count >= 0 && first + count <= whole->count);
    return (IndexRows){.name = whole->name,
                       .count = count,
                       .first = whole->first + first,
                       .total = whole->total,
                       .d = whole->d,
                       .context = (void *)(uintptr_t)whole,
                       .read = read_part,
                       .place = whole->place ? place_part : NULL};
}

Status index_rows_place(IndexRows *rows, Comm *comm, Error *error)
{
    int64_t mine[2] = {rows->count, rows->d};
    int64_t *all = memory_alloc_array(2 * (size_t)comm_size(comm), sizeof *all);
    comm_all_gather(comm, all, mine, 2, DTYPE_I64, NULL);
    Status status = STATUS_OK;
    rows->first = rows->total = 0;
    for (int r = 0; r < comm_size(comm); r++) {
        if (r < comm_rank(comm)) rows->first += all[2 * r];
        rows->total += all[2 * r];
        if (all[2 * r + 1] != all[1] && status == STATUS_OK)
            status =
                status_fail(error, STATUS_INPUT, "%s: rows of %lld numbers on rank 0, of %lld on rank %d",
                            rows->name, (long long)all[1], (long long)all[2 * r + 1], r);
    }
    memory_free(all);
    return status;
}

/* --- reading --- */

double index_rows_dot(const float *a, const float *b, int64_t d)
{
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            lanes[lane] += (double)a[i + lane] * (double)b[i + lane];
    for (int lane = 0; i + lane < d; lane++)
        lanes[lane] += (double)a[i + lane] * (double)b[i + lane];
    double sum = 0.0;
    for (int lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static Status refuse(const IndexRows *rows, int64_t row, const char *why, Error *error)
{
    char place[512];
    if (rows->place)
        rows->place(rows, row, place, sizeof place);
    else
        snprintf(place, sizeof place, "%s: row %lld", rows->name, (long long)(rows->first + row));
    return status_fail(error, STATUS_INPUT, "%s %s", place, why);
}

Status index_rows_read(const IndexRows *rows, int64_t first, int64_t n, IndexRowsForm form, float *out,
                       Error *error)
{
    CHECK(first >= 0 && n >= 0 && first + n <= rows->count);
    if (n == 0) return STATUS_OK;
    TRY(rows->read(rows, first, n, out, error));
    for (int64_t i = 0; i < n; i++) {
        float *row = out + i * rows->d;
        double squares = index_rows_dot(row, row, rows->d); /* of fp32 numbers: overflows for infinity only */
        if (!isfinite(squares)) return refuse(rows, first + i, "holds a number that is not finite", error);
        if (form == INDEX_ROWS_RAW) continue;
        if (squares == 0.0) return refuse(rows, first + i, "is zero, which has no direction", error);
        double scale = 1.0 / sqrt(squares);
        for (int64_t j = 0; j < rows->d; j++)
            row[j] = (float)((double)row[j] * scale);
    }
    return STATUS_OK;
}

/* --- samples --- */

void index_rows_sample(int64_t *ids, int64_t m, int64_t total, uint64_t seed, uint64_t step)
{
    CHECK(m >= 0 && m <= total);
    for (int64_t i = 0; i < m; i++) {
        Rng rng = rng_at(seed, RNG_INDEX, step, (uint64_t)i);
        ids[i] = rng_integer(&rng, part_first(total, i, m), part_first(total, i + 1, m) - 1);
    }
}

void index_rows_own(const IndexRows *rows, const int64_t *ids, int64_t m, int64_t *begin, int64_t *end)
{
    int64_t i = 0;
    while (i < m && ids[i] < rows->first)
        i++;
    *begin = i;
    while (i < m && ids[i] < rows->first + rows->count)
        i++;
    *end = i;
}

Status index_rows_pick(const IndexRows *rows, const int64_t *ids, int64_t m, IndexRowsForm form, float *out,
                       Error *error)
{
    for (int64_t i = 0; i < m;) {
        int64_t run = 1;
        while (i + run < m && ids[i + run] == ids[i] + run)
            run++;
        TRY(index_rows_read(rows, ids[i] - rows->first, run, form, out + i * rows->d, error));
        i += run;
    }
    return STATUS_OK;
}

Status index_rows_collect(const IndexRows *rows, const int64_t *ids, int64_t m, IndexRowsForm form, int root,
                          float *out, Comm *comm, Error *error)
{
    int64_t begin, end;
    index_rows_own(rows, ids, m, &begin, &end);
    float *mine = memory_alloc_array((size_t)((end - begin) * rows->d), sizeof *mine);
    Status status = index_rows_pick(rows, ids + begin, end - begin, form, mine, error);
    status = comm_agree(comm, status, error);
    if (status == STATUS_OK) {
        /* owners lie in rank order, as the ids do: the pieces are in place as they come */
        int64_t *counts = memory_alloc_array(2 * (size_t)comm_size(comm), sizeof *counts);
        int64_t *sent = counts + comm_size(comm);
        sent[root] = (end - begin) * rows->d;
        comm_exchange_counts(comm, counts, sent);
        comm_all_to_all(comm, out, counts, mine, sent, DTYPE_F32);
        memory_free(counts);
    }
    memory_free(mine);
    return status;
}
